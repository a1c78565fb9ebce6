"""A transport whose requests are measured."""

import re
import time
from typing import Final

from order_engine.chain.rpc import Transport
from order_engine.meters import Meters

_METHOD: Final = re.compile(rb'"method":\s*"([A-Za-z]{1,40})"')


class MeasuredTransport:
    """A Transport around another one. A batch counts for its first method."""

    def __init__(self, transport: Transport, meters: Meters) -> None:
        """Measures nothing before the first request."""
        self._transport = transport
        self._meters = meters

    async def post(self, body: bytes) -> bytes:
        """See Transport."""
        found = _METHOD.search(body)
        begun_s, is_lost = time.monotonic(), True
        try:
            answer = await self._transport.post(body)
            is_lost = False
        finally:
            method = "other" if found is None else found[1].decode()
            self._meters.called(method, time.monotonic() - begun_s, is_lost=is_lost)
        return answer

    async def close(self) -> None:
        """See Transport."""
        await self._transport.close()

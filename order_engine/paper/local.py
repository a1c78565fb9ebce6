"""The paper chain in this process, behind the same JSON-RPC as a chain behind an address."""

import asyncio
from typing import Final

from order_engine.domain.errors import ChainUnavailable
from order_engine.paper.network import PaperNetwork
from order_engine.paper.node import NoReply, PaperNode, TooManyRequests

_TIMEOUT_S: Final = 5.0


class LocalTransport:
    """A Transport to a node in this process, which it owns."""

    def __init__(self, node: PaperNode, network: PaperNetwork) -> None:
        """`network` is closed with the transport."""
        self._node = node
        self._network = network

    async def post(self, body: bytes) -> bytes:
        """See Transport."""
        try:
            return await self._node.answer(body)
        except TooManyRequests as error:
            raise ChainUnavailable("the chain answers HTTP 429") from error
        except NoReply as error:
            await asyncio.sleep(_TIMEOUT_S)
            raise ChainUnavailable("the chain does not answer: TimeoutError") from error

    async def close(self) -> None:
        """See Transport."""
        await self._network.close()

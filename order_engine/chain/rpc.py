"""The JSON-RPC of Solana's nodes: few requests, over connections that stay open.

A request without a clear answer (no connection, a timeout, an HTTP error, a JSON-RPC error, another
id, a shape that is not Solana's) gives ChainUnavailable: nothing is known.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

import aiohttp
import msgspec

from order_engine.chain.pacing import Pacing, retry_after_s
from order_engine.domain.errors import ChainUnavailable

_TIMEOUT_S: Final = 5.0
_CONNECTIONS: Final = 32
_HTTP_OK: Final = 200
# 429: we ask the node too often. 503: the node asks us to come back later.
_HTTP_LIMITED: Final = frozenset({429, 503})
_SEND: Final = b'"sendTransaction"'
_MAX_ANSWER_BYTES: Final = 2 * 1024 * 1024
_MAX_REQUESTS_IN_A_BATCH: Final = 100
# Agave's nodes refuse bodies over 50 KiB (rpc/src/rpc_service.rs, MAX_REQUEST_BODY_SIZE).
_MAX_BODY_BYTES: Final = 48 * 1024
_MAX_ERROR_BYTES: Final = 200

# Decoding bytes from outside may raise msgspec's own errors, and Python's for text that is not UTF-8
# or that is nested too deeply.
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Transport(Protocol):
    """Sends the body of one JSON-RPC request or batch to a node, and returns the body of the answer."""

    async def post(self, body: bytes) -> bytes:
        """Return the answer's body; raises ChainUnavailable."""
        ...

    async def close(self) -> None:
        """Close the connections; the requests on them fail."""
        ...


class HttpTransport:
    """A Transport to the address that CHAIN_URL names."""

    def __init__(self, url: str) -> None:
        """Connects at the first request."""
        self._url = url
        self._session: aiohttp.ClientSession | None = None
        self._pacing = Pacing(time.monotonic)

    async def post(self, body: bytes) -> bytes:
        """See Transport."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                headers={"Content-Type": "application/json"},
            )
        if (wait_s := self._pacing.wait_s(is_send=_SEND in body)) > 0:
            await asyncio.sleep(wait_s)
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                if response.status in _HTTP_LIMITED:
                    self._pacing.note_limited(retry_after_s(response.headers.get("Retry-After")))
                if response.status != _HTTP_OK:
                    raise ChainUnavailable(f"the chain answers HTTP {response.status}")
                self._pacing.note_answered()
                return await self._read(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ChainUnavailable(f"the chain does not answer: {_without_url(error)}") from error

    async def close(self) -> None:
        """See Transport."""
        if self._session is not None:
            await self._session.close()

    @staticmethod
    async def _read(response: aiohttp.ClientResponse) -> bytes:
        """Return the body; raises ChainUnavailable if it is longer than 2 MiB."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > _MAX_ANSWER_BYTES:
                raise ChainUnavailable(f"the chain's answer is longer than {_MAX_ANSWER_BYTES} bytes")
            chunks.append(chunk)
        return b"".join(chunks)


class Request(msgspec.Struct, frozen=True):
    """One call: Solana's name of the method, its parameters, and the decoder of its result."""

    method: str
    params: list[Any]
    result: "msgspec.json.Decoder[Any]"


_Encoded = tuple[int, Request, bytes]


class _Answer(msgspec.Struct):
    id: int | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


_ANSWER: Final = msgspec.json.Decoder(_Answer)
_ANSWERS: Final = msgspec.json.Decoder(list[msgspec.Raw])


class JsonRpc:
    """Asks a node; each request gets its own result or error, also in a batch."""

    def __init__(self, transport: Transport) -> None:
        """`transport` is closed by `close`."""
        self._transport = transport
        self._ids = itertools.count(1)

    async def ask_together(self, requests: Sequence[Request]) -> list[Any]:
        """Return the results of requests that one node answers; raises ChainUnavailable if one fails."""
        results = await self.ask_one_node(requests)
        for result in results:
            if isinstance(result, ChainUnavailable):
                raise result
        return results

    async def ask_one_node(self, requests: Sequence[Request]) -> list[Any]:
        """Return a result or ChainUnavailable for each; they travel as one batch of any size."""
        return await self._ask_batch(self._encoded(requests))

    async def ask_many(self, requests: Sequence[Request]) -> list[Any]:
        """Return a result or ChainUnavailable for each; they travel in as few batches as nodes allow."""
        batches = _batches(self._encoded(requests))
        if len(batches) == 1:
            return await self._ask_batch(batches[0])
        answered = await asyncio.gather(*(self._ask_batch(batch) for batch in batches))
        return [result for results in answered for result in results]

    async def close(self) -> None:
        """Cancel the requests in flight: their outcome stays unknown, as after a timeout."""
        await self._transport.close()

    def _encoded(self, requests: Sequence[Request]) -> list[_Encoded]:
        numbered = [(next(self._ids), request) for request in requests]
        return [(number, request, _encode(request, number)) for number, request in numbered]

    async def _ask_batch(self, batch: Sequence[_Encoded]) -> list[Any]:
        try:
            if len(batch) == 1:
                number, request, encoded = batch[0]
                return [_result(await self._transport.post(encoded), number, request.result)]
            body = await self._transport.post(b"[" + b",".join(encoded for *_, encoded in batch) + b"]")
            answers = decode(body, _ANSWERS)
        except ChainUnavailable as error:
            return [error] * len(batch)
        # A batch's answers may come in any order.
        by_id = {_id_of(answer): answer for answer in answers}
        return [_attempt(by_id.get(number, msgspec.Raw(b"")), number, request.result) for number, request, _ in batch]


def decode(body: bytes, decoder: "msgspec.json.Decoder[Any]") -> Any:
    """Decode bytes from a node; raises ChainUnavailable."""
    try:
        return decoder.decode(body)
    except _UNREADABLE as error:
        raise ChainUnavailable(f"the chain's answer cannot be read: {error}") from error


def _encode(request: Request, request_id: int) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "method": request.method, "params": request.params})


def _batches(requests: Sequence[_Encoded]) -> list[list[_Encoded]]:
    batches: list[list[_Encoded]] = []
    room = 0
    for request in requests:
        size = len(request[2]) + 1
        if not batches or size > room or len(batches[-1]) == _MAX_REQUESTS_IN_A_BATCH:
            batches.append([])
            room = _MAX_BODY_BYTES
        batches[-1].append(request)
        room -= size
    return batches


def _id_of(answer: bytes) -> int | None:
    try:
        return _ANSWER.decode(answer).id
    except _UNREADABLE:
        return None


def _result(body: bytes, request_id: int, decoder: "msgspec.json.Decoder[Any]") -> Any:
    answer = decode(body, _ANSWER)
    if answer.id != request_id:
        raise ChainUnavailable("the chain answers something that was not asked")
    error = bytes(answer.error)
    if error not in (b"", b"null"):
        said = error[:_MAX_ERROR_BYTES].decode("utf-8", "replace")
        raise ChainUnavailable(f"the chain answers with an error: {said}")
    return decode(answer.result, decoder)


def _attempt(body: bytes, request_id: int, decoder: "msgspec.json.Decoder[Any]") -> Any:
    try:
        return _result(body, request_id, decoder)
    except ChainUnavailable as error:
        return error


def _without_url(error: BaseException) -> str:
    """Describe the error without the URL, which may hold a key of the node's provider."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.strerror or type(error).__name__
    return type(error).__name__

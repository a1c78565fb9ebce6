"""One call over HTTP, repeated until the engine itself answers."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import httpx2
import msgspec

from order_engine.client.answers import Answer
from order_engine.client.errors import EngineRefusedError, reason_of
from order_engine.client.patience import Patience, Retry

# Fraction of a try's time for TCP, and again for TLS. httpcore closes a connection that timed out, not a cancelled one.
_CONNECT_SHARE: Final = 1 / 3
# A page of 100 orders, each with all of its metadata, is below 2 MiB.
_MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
# httpcore's trace event at the start of sending a request.
_SENDING: Final = "send_request_headers.started"


class Request(msgspec.Struct, frozen=True):
    """A request that is safe to repeat. A JSON answer with the member `member` is the engine's.

    `also`: statuses of such answers besides 200 and 202.
    """

    method: str
    path: str
    member: str
    params: Mapping[str, Any] = {}
    headers: Mapping[str, str] = {}
    content: bytes | None = None
    also: Collection[int] = ()


class Fate(msgspec.Struct):
    """Whether any try of a call may have been delivered, and may have placed or cancelled an order."""

    may_be_done: bool = False


class GaveUpError(Exception):
    """The call has no answer; the message says why. `problem` is the engine's last problem document, or None."""

    def __init__(self, why: str, problem: Mapping[str, Any] | None = None) -> None:
        """`why` is a sentence."""
        super().__init__(why)
        self.problem = problem


class Calls:
    """The calls of one client."""

    def __init__(
        self, url: str, shown: str, headers: Mapping[str, str], patience: Patience, on_lost: Callable[[str], None]
    ) -> None:
        """`on_lost` is told why a call is repeated, once for each reason."""
        self._shown = shown
        self._patience = patience
        self._on_lost = on_lost
        self._http = httpx2.AsyncClient(base_url=url, headers=dict(headers), trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, request: Request, fate: Fate) -> dict[str, Any]:
        """Return the engine's answer; `fate` is kept up to date, also while this is cancelled.

        Raises EngineRefusedError when the engine refused, GaveUpError when the time is up.
        """
        retry = Retry(self._patience)
        told = ""
        while True:
            answer, error = await self._try(request, retry.try_s, fate)
            result = None if answer is None else answer.result(request.member, request.also)
            if result is not None:
                self._patience.is_engine_there = True
                return result
            problem = None if answer is None else answer.problem()
            if problem is not None:
                self._patience.is_engine_there = True
                if answer is not None and not answer.is_passing:
                    raise EngineRefusedError(problem)
            why = self._why(answer, problem, error)
            asked_s = None if answer is None else answer.retry_after_s()
            is_limited = problem is not None and answer is not None and answer.is_limited
            pause_s = retry.pause_s(asked_s, is_limited=is_limited)
            if pause_s is None:
                raise GaveUpError(why, problem) from error
            if why != told:
                self._on_lost(f"{why} Trying again for {max(1, round(retry.left_s))} s.")
                told = why
            await asyncio.sleep(pause_s)

    async def _try(self, request: Request, try_s: float, fate: Fate) -> tuple[Answer | None, Exception | None]:
        """Return the answer to one try, or the error that came instead."""
        may_be_done_before = fate.may_be_done

        async def note(name: str, _details: Any) -> None:
            if name.endswith(_SENDING):
                fate.may_be_done = True

        try:
            async with (
                asyncio.timeout(try_s),
                self._http.stream(
                    request.method,
                    request.path,
                    params=dict(request.params),
                    headers=dict(request.headers),
                    content=request.content,
                    timeout=httpx2.Timeout(None, connect=try_s * _CONNECT_SHARE),
                    extensions={"trace": note},
                ) as response,
            ):
                content = await _read(response)
        except Exception as error:  # noqa: BLE001 - after any error, the request may have been delivered
            return None, error
        answer = Answer(response.status_code, response.headers, content)
        if answer.problem() is not None and (answer.is_limited or not answer.is_passing):
            # The engine says that it did nothing in this try; an earlier try may still have been accepted.
            fate.may_be_done = may_be_done_before
        return answer, None

    def _why(self, answer: Answer | None, problem: Mapping[str, Any] | None, error: Exception | None) -> str:
        if problem is not None:
            return f"The engine at {self._shown} cannot answer now: {problem.get('detail', problem)}"
        if answer is not None:
            return not_an_engine(self._shown, answer)
        return no_engine_answers(self._shown, error or ConnectionError())


async def _read(response: httpx2.Response) -> bytes:
    chunks: list[bytes] = []
    left = _MAX_ANSWER_BYTES
    async for chunk in response.aiter_bytes():
        left -= len(chunk)
        if left < 0:
            message = "longer than any answer of an order-engine"
            raise ValueError(message)
        chunks.append(chunk)
    return b"".join(chunks)


def no_engine_answers(shown: str, error: Exception) -> str:
    """Say that a connection could not be opened, or broke off."""
    return (
        f"No engine answers at {shown} ({reason_of(error)}). "
        "Start one with `order-engine up`, or name another in ENGINE_URL."
    )


def not_an_engine(shown: str, answer: Answer) -> str:
    """Say that the answer is not the engine's."""
    kind = answer.kind.encode("ascii", "replace").decode()[:50]
    seen = f"status {answer.status}, {kind or 'no content type'}"
    return f"The answer from {shown} is not that of an order-engine ({seen})."

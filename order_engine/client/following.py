"""A stream over one WebSocket after another: each new one continues after the last event."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from order_engine.client.answers import Answer
from order_engine.client.calls import no_engine_answers, not_an_engine
from order_engine.client.errors import EngineRefusedError, EngineUnreachableError
from order_engine.client.patience import Patience, Retry

_NORMAL: Final = 1000
# Going away, no status, lost, a bug, restarting, try again later, bad gateway, TLS.
_PASSING: Final = frozenset({1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015})
# A page of the account's stream holds at least everything of one commit, and has no size limit of its own.
_MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
# A connection that lasted this long worked, even if no message came on it.
_GOOD_AFTER_S: Final = 5.0


class _Connect(connect):
    """Opens a WebSocket and follows no redirect, because the key is for this engine alone."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Refuse it like any other answer that is not the engine's."""
        return exc


class Following:
    """The streams of one client."""

    def __init__(
        self, url: str, shown: str, headers: Mapping[str, str], patience: Patience, on_lost: Callable[[str], None]
    ) -> None:
        """`url` begins with ws:// or wss://."""
        self._url = url
        self._shown = shown
        self._headers = dict(headers)
        self._patience = patience
        self._on_lost = on_lost

    async def documents(
        self, member: str, path_of: Callable[[], str], resuming: Callable[[], str], *, has_end: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield each frame's document, up to a normal close if the stream has an end.

        A document with the member `member` is the engine's. `path_of` returns the path to open, from the documents so
        far, and `resuming` tells a human about it.
        Raises EngineRefusedError, EngineUnreachableError.
        """
        retry = Retry(self._patience)
        told = ""
        while True:
            asked_s: float | None = None
            cause: Exception | None = None
            opened_s = time.monotonic()
            try:
                async with self._open(path_of(), retry) as websocket:
                    self._patience.is_engine_there = True
                    with contextlib.suppress(ConnectionClosed):
                        async for text in websocket:
                            document = _document(text, member)
                            retry.begin_again()
                            told = ""
                            yield document
                if has_end and websocket.close_code == _NORMAL:
                    return
                if time.monotonic() - opened_s >= _GOOD_AFTER_S:
                    retry.begin_again()
                why = _why_closed(websocket)
            except InvalidStatus as error:
                answer = _answer_of(error)
                why, asked_s, cause = self._refusal(answer), answer.retry_after_s(), error
            except (OSError, WebSocketException, ValueError) as error:
                # ValueError: a frame that is not JSON, or an answer that is not HTTP.
                why, cause = no_engine_answers(self._shown, error), error
            pause_s = retry.pause_s(asked_s)
            if pause_s is None:
                raise EngineUnreachableError(why) from cause
            if why != told:
                self._on_lost(f"{why} Reconnecting {resuming()}.")
                told = why
            await asyncio.sleep(pause_s)

    def _open(self, path: str, retry: Retry) -> _Connect:
        return _Connect(
            f"{self._url}{path}",
            additional_headers=self._headers,
            proxy=None,
            max_size=_MAX_FRAME_BYTES,
            open_timeout=retry.try_s,
        )

    def _refusal(self, answer: Answer) -> str:
        """Return why the stream was not opened this time; raises EngineRefusedError if a later try cannot succeed."""
        problem = answer.problem()
        if problem is None:
            return not_an_engine(self._shown, answer)
        self._patience.is_engine_there = True
        if not answer.is_passing:
            raise EngineRefusedError(problem)
        return f"The engine at {self._shown} cannot answer now: {problem.get('detail', problem)}"


def _document(text: str | bytes, member: str) -> dict[str, Any]:
    document = json.loads(text)
    if not isinstance(document, dict) or member not in document:
        message = "not a document of an order-engine"
        raise ValueError(message)
    return document


def _answer_of(error: InvalidStatus) -> Answer:
    response = error.response
    headers = {name.lower(): value for name, value in response.headers.raw_items()}
    return Answer(response.status_code, headers, bytes(response.body))


def _why_closed(websocket: ClientConnection) -> str:
    """Return why the stream broke off; raises EngineRefusedError if it cannot be opened again."""
    code = websocket.close_code
    why = f"The stream broke off ({code} {websocket.close_reason or ''}".rstrip() + ")."
    if code not in _PASSING and code != _NORMAL:
        raise EngineRefusedError({"detail": why})
    return why

"""The requests of one HTTP connection, served one after the other."""

import asyncio
from collections import deque
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from order_engine import observe
from order_engine.api.exchange import Exchange
from order_engine.api.guard import PACE, GuardedProtocol, peer_of
from order_engine.api.limits import Seats

# After this many requests that came before the previous answer, the connection waits before each next one, so that
# other connections are served.
_AT_ONCE: Final = 16
_PAUSE_S: Final = 0.02


class TakesTurns(GuardedProtocol, HttpToolsProtocol):
    """Answers in the order of the requests; the next one begins when the client has read the answer before it."""

    cycle: Any  # The exchange of the last request that was read.

    def __init__(self, seats: Seats, *args: Any, **keywords: Any) -> None:
        """Nothing has been read yet."""
        super().__init__(*args, **keywords)
        self._seats = seats
        self._serving: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._unread = b""
        self._is_in_message = self._is_last = self._has_surplus = False
        self._is_resting = False
        self._in_a_row = 0
        self._last_answer: bytes | None = None

    def _feed(self) -> None:
        """Read requests from the bytes that are unread."""
        raise NotImplementedError

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _new_exchange(self, *, keep_alive: bool) -> Exchange:
        return Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )

    def _serve(self, exchange: Exchange) -> None:
        self._serving = exchange
        self._start_asgi_task(exchange, self.app)

    def on_response_complete(self) -> None:
        """Go on with the next request, if one waits."""
        self.server_state.total_requests += 1
        self._dismiss(self._serving)
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self._serving is not None and self._serving.closes:
            self._close()
            return
        self._in_a_row = self._in_a_row + 1 if self._waiting or self._unread else 0
        if self._in_a_row > _AT_ONCE:
            self._rest()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Serve the next request, or send the final refusal, or read on."""
        if self._is_resting or self.flow.write_paused or self.transport.is_closing():
            return
        is_serving = self._serving is not None and not self._serving.response_complete
        if self._waiting:
            if not is_serving:
                self._serve(self._waiting.popleft())
        elif self._last_answer is not None:
            if not is_serving:
                self.transport.write(self._last_answer)
                self._last_answer = None
                self.end_soon()
        else:
            if self._unread:
                self._feed()
            if self._is_idle() and not self._is_in_message and self.timeout_keep_alive_task is None:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

    def _rest(self) -> None:
        """Neither read nor serve for a moment."""
        if not self._is_resting:
            self._is_resting = True
            self.transport.hold(PACE)
            self.loop.call_later(_PAUSE_S, self._end_rest)

    def _end_rest(self) -> None:
        self._is_resting = False
        self.transport.release(PACE)
        self._go_on()

    def _close(self) -> None:
        """Close after the last answer; at once if the client sends nothing more."""
        self._is_last = True
        if self._is_in_message or self._has_surplus:
            self.end_soon()
        else:
            self.transport.close()

    def _dismiss(self, exchange: Exchange | None) -> None:
        """The request is over: uncount it."""
        if exchange is not None and exchange.forwarded is not None:
            self._seats.end_request(exchange.forwarded)
            exchange.forwarded = None

    def _blame(self, kind: str) -> None:
        observe.client_at_fault(self._seats.faults, kind, peer_of(self.client), self.loop.time())

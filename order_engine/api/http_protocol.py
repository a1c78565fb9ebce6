"""HTTP/1.1 for untrusted clients: uvicorn's protocol with limits, problem documents and a strict parser."""

import asyncio
import re
import urllib.parse
from typing import Any, Final

import httptools

from order_engine.api.guard import PIPELINE, last_answer, peer_of
from order_engine.api.limits import Seat, Seats, Visit
from order_engine.api.problems import MAX_HEAD_BYTES, RequestRejected, is_unavailable
from order_engine.api.request_head import (
    MAX_HEADERS,
    Target,
    check_head,
    head_bytes,
    is_websocket_handshake,
    malformed,
    too_large,
    values_of,
    without_offers,
)
from order_engine.api.turns import TakesTurns
from order_engine.api.websocket_protocol import WebSocketProtocol

REQUEST_TIMEOUT_S: Final = 15.0
# The parser gets this many bytes at a time, because it cannot be stopped between two requests.
_PIECE_BYTES: Final = 1_024
# Bytes of one request in all, chunk headers and trailers included.
_MAX_MESSAGE_BYTES: Final = 256 * 1024
_MAX_WAITING_BODY_BYTES: Final = 32 * 1024
# After this many reads that complete no request, the connection waits, so that other connections are served.
_READS_AT_ONCE: Final = 16
_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")


class HttpProtocol(TakesTurns):
    """uvicorn's HTTP protocol. Serves a connection's requests in turn, and reads only a few ahead."""

    def __init__(self, seats: Seats, *args: Any, **keywords: Any) -> None:
        """`seats` counts the connections of the server; for the rest see uvicorn."""
        super().__init__(seats, *args, **keywords)
        self._seat: Seat | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._is_in_head = False
        self._is_handshake = self._ignores_offer = False
        self._has_exchange = False
        self._head_size = self._message_bytes = 0
        self._reads_in_vain = 0
        self._forwarded: str | None = None

    # --- the connection ---

    def connection_made(self, transport: Any) -> None:
        """Take a seat and wait for the first request."""
        super().connection_made(transport)
        self._seat = self._seats.take(peer_of(self.client))
        if self._seat.refusal is not None:
            self._blame("too many connections")
            if self._seat.is_hopeless:
                self.transport.abort()
                return
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """See uvicorn."""
        self._stop_waiting()
        if self._waiting:
            self._blame("abandoned pipeline")
        for exchange in (*self._waiting, self._serving):
            self._dismiss(exchange)
        self._waiting.clear()
        if self._forwarded is not None:
            self._seats.end_request(self._forwarded)
        if self._serving is not None:
            self._serving.disconnected = True
            self._serving.message_event.set()
        self._unread = b""
        self._is_last = True
        if self._seat is not None:
            self._seat.leave()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """See uvicorn."""
        self._is_last = True
        while self._waiting:
            self._dismiss(self._waiting.pop())
        self._unread = b""
        self.cycle = self._serving
        super().shutdown()

    def resume_writing(self) -> None:
        """See asyncio."""
        super().resume_writing()
        self._go_on()

    # --- reading ---

    def data_received(self, data: bytes) -> None:
        """Take bytes of requests; those that cannot be served yet wait unread."""
        if self._is_last and not self._is_in_message:
            self._has_surplus = True
            if self._lingering is None:
                self.transport.hold(PIPELINE)
            else:
                self.drop(data)
            return
        self._unset_keepalive_if_required()
        self._unread = self._unread + data if self._unread else data
        self._reads_in_vain += 1
        self._feed()
        if self._reads_in_vain > _READS_AT_ONCE:
            self._rest()

    def _feed(self) -> None:
        """Parse the unread bytes, piece by piece, up to the first request that has to wait."""
        while self._unread and self._may_parse():
            piece, self._unread = self._unread[:_PIECE_BYTES], self._unread[_PIECE_BYTES:]
            try:
                self._parse(piece)
            except RequestRejected as refusal:
                self._refuse(refusal)
        if self.transport.is_closing() or (self._is_last and not self._is_in_message):
            self._has_surplus = self._has_surplus or bool(self._unread)
            self._unread = b""
        elif self._unread:
            self.transport.hold(PIPELINE)
        else:
            self.transport.release(PIPELINE)
            if self._is_in_message or self._is_idle():
                self._await_request()

    def _may_parse(self) -> bool:
        if self._waiting or self.transport.is_closing():
            return False
        return self._is_in_message or (self._is_idle() and not self._is_last)

    def _parse(self, piece: bytes) -> None:
        """Give a piece to the parser; raises RequestRejected."""
        self._message_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._unread = piece[upgrade.args[0] :] + self._unread
            if self._is_handshake:
                self._begin_websocket()
            else:
                self._read_without_offer()
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, RequestRejected):
                raise error.__context__ from None
            raise malformed(str(error) or "The request cannot be read") from None
        self._head_size = self._head_size + len(piece) if self._is_in_head else 0
        if self._head_size > MAX_HEAD_BYTES:
            raise too_large(f"Path, query and headers must be at most {MAX_HEAD_BYTES} bytes together.")
        if self._is_in_message and self._message_bytes > _MAX_MESSAGE_BYTES:
            message = f"A request must be at most {_MAX_MESSAGE_BYTES} bytes in all."
            raise RequestRejected("body_too_large", message, {"Connection": "close"})

    def _read_without_offer(self) -> None:
        """Parse a request again without its offer of another protocol; otherwise the parser would drop its body."""
        version = self.parser.get_http_version()
        head = head_bytes(self.parser.get_method(), self.url, version, without_offers(self.headers))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._ignores_offer = False
        self._unread = head + self._unread

    def _begin_websocket(self) -> None:
        """Hand the connection over, with the bytes after the head."""
        target = Target(self.url)
        self._take_host_of(target)
        head = head_bytes(b"GET", target.origin_form, "1.1", [it for it in self.headers if it[0] != b"content-length"])
        self.connections.discard(self)
        self._stop_waiting()
        assert self._seat is not None  # noqa: S101 - taken when the connection was made
        address = self._forwarded or peer_of(self.client)
        visit = Visit(self._seats, self._seat, self._forwarded, address)
        early, self._unread, self._forwarded = self._unread, b"", None
        protocol = WebSocketProtocol(visit, self.config, self.server_state, self.app_state)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        self._is_last = True
        protocol.begin(head, early, self._request_id())

    # --- called by the parser ---

    def on_message_begin(self) -> None:
        """See uvicorn."""
        self._is_in_head = self._is_in_message = True
        self._is_handshake = self._ignores_offer = self._has_exchange = False
        self._message_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """See uvicorn. A header after the body does not change the request."""
        if not self._is_in_head:
            return
        if len(self.headers) >= MAX_HEADERS:
            raise too_large(f"A request must have at most {MAX_HEADERS} headers.")
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Check the head and start or queue the request."""
        self._is_in_head = False
        version = self.parser.get_http_version()
        method = self.parser.get_method()
        check_head(method, version, self.headers)
        if self.parser.should_upgrade():
            self._is_handshake = self._is_idle() and is_websocket_handshake(method, version, self.headers)
            self._ignores_offer = not self._is_handshake
            if self._ignores_offer:
                return
        forwarded = self._admit()
        if self._is_handshake:
            self._forwarded = forwarded
            return
        self._fill_scope(method.decode("ascii"), version, Target(self.url))
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        is_first = self._is_idle()
        self.cycle = self._new_exchange(keep_alive=keep_alive)
        self.cycle.forwarded = forwarded
        self._has_exchange = True
        if is_first:
            self._serve(self.cycle)
        else:
            self._waiting.append(self.cycle)

    def _admit(self) -> str | None:
        """Refuse a request beyond the limits; returns the client that a trusted proxy names and that is counted now."""
        assert self._seat is not None  # noqa: S101 - taken when the connection was made
        refusal, forwarded = self._seat.refusal, None
        if refusal is None and self._seat.address is None:
            forwarded = self._seats.limits.forwarded_client(self.scope)
            if forwarded is not None:
                refusal = self._seats.begin_request(forwarded)
        if refusal is not None:
            raise RequestRejected(refusal.code, refusal.detail, {"Connection": "close"})
        return forwarded

    def _fill_scope(self, method: str, version: str, target: Target) -> None:
        path = target.path.decode("ascii")
        if version == "1.0":
            self.scope["http_version"] = version
            self.expect_100_continue = False  # HTTP/1.0 has no interim answers.
        self.scope["method"] = method
        self.scope["path"] = self.root_path + (urllib.parse.unquote(path) if "%" in path else path)
        self.scope["raw_path"] = self.root_path.encode("ascii") + target.path
        self.scope["query_string"] = target.query
        self._take_host_of(target)

    def _take_host_of(self, target: Target) -> None:
        """RFC 9112, section 3.2.2: the host of an absolute target counts, and not the header's."""
        if target.authority is not None:
            self.headers[:] = [it for it in self.headers if it[0] != b"host"]
            self.headers.append((b"host", target.authority))

    def on_body(self, body: bytes) -> None:
        """See uvicorn."""
        if self._is_handshake or self._ignores_offer or self.cycle.response_complete:
            return
        self.cycle.body += body
        if len(self.cycle.body) > _MAX_WAITING_BODY_BYTES:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """See uvicorn. From here on the engine works on the request, so no deadline applies."""
        self._is_in_message = False
        if self._ignores_offer:
            return
        self._stop_waiting()
        self._reads_in_vain = 0
        if self._is_handshake:
            return
        self._is_last = self._is_last or not self.cycle.keep_alive
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # --- refusing ---

    def _refuse(self, refusal: RequestRejected) -> None:
        """Answer a request that cannot be read, after the answers to the requests before it, and close."""
        self._blame("too many connections" if is_unavailable(refusal.status) else "bad request")
        self._stop_waiting()
        self._is_last, self._is_in_message = True, False
        answer = last_answer(refusal, self._request_id())
        exchange, self._has_exchange = (self.cycle, False) if self._has_exchange else (None, False)
        if exchange is not None and exchange is not self._serving:
            self._dismiss(self._waiting.pop())
            self.cycle = self._waiting[-1] if self._waiting else self._serving
        elif exchange is not None:
            if exchange.response_started:
                self.end_soon()
                return
            # The handler that waits for the rest of the body is told that its client is gone.
            exchange.disconnected = exchange.response_complete = True
            self._dismiss(exchange)
            exchange.message_event.set()
        self._last_answer = answer
        self._go_on()

    def _request_id(self) -> str | None:
        for value in values_of(self.headers or [], b"x-request-id"):
            if _REQUEST_ID.fullmatch(value):
                return value.decode()
        return None

    # --- waiting for the client ---

    def _await_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_TIMEOUT_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

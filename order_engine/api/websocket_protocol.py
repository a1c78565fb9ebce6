"""WebSockets for untrusted clients: uvicorn's protocol with a budget for the frames of a client."""

from typing import Any, Final

from starlette.types import Message
from starlette.websockets import WebSocketDisconnect
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from order_engine import observe
from order_engine.api.frames import PAGE, READY, WINDOW_BITS, WRITE_NOW
from order_engine.api.guard import HANDSHAKE, GuardedProtocol, last_answer
from order_engine.api.limits import Budget, Visit
from order_engine.api.problems import SWITCHING_PROTOCOLS, RequestRejected

_MAX_FRAGMENTS: Final = 64
_VERSION: Final = "13"
_DEFLATE: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=WINDOW_BITS,
)


class _CountedFrames(ServerProtocol):
    """The library's parser, which stops at the first frame beyond the budget."""

    def __init__(self, budget: Budget, **keywords: Any) -> None:
        """For `keywords` see the library."""
        super().__init__(**keywords)
        self._budget = budget
        self._fragments = 0
        self.excess: str | None = None

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame; the first frame beyond the budget ends the connection and drops all buffered bytes."""
        self._fragments = 0 if frame.fin else self._fragments + 1
        if not self._budget.take_frame():
            self.give_up("too many frames")
        elif self._fragments > _MAX_FRAGMENTS:
            self.give_up("too many fragments of a message")
        else:
            super().recv_frame(frame)

    def give_up(self, reason: str) -> None:
        """Close with 1008; nothing is parsed from now on."""
        self.excess = reason
        self.fail(CloseCode.POLICY_VIOLATION, reason)


class WebSocketProtocol(GuardedProtocol, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket; a client that sends more than its budget is closed with 1008."""

    def __init__(
        self,
        visit: Visit,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        """`visit` ends when the connection is lost."""
        super().__init__(config, server_state, app_state)
        self._visit = visit
        self._head = b""
        self._request_id: str | None = None
        self._early = b""
        self._deflates = False
        self.conn: _CountedFrames = _CountedFrames(
            visit.budget, extensions=[_DEFLATE], max_size=config.ws_max_size, logger=self.logger
        )

    # --- the handshake ---

    def begin(self, head: bytes, early: bytes, request_id: str | None) -> None:
        """Take the head of the handshake, and bytes that the client sent before it was answered."""
        self._request_id = request_id
        self.transport.hold(HANDSHAKE)
        self._head, self._early = head, early
        delay_s = self._visit.delay_s(self.loop.time())
        if delay_s:
            self.loop.call_later(delay_s, self._shake_hands)
        else:
            self._shake_hands()

    def _shake_hands(self) -> None:
        head, self._head = self._head, b""
        if self.transport.is_closing() or self.disconnected:
            return
        self.conn.receive_data(head)
        self.handle_events()
        if not self.handshake_initiated:
            self._deny(RequestRejected("bad_handshake", f"{self.conn.handshake_exc}."))

    def handle_connect(self, event: Request) -> None:
        """See uvicorn. A handshake that the library refuses is answered with a problem document."""
        version = event.headers.get_all("Sec-WebSocket-Version")
        if version != [_VERSION]:
            self.handshake_initiated = True
            headers = {"Sec-WebSocket-Version": _VERSION, "Upgrade": "websocket"}
            message = f"This server speaks version {_VERSION} of the WebSocket protocol (RFC 6455)."
            self._deny(RequestRejected("websocket_version", message, headers))
            return
        response = self.conn.accept(event)
        if response.status_code == SWITCHING_PROTOCOLS:
            super().handle_connect(event)
            return
        self.handshake_initiated = True
        detail = (response.body or b"").decode("utf-8", "replace").strip() or "The handshake cannot be accepted."
        self._deny(RequestRejected("bad_handshake", detail, status=response.status_code))

    def _deny(self, refusal: RequestRejected) -> None:
        self._blame("bad handshake")
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        self.transport.write(last_answer(refusal, self._request_id))
        self.end_soon()

    def _listen(self) -> None:
        """The handshake is done: begin to receive."""
        self._deflates = any(map(_is_wide_enough, self.conn.extensions))
        early, self._early = self._early, b""
        self.transport.release(HANDSHAKE)
        if early:
            self.data_received(early)

    # --- receiving ---

    def data_received(self, data: bytes) -> None:
        """Take frames, as far as the budget goes."""
        if self._lingering is not None:
            self.drop(data)
            return
        if not self.handshake_complete:
            self._early += data
            return
        if not self._visit.budget.take_read(len(data), self.loop.time()):
            self.conn.give_up("too many bytes")
        else:
            self.conn.receive_data(data)
        if self.conn.excess is not None:
            self._end(self.conn.excess)
        elif self.conn.parser_exc is not None:
            self._end("bad frame")
        else:
            self.handle_events()

    def send_receive_event_to_app(self) -> None:
        """See uvicorn, which logs a traceback for text that is not UTF-8."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                if self.conn.state is State.OPEN:
                    self.conn.fail(CloseCode.INVALID_DATA, "text is not UTF-8")
                self._end("text is not UTF-8")
                return
        super().send_receive_event_to_app()

    def _end(self, kind: str) -> None:
        """Send the reason, and tell the application that the connection ends."""
        self._blame(kind)
        self._visit.offend(self.loop.time())
        self.stop_keepalive()
        sent = self.conn.close_sent
        code = CloseCode.ABNORMAL_CLOSURE if sent is None else sent.code
        self.queue.put_nowait({"type": "websocket.disconnect", "code": int(code), "reason": kind})
        if not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()))
        self.frames = []
        self.close_sent = True
        self.end_soon()

    # --- the application ---

    async def run_asgi(self) -> None:
        """See uvicorn. The application may also write without waiting."""
        extensions: dict[str, Any] = self.scope["extensions"]
        extensions[WRITE_NOW] = self.write_now
        try:
            await self.app(self.scope, self.receive, self.send)
        except (ClientDisconnected, WebSocketDisconnect):
            pass  # A client that disconnects is not our error.
        except Exception as error:  # noqa: BLE001 - a bug, which must not be silent
            request_id: Any = self.scope.get("request_id")
            self._request_id = str(request_id)
            observe.request_crashed(self._request_id, self.scope["path"], error)
        if not self.handshake_complete and not self.transport.is_closing():
            message = "This is a bug in order-engine. The log of the server has more under the request id."
            self._deny(RequestRejected("internal_error", message))
        if self.close_timer is None and self._lingering is None:
            self.transport.close()

    def write_now(self, message: Message) -> bool:
        """Send a message that is made already, and return whether that could be done without waiting."""
        if not self.writable.is_set() or self.transport.is_closing() or self.conn.state is not State.OPEN:
            return False
        page = message.get(PAGE)
        if page is None:
            self.transport.write(message[READY])
        else:
            self.transport.write(page.deflated if self._deflates else page.ready)
        return True

    async def send(self, message: Any) -> None:
        """See uvicorn. It returns when the client has read enough for more to be written."""
        if READY in message or PAGE in message:
            if not self.writable.is_set():
                await self.writable.wait()
            if not self.write_now(message):
                raise ClientDisconnected
        else:
            if self.close_sent:
                raise ClientDisconnected
            await super().send(message)
            if message["type"] == "websocket.accept":
                self._listen()
            if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
                self.handshake_complete = True
        if not self.writable.is_set():
            await self.writable.wait()

    # --- the end ---

    def shutdown(self) -> None:
        """See uvicorn, which fails if the client closes at the same moment."""
        if self.handshake_complete and self.conn.state is not State.OPEN:
            self.stop_keepalive()
            self.transport.close()
        elif self.handshake_complete:
            super().shutdown()
        else:
            self._deny(RequestRejected("stopping", "This process is stopping"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See uvicorn."""
        self._visit.end()
        self._early = b""
        super().connection_lost(exc)

    def _blame(self, kind: str) -> None:
        self._visit.blame(kind, self.loop.time())


def _is_wide_enough(extension: Extension) -> bool:
    return isinstance(extension, PerMessageDeflate) and extension.local_max_window_bits >= WINDOW_BITS

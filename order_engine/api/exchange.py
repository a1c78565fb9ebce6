"""One request and its answer, as uvicorn carries them, with care for HTTP/1.0 and slow readers."""

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

# A body of at least this size is not copied: a page of the account stream is one object for all watchers.
_NOT_COPIED_BYTES: Final = 4 * 1024


class Exchange(RequestResponseCycle):
    """uvicorn's cycle. `send` returns when the client has read enough for more to be written."""

    closes = False
    """Whether the connection closes after this answer; the protocol closes it."""
    forwarded: str | None = None
    """The client that a trusted proxy named, while this request counts for it."""
    _ends_with_connection = False
    waiting_for_100_continue: bool
    expected_content_length: int
    chunked_encoding: bool | None
    keep_alive: bool
    disconnected: bool

    async def send(self, message: Any) -> None:
        """See ASGI."""
        if self.transport.is_closing():
            self.disconnected = True
        if message["type"] == "http.response.start":
            self._prepare(message)
            await super().send(message)
            self.closes, self.keep_alive = self.closes or not self.keep_alive, True
        elif len(message.get("body", b"")) < _NOT_COPIED_BYTES or not self._write_chunk(message):
            if self._ends_with_connection:
                self.expected_content_length = len(message.get("body", b""))
            await super().send(message)
        # Without this, the next answer would be made while the previous one still waits.
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()

    def _prepare(self, message: Any) -> None:
        if self.waiting_for_100_continue:
            # The client may send its body now or leave it out, so the next bytes may be the body or the next request.
            self.keep_alive = False
        if self.scope["http_version"] == "1.0" and self.chunked_encoding is None:
            self.keep_alive = False
            if not any(name.lower() == b"content-length" for name, _ in message.get("headers", ())):
                # HTTP/1.0 has no chunked encoding: the end of the connection is the end of the answer.
                self.chunked_encoding = False
                self._ends_with_connection = True

    def _write_chunk(self, message: Any) -> bool:
        """Write a large chunk without copying it; returns False if this is not one."""
        is_chunk = self.response_started and not self.response_complete and self.chunked_encoding
        if not is_chunk or not message.get("more_body", False):
            return False
        if self.disconnected or self.flow.write_paused or self.scope["method"] == "HEAD":
            return False
        body = message["body"]
        self.transport.writelines((b"%x\r\n" % len(body), body, b"\r\n"))
        return True

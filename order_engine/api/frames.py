"""Messages that are sent as they are: one for a single client, or a page of the account stream for all watchers."""

from functools import cached_property
from typing import Final

import msgspec
from starlette.types import Message
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from order_engine.api.schemas import view_feed
from order_engine.ports.store import LogPage

# Key in a message to a WebSocket of our own server: the whole frame, or the page whose frame is to be sent.
READY: Final = "order_engine.frame"
PAGE: Final = "order_engine.page"
# Key in the scope of a WebSocket of our own server: a function that takes such a message at once, or returns False.
WRITE_NOW: Final = "order_engine.write_now"
# Common clients ask for this window. A page repeats itself within it, so a larger window compresses no better.
WINDOW_BITS: Final = 12

# Nothing is remembered from one message to the next, so each is the same for every client.
_deflate: Final = PerMessageDeflate(
    remote_no_context_takeover=True,
    local_no_context_takeover=True,
    remote_max_window_bits=WINDOW_BITS,
    local_max_window_bits=WINDOW_BITS,
    compress_settings={"level": 2, "memLevel": 9},
)


class PageFrame:
    """A page of the account stream in the forms in which it is sent.

    Each form is made at its first use, and is one object for all watchers. A server
    masks no frames, so they are the same for every client.
    """

    def __init__(self, page: LogPage) -> None:
        """Encode the page."""
        self.cursor = page.cursor
        self.events = page.events
        self._json = msgspec.json.encode(view_feed(page))
        self.message: Message = {"type": "websocket.send", PAGE: self}

    @property
    def text(self) -> str:
        """The page as JSON."""
        return self._json.decode()

    @cached_property
    def ready(self) -> bytes:
        """The page as a WebSocket frame."""
        return Frame(Opcode.TEXT, self._json).serialize(mask=False)

    @cached_property
    def deflated(self) -> bytes:
        """The same, deflated, for clients that agreed to that (RFC 7692)."""
        return Frame(Opcode.TEXT, self._json).serialize(mask=False, extensions=[_deflate])

    @cached_property
    def server_sent(self) -> bytes:
        """The page as a server-sent event whose id is the cursor."""
        return b"id: %b\ndata: %b\n\n" % (self.cursor.encode(), self._json)


def text_message(text: str) -> Message:
    """Return the ASGI message that sends the text. To one client alone, deflating it would cost more than it saves."""
    return {"type": "websocket.send", READY: Frame(Opcode.TEXT, text.encode()).serialize(mask=False)}

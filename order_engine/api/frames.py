"""What goes out over WebSockets: a message for one, or a page that is made once for all who watch."""

from typing import Final

import msgspec
from starlette.types import Message
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from order_engine.api.schemas import view_feed
from order_engine.ports.store import FeedPage

# Beside a message's text, the whole frame, and the same deflated for those who agreed to that (RFC 7692):
# our own server sends one of them as it is, another server does not look at them.
READY: Final = "order_engine.frame"
DEFLATED: Final = "order_engine.deflated_frame"
# In the scope of a WebSocket of our own server: takes such a message at once, or returns False.
WRITE_NOW: Final = "order_engine.write_now"
# What common clients ask for. A page is a hundredth part new: a larger window finds no more in it.
WINDOW_BITS: Final = 12

# Nothing is remembered from one message to the next, so each is the same for everybody.
_deflate: Final = PerMessageDeflate(
    remote_no_context_takeover=True,
    local_no_context_takeover=True,
    remote_max_window_bits=WINDOW_BITS,
    local_max_window_bits=WINDOW_BITS,
    compress_settings={"level": 2, "memLevel": 9},
)


class FeedFrame(msgspec.Struct, frozen=True):
    """A page of the feed as it goes out: its cursor, its text, and the message that carries it over a WebSocket."""

    cursor: str
    text: str
    message: Message


def feed_frame(page: FeedPage) -> FeedFrame:
    """Return the page for everybody who watches. What a server sends is not masked, so it is the same for all."""
    encoded = msgspec.json.encode(view_feed(page))
    text = encoded.decode()
    deflated = Frame(Opcode.TEXT, encoded).serialize(mask=False, extensions=[_deflate])
    return FeedFrame(page.cursor, text, {**text_message(text), DEFLATED: deflated})


def text_message(text: str) -> Message:
    """Return the ASGI message that sends the text. To one client alone, deflating it would cost more than it saves."""
    ready = Frame(Opcode.TEXT, text.encode()).serialize(mask=False)
    return {"type": "websocket.send", "text": text, READY: ready}

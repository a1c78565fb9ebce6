"""What goes out over WebSockets: a message for one, or a frame that is made once for all who watch."""

from typing import Final

import msgspec
from starlette.types import Message
from websockets.frames import Frame, Opcode

from order_engine.api.schemas import view_feed
from order_engine.ports.store import FeedPage

# Beside a message's text, the whole frame: our own server sends it as it is, another one does not look at it.
READY: Final = "order_engine.frame"


class FeedFrame(msgspec.Struct, frozen=True):
    """A page of the feed as it goes out: its cursor, its text, and the message that carries it over a WebSocket."""

    cursor: str
    text: str
    message: Message


def feed_frame(page: FeedPage) -> FeedFrame:
    """Return the page for everybody who watches. What a server sends is not masked, so it is the same for all."""
    encoded = msgspec.json.encode(view_feed(page))
    text, ready = encoded.decode(), Frame(Opcode.TEXT, encoded).serialize(mask=False)
    return FeedFrame(page.cursor, text, {**text_message(text), READY: ready})


def text_message(text: str) -> Message:
    """Return the ASGI message that sends the text."""
    return {"type": "websocket.send", "text": text}

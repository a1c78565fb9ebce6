"""An order's life over WebSocket and SSE."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from order_engine.api.context import context_of, require_known_origin
from order_engine.api.orders import find_order, parse_after
from order_engine.api.problems import EdgeRefusal, problem_response
from order_engine.api.schemas import view_event
from order_engine.domain.errors import InvalidRequest, OrderEngineError
from order_engine.domain.events import OrderEvent
from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.order import Order
from order_engine.engine.stream import order_stream

_KEEPALIVE_S: Final = 15.0

Frame = Callable[[OrderEvent], bytes]


def event_frame(event: OrderEvent) -> bytes:
    """Return the event as v1 shows it."""
    return msgspec.json.encode(view_event(event))


async def stream_websocket(websocket: WebSocket[Any]) -> None:
    """Serve `/v1/orders/{orderId}/stream` over WebSocket."""
    await serve_order(websocket, websocket.path_params["orderId"], event_frame)


async def stream_events(request: Request[Any]) -> Response:
    """Serve `/v1/orders/{orderId}/stream` as server-sent events."""
    context = context_of(request)
    accept = request.headers.get("accept", "*/*")
    if not any(kind in accept for kind in ("text/event-stream", "text/*", "*/*")):
        message = "This path speaks WebSocket, or server-sent events with `Accept: text/event-stream`."
        raise EdgeRefusal(406, "not_acceptable", message)
    order = await find_order(context.reader, request.path_params["orderId"])
    last_seen = request.headers.get("last-event-id")
    if last_seen is not None:
        after = parse_cursor(order, last_seen, "Last-Event-ID")
    else:
        after = parse_cursor(order, request.query_params.get("after"))
    if order.status in TERMINAL and after >= order.seq:
        return Response(status_code=204)  # Tells an EventSource not to come back.
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    events = order_stream(context.reader, context.bus, order.order_id, after)
    return StreamingResponse(_server_sent(events), 200, headers, media_type="text/event-stream")


async def serve_order(websocket: WebSocket[Any], name: str, frame: Frame) -> None:
    """Accept the socket and stream the order's life; an unknown order is a 404 before that."""
    try:
        context = context_of(websocket)
        require_known_origin(websocket.headers, context.allowed_origins)
        order = await find_order(context.reader, name)
        after = parse_cursor(order, websocket.query_params.get("after"))
    except (OrderEngineError, EdgeRefusal) as error:
        request_id = websocket.scope.get("request_id", "")
        await websocket.send_denial_response(problem_response(error, request_id))
        return
    await websocket.accept()
    await send_life(websocket, order, after, frame)


async def send_life(websocket: WebSocket[Any], order: Order, after: int, frame: Frame) -> None:
    """Send every event after the cursor, then close with 1000; stop when the client goes."""
    context = context_of(websocket)
    events = order_stream(context.reader, context.bus, order.order_id, after)
    await send_until_gone(websocket, _frames(events, frame))


async def send_until_gone(websocket: WebSocket[Any], frames: AsyncGenerator[Sequence[bytes], None]) -> None:
    """Send the frames and close with 1000 after the last; a client that closes ends the sending."""
    sending = asyncio.create_task(_send_all(websocket, frames))
    listening = asyncio.create_task(_wait_for_close(websocket))
    try:
        await asyncio.wait([sending, listening], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, listening):
            task.cancel()
        results = await asyncio.gather(sending, listening, return_exceptions=True)
    for result in results:
        # A client that goes while we send is not our error.
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
            raise result


def parse_cursor(order: Order, text: str | None, field: str = "after") -> int:
    """Return the seq to stream after; a cursor ahead of the order is not one that we gave."""
    after = parse_after(text, field)
    if after > order.seq:
        raise InvalidRequest(field, f"is ahead of the order, which is at seq {order.seq}")
    return after


async def _frames(
    events: AsyncGenerator[Sequence[OrderEvent], None], frame: Frame
) -> AsyncGenerator[Sequence[bytes], None]:
    async with contextlib.aclosing(events) as batches:
        async for batch in batches:
            yield [frame(event) for event in batch]


async def _send_all(websocket: WebSocket[Any], frames: AsyncGenerator[Sequence[bytes], None]) -> None:
    async with contextlib.aclosing(frames) as batches:
        async for batch in batches:
            for text in batch:
                await websocket.send_text(text.decode())
    await websocket.close(1000)


async def _wait_for_close(websocket: WebSocket[Any]) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return


async def _next(batches: AsyncGenerator[Sequence[OrderEvent], None]) -> Sequence[OrderEvent]:
    return await anext(batches)


async def _server_sent(events: AsyncGenerator[Sequence[OrderEvent], None]) -> AsyncGenerator[bytes, None]:
    """Yield the events with their seq as id, and a comment while nothing happens."""
    async with contextlib.aclosing(events) as batches:
        waiting: asyncio.Task[Sequence[OrderEvent]] | None = None
        try:
            while True:
                waiting = waiting or asyncio.create_task(_next(batches))
                done, _ = await asyncio.wait([waiting], timeout=_KEEPALIVE_S)
                if not done:
                    yield b": waiting\n\n"
                    continue
                try:
                    batch = waiting.result()
                except StopAsyncIteration:
                    return
                finally:
                    waiting = None
                yield b"".join(
                    b"id: %d\nevent: %s\ndata: %s\n\n" % (it.seq, it.status.encode(), event_frame(it)) for it in batch
                )
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

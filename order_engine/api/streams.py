"""The events of an order, and those of an account, over WebSocket and SSE."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from order_engine.api.context import account_of, context_of, death_of_caller
from order_engine.api.frames import WRITE_NOW, PageFrame, text_message
from order_engine.api.orders import find_order, parse_after
from order_engine.api.problems import NO_CONTENT, OK, RequestRejected, problem_response
from order_engine.api.schemas import view_event
from order_engine.domain.errors import InvalidRequest, OrderEngineError, UnknownCursor
from order_engine.domain.events import OrderEvent
from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.order import Order
from order_engine.engine.account_stream import AccountStream
from order_engine.engine.order_stream import follow_order

_KEEPALIVE_S: Final = 15.0
_POLICY_VIOLATION: Final = 1008

Frame = Callable[[OrderEvent], str]
Item = TypeVar("Item")


def event_frame(event: OrderEvent) -> str:
    """Return the event as v1 shows it."""
    return msgspec.json.encode(view_event(event)).decode()


async def stream_websocket(websocket: WebSocket[Any]) -> None:
    """Serve `/v1/orders/{orderId}/stream` over WebSocket."""
    await serve_order(websocket, websocket.path_params["orderId"], event_frame)


async def stream_events(request: Request[Any]) -> Response:
    """Serve `/v1/orders/{orderId}/stream` as server-sent events."""
    context = context_of(request)
    _require_event_stream(request)
    order = await find_order(request, request.path_params["orderId"])
    last_seen = request.headers.get("last-event-id")
    after = parse_cursor(order, request.query_params.get("after"))
    if last_seen:  # An empty one is ignored: an EventSource without an id sends it empty.
        after = parse_cursor(order, last_seen, "Last-Event-ID")
    if order.status in TERMINAL and after >= order.seq:
        return Response(status_code=NO_CONTENT)  # Tells an EventSource not to reconnect.
    events = follow_order(context.orders, context.bus, order.account, order.order_id, after)
    return _event_stream(_server_sent(events, _event_message, death_of_caller(request)))


async def feed_websocket(websocket: WebSocket[Any]) -> None:
    """Serve `/v1/stream` over WebSocket: a page of events a frame."""
    try:
        stream = context_of(websocket).account_streams.of(account_of(websocket))
        begin = await _begin_of_feed(stream, websocket.query_params.get("after"), "after")
    except (OrderEngineError, RequestRejected) as error:
        await _refuse(websocket, error)
        return
    await websocket.accept()
    write_now = (websocket.scope.get("extensions") or {}).get(WRITE_NOW)
    pass_on = None if write_now is None else lambda frame: write_now(frame.message)
    await send_until_gone(websocket, _messages(stream.watch(begin, pass_on), lambda it: it.message))


async def feed_events(request: Request[Any]) -> Response:
    """Serve `/v1/stream` as server-sent events: a page of events a message, its cursor as id."""
    stream = context_of(request).account_streams.of(account_of(request))
    _require_event_stream(request)
    last_seen = request.headers.get("last-event-id")
    if last_seen:  # An empty one is ignored: an EventSource without an id sends it empty.
        begin = await _begin_of_feed(stream, last_seen, "Last-Event-ID")
    else:
        begin = await _begin_of_feed(stream, request.query_params.get("after"), "after")
    return _event_stream(_server_sent(stream.watch(begin), lambda frame: frame.server_sent, death_of_caller(request)))


async def _begin_of_feed(stream: AccountStream[PageFrame], after: str | None, field: str) -> str:
    try:
        return await stream.resolve_cursor(after)
    except UnknownCursor as error:
        raise InvalidRequest(field, str(error), code=error.code) from error


def _event_message(event: OrderEvent) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.seq, event.status.encode(), event_frame(event).encode())


def _require_event_stream(request: Request[Any]) -> None:
    accept = request.headers.get("accept", "*/*")
    if not any(kind in accept for kind in ("text/event-stream", "text/*", "*/*")):
        message = "This path speaks WebSocket, or server-sent events with `Accept: text/event-stream`."
        raise RequestRejected("not_acceptable", message)


def _event_stream(messages: AsyncGenerator[bytes, None]) -> Response:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(messages, OK, headers, media_type="text/event-stream")


async def _refuse(websocket: WebSocket[Any], error: Exception) -> None:
    await websocket.send_denial_response(problem_response(error, websocket.scope.get("request_id", "")))


async def serve_order(websocket: WebSocket[Any], name: str, frame: Frame) -> None:
    """Accept the socket and stream the order's life; an unknown order is a 404 before that."""
    try:
        order = await find_order(websocket, name)
        after = parse_cursor(order, websocket.query_params.get("after"))
    except (OrderEngineError, RequestRejected) as error:
        await _refuse(websocket, error)
        return
    await websocket.accept()
    await send_life(websocket, order, after, frame)


async def send_life(websocket: WebSocket[Any], order: Order, after: int, frame: Frame) -> None:
    """Send every event after the cursor, then close with 1000; stop when the client disconnects."""
    context = context_of(websocket)
    events = follow_order(context.orders, context.bus, order.account, order.order_id, after)
    await send_until_gone(websocket, _messages(events, lambda event: text_message(frame(event))))


async def send_until_gone(websocket: WebSocket[Any], messages: AsyncGenerator[Sequence[Message], None]) -> None:
    """Send the messages and close with 1000 after the last; a client that closes ends the sending.

    A caller whose API key is dead is closed with 1008.
    """
    sending = asyncio.create_task(_send_all(websocket, messages))
    listening = asyncio.create_task(_wait_for_close(websocket))
    death = death_of_caller(websocket)
    ends: list[asyncio.Future[Any]] = [sending, listening] if death is None else [sending, listening, death]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if death is not None and death.done() and not listening.done():
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await websocket.close(_POLICY_VIOLATION, "the API key is revoked or has expired")
    finally:
        for task in (sending, listening):
            task.cancel()
        results = await asyncio.gather(sending, listening, return_exceptions=True)
    for result in results:
        # A client that disconnects during a send is not our error.
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
            raise result


def parse_cursor(order: Order, text: str | None, field: str = "after") -> int:
    """Return the seq to stream after; refuses a cursor ahead of the order, which the engine never gave."""
    after = parse_after(text, field)
    if after > order.seq:
        raise InvalidRequest(field, f"is ahead of the order, which is at seq {order.seq}")
    return after


async def _messages(
    items: AsyncGenerator[Sequence[Item], None], message: Callable[[Item], Message]
) -> AsyncGenerator[Sequence[Message], None]:
    async with contextlib.aclosing(items) as batches:
        async for batch in batches:
            yield [message(item) for item in batch]


async def _send_all(websocket: WebSocket[Any], messages: AsyncGenerator[Sequence[Message], None]) -> None:
    async with contextlib.aclosing(messages) as batches:
        async for batch in batches:
            for message in batch:
                await websocket.send(message)
    await websocket.close(1000)


async def _wait_for_close(websocket: WebSocket[Any]) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return


async def _next(batches: AsyncGenerator[Sequence[Item], None]) -> Sequence[Item]:
    return await anext(batches)


async def _server_sent(
    items: AsyncGenerator[Sequence[Item], None],
    message: Callable[[Item], bytes],
    death: "asyncio.Future[None] | None",
) -> AsyncGenerator[bytes, None]:
    """Yield each item as a message, and a comment while nothing happens; ends when the caller's API key is dead."""
    async with contextlib.aclosing(items) as batches:
        waiting: asyncio.Task[Sequence[Item]] | None = None
        try:
            while True:
                waiting = waiting or asyncio.create_task(_next(batches))
                ends: list[asyncio.Future[Any]] = [waiting] if death is None else [waiting, death]
                done, _ = await asyncio.wait(ends, timeout=_KEEPALIVE_S, return_when=asyncio.FIRST_COMPLETED)
                if death is not None and death.done():
                    return
                if not done:
                    yield b": waiting\n\n"
                    continue
                try:
                    batch = waiting.result()
                except StopAsyncIteration:
                    return
                finally:
                    waiting = None
                for item in batch:
                    yield message(item)
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

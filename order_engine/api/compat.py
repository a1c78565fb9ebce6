"""The request and answer shapes of five other order-execution engines, over the same intake.

Rows A to E are those of the compatibility table in the README. Loose where those systems are
loose, so that v1 can be strict: one body takes all of their fields, one answer carries all of theirs.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from order_engine.api.context import (
    ACCOUNT,
    ApiContext,
    client_of,
    context_of,
    json_response,
    rate_headers,
    read_body,
    require_known_origin,
)
from order_engine.api.frames import text_message
from order_engine.api.orders import find_order
from order_engine.api.parsing import (
    decode_loose,
    decode_text,
    make_request,
    parse_integer,
    parse_key,
)
from order_engine.api.problems import EdgeRefusal, problem_response, to_problem
from order_engine.api.schemas import (
    MAX_BODY_BYTES,
    MarketOrderRequest,
    time_text,
    view_order,
)
from order_engine.api.streams import send_life, send_until_gone, serve_order
from order_engine.domain.errors import InvalidRequest, OrderEngineError
from order_engine.domain.events import OrderEvent
from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.order import OrderId, OrderStatus, SwapRequest
from order_engine.engine.intake import Submission
from order_engine.engine.stream import POLL_CONNECTED_S, POLL_LOST_S, next_in_line
from order_engine.ports.bus import Subscription

# What row D's systems take for an order that names nothing.
_DEFAULT_PAIR: Final = ("SOL", "USDC")
_DEFAULT_AMOUNT: Final = msgspec.Raw(b"1")
_KNOWN_FIELDS: Final = frozenset(
    {"type", "orderType", "tokenIn", "tokenOut", "symbol", "amount", "amountIn", "slippageBps"}
    | {"clientOrderId", "metadata"}
)
_NULLABLE: Final = frozenset({"slippageBps", "clientOrderId", "metadata"})
_FIRST_FRAME_TIMEOUT_S: Final = 30.0
_POLICY_VIOLATION: Final = 1008
# A connection may hold no more than this in memory, about 150 KiB.
_MOST_FOLLOWED_JOBS: Final = 1_000


# --- in ------------------------------------------------------------------------------------------


def parse_loose_order(connection: HTTPConnection[Any], body: bytes) -> SwapRequest:
    """Return the request of any of the rows' bodies; raises InvalidRequest naming the field at fault."""
    context = context_of(connection)
    fields = decode_loose(body) if body.strip() else {}
    # These systems' clients send null for what they leave out.
    fields = {name: raw for name, raw in fields.items() if name not in _NULLABLE or bytes(raw) != b"null"}
    if fields and not fields.keys() & _KNOWN_FIELDS:
        raise InvalidRequest("", f"The body has none of the fields {', '.join(sorted(_KNOWN_FIELDS))}.")
    for name in ("type", "orderType"):
        if name in fields and decode_text(fields[name], name).lower() != "market":
            raise InvalidRequest(name, "must be market, the only type there is")
    token_in, token_out, is_default = _pair(fields)
    amount_field = "amountIn" if "amountIn" in fields else "amount"
    if amount_field not in fields and not is_default:
        raise InvalidRequest("amountIn", "is missing (or amount)")
    slippage_bps = fields.get("slippageBps")
    wire = MarketOrderRequest(
        type="market",
        token_in=token_in,
        token_out=token_out,
        amount_in=fields.get(amount_field, _DEFAULT_AMOUNT),
        slippage_bps=None
        if slippage_bps is None
        else parse_integer(bytes(slippage_bps).decode().strip('"'), "slippageBps", 1, 1000),
    )
    client_order_id = fields.get("clientOrderId")
    try:
        return make_request(
            context.tokens,
            wire,
            context.default_slippage_bps,
            None if client_order_id is None else decode_text(client_order_id, "clientOrderId"),
            fields.get("metadata"),
        )
    except InvalidRequest as error:
        # Name the field as this client wrote it: a pair is one field, whichever half is wrong.
        token_field = "symbol" if "symbol" in fields and "tokenIn" not in fields else error.field
        named = {"amountIn": amount_field, "tokenIn": token_field, "tokenOut": token_field}
        raise InvalidRequest(named.get(error.field, error.field), str(error), code=error.code) from error


def _pair(fields: dict[str, msgspec.Raw]) -> tuple[str, str, bool]:
    """Return the two tokens, and whether the body left them to the defaults of row D."""
    if "tokenIn" in fields or "tokenOut" in fields:
        for name in ("tokenIn", "tokenOut"):
            if name not in fields:
                raise InvalidRequest(name, "is missing")
        return decode_text(fields["tokenIn"], "tokenIn"), decode_text(fields["tokenOut"], "tokenOut"), False
    if "symbol" not in fields:
        return *_DEFAULT_PAIR, True
    token_in, slash, token_out = decode_text(fields["symbol"], "symbol").partition("/")
    if not slash:
        raise InvalidRequest("symbol", "must be a pair such as SOL/USDC")
    return token_in, token_out, True


# --- out -----------------------------------------------------------------------------------------


def answer_of(connection: HTTPConnection[Any], submission: Submission) -> dict[str, Any]:
    """Return the one answer that carries every row's keys."""
    order_id = submission.order.order_id
    scheme = "wss" if connection.url.scheme in ("https", "wss") else "ws"
    return {
        "orderId": order_id,
        "jobId": order_id,
        "status": submission.order.status,
        "idempotent": submission.is_replay,
        "websocket": f"/api/orders/execute?orderId={order_id}",
        "wsUrl": f"{scheme}://{connection.url.netloc}/ws?jobId={order_id}",
    }


def compat_frame(event: OrderEvent) -> str:
    """Return the event as rows A, B and C show it: v1's data, and their names for what is in it."""
    return msgspec.json.encode(_compat_event(event, event.status.value)).decode()


def upper_frame(event: OrderEvent) -> str:
    """Return the event as row E shows it."""
    return msgspec.json.encode(_compat_event(event, event.status.upper())).decode()


def _compat_event(event: OrderEvent, status: str) -> dict[str, Any]:
    details = event.details()
    shown: dict[str, Any] = {
        "orderId": event.order_id,
        "seq": event.seq,
        "status": status,
        "timestamp": time_text(event.at_ms),
        "attempt": event.attempt,
        "data": event.data,
    }
    names = {"venue": "dex", "txSignature": "txHash", "price": "executedPrice", "amountOut": "amountOut"}
    shown |= {name: details[key] for key, name in names.items() if details.get(key) is not None}
    if "reason" in details:
        shown["error"] = details["reason"]["message"]
    return shown


def job_frame(event: OrderEvent) -> str:
    """Return the event as row D's job queue tells it."""
    details = event.details()
    shown: dict[str, Any] = {
        "event": "job:progress",
        "jobId": event.order_id,
        "orderId": event.order_id,
        "seq": event.seq,
        "status": event.status,
        "timestamp": time_text(event.at_ms),
        "attempt": event.attempt,
        "data": event.data,
    }
    if event.status is OrderStatus.PENDING:
        shown["event"] = "waiting"
    elif event.status is OrderStatus.CONFIRMED:
        shown |= {"event": "job:completed", "returnvalue": event.data}
    elif event.status in TERMINAL:
        shown |= {"event": "job:failed", "failedReason": details["reason"]["message"]}
    return msgspec.json.encode(shown).decode()


# --- handlers ------------------------------------------------------------------------------------


async def execute_order(request: Request[Any]) -> Response:
    """Serve rows A, B, C and D: `POST /api/orders/execute`."""
    swap = parse_loose_order(request, await read_body(request))
    submission = await _submit(request, swap)
    return json_response(answer_of(request, submission), 202, rate_headers(submission))


async def enqueue(request: Request[Any]) -> Response:
    """Serve row D: `POST /enqueue`, a default market order with the client's id and payload."""
    fields = decode_loose(await read_body(request))
    if "orderId" not in fields:
        raise InvalidRequest("orderId", "is missing")
    context = context_of(request)
    token_in, token_out = _DEFAULT_PAIR
    name = decode_text(fields["orderId"], "orderId")
    wire = MarketOrderRequest("market", token_in, token_out, _DEFAULT_AMOUNT)
    try:
        swap = make_request(context.tokens, wire, context.default_slippage_bps, name, fields.get("payload"))
    except InvalidRequest as error:
        field = {"clientOrderId": "orderId", "metadata": "payload"}.get(error.field, error.field)
        raise InvalidRequest(field, str(error), code=error.code) from error
    submission = await _submit(request, swap)
    answer = {**answer_of(request, submission), "orderId": name}
    return json_response(answer, 202, rate_headers(submission))


async def get_snapshot(request: Request[Any]) -> Response:
    """Serve rows A and C: `GET /api/orders/{id}`, the order with every event kept of it."""
    context = context_of(request)
    order = await find_order(context.reader, request.path_params["orderId"])
    attempts = await context.reader.attempts(order.order_id)
    events = await context.reader.history(order.order_id, 0)
    # A struct's fields are snake_case; the wire's names come from encoding it.
    encoded = msgspec.json.encode(view_order(order, attempts))
    shown = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    shown["events"] = msgspec.Raw(msgspec.json.encode([_compat_event(it, it.status.value) for it in events]))
    return json_response(shown)


async def get_history(request: Request[Any]) -> Response:
    """Serve rows A and C: `GET /api/orders/{id}/events`."""
    context = context_of(request)
    order = await find_order(context.reader, request.path_params["orderId"])
    events = await context.reader.history(order.order_id, 0)
    shown = [_compat_event(event, event.status.value) for event in events]
    return json_response({"orderId": order.order_id, "events": shown})


async def execute_websocket(websocket: WebSocket[Any]) -> None:
    """Serve rows A, B and C with `?orderId=…`; without it, the first frame is the order."""
    name = websocket.query_params.get("orderId")
    if name is not None:
        await serve_order(websocket, name, compat_frame)
        return
    if not await _origin_is_known(websocket):
        return
    await websocket.accept()
    # A client that goes before it is answered is not our error; its order, if it was stored, goes on.
    with contextlib.suppress(WebSocketDisconnect):
        try:
            async with asyncio.timeout(_FIRST_FRAME_TIMEOUT_S):
                body = await _first_frame(websocket)
            submission = await _submit(websocket, parse_loose_order(websocket, body))
        except (OrderEngineError, EdgeRefusal, TimeoutError, UnicodeEncodeError) as error:
            await _refuse_frame(websocket, error)
            return
        await websocket.send_text(msgspec.json.encode(answer_of(websocket, submission)).decode())
        await send_life(websocket, submission.order, 0, compat_frame)


async def _first_frame(websocket: WebSocket[Any]) -> bytes:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    text = message.get("text")
    body = text.encode() if text is not None else message.get("bytes") or b""
    if len(body) > MAX_BODY_BYTES:
        raise EdgeRefusal(413, "body_too_large", f"A frame must be at most {MAX_BODY_BYTES} bytes.")
    return body


async def upper_websocket(websocket: WebSocket[Any]) -> None:
    """Serve row E: `/orders/{orderId}` with upper-case statuses."""
    await serve_order(websocket, websocket.path_params["orderId"], upper_frame)


async def jobs_websocket(websocket: WebSocket[Any]) -> None:
    """Serve row D: `/ws`, every job's life from now on, or with `?jobId=…` one job's from its start."""
    name = websocket.query_params.get("jobId")
    if name is not None:
        await serve_order(websocket, name, job_frame)
        return
    if not await _origin_is_known(websocket):
        return
    context = context_of(websocket)
    # Before it is accepted: who is told that it is open misses nothing from then on.
    async with context.bus.subscribe(None) as live:
        await websocket.accept()
        await send_until_gone(websocket, _every_job(context, live))


async def _every_job(context: ApiContext, live: Subscription) -> AsyncGenerator[Sequence[Message], None]:
    """Follow all orders: live, and from the log for each order whose events did not follow on."""
    seen: dict[OrderId, int] = {}
    while True:
        arrived = await live.next(POLL_CONNECTED_S if context.bus.is_connected else POLL_LOST_S)
        by_order: dict[OrderId, list[OrderEvent]] = {}
        for event in arrived:
            by_order.setdefault(event.order_id, []).append(event)
        if not arrived:
            by_order = {order_id: [] for order_id in seen}
        for order_id, events in by_order.items():
            after = seen.get(order_id, min((it.seq for it in events), default=1) - 1)
            following = next_in_line(events, after)
            if not following:
                following = await context.reader.history(order_id, after)
            if not following:
                continue
            seen.pop(order_id, None)
            if following[-1].status not in TERMINAL and len(seen) < _MOST_FOLLOWED_JOBS:
                seen[order_id] = following[-1].seq
            yield [text_message(job_frame(event)) for event in following]


async def _submit(connection: HTTPConnection[Any], swap: SwapRequest) -> Submission:
    headers = connection.headers
    name = "x-idempotency-key" if "x-idempotency-key" in headers else "idempotency-key"
    key = parse_key(headers.getlist(name), name)
    return await context_of(connection).intake.submit_order(ACCOUNT, client_of(connection), swap, key)


async def _origin_is_known(websocket: WebSocket[Any]) -> bool:
    try:
        require_known_origin(websocket.headers, context_of(websocket).allowed_origins)
    except EdgeRefusal as error:
        await websocket.send_denial_response(problem_response(error, websocket.scope.get("request_id", "")))
        return False
    return True


async def _refuse_frame(websocket: WebSocket[Any], error: Exception) -> None:
    if isinstance(error, TimeoutError):
        error = EdgeRefusal(400, "no_order", f"No order came within {_FIRST_FRAME_TIMEOUT_S:g} s.")
    elif isinstance(error, UnicodeEncodeError):
        error = InvalidRequest("", "The frame is not valid Unicode.", code="malformed_json")
    problem, _ = to_problem(error, websocket.scope.get("request_id", ""), may_be_stored=True)
    shown = {"error": problem.detail, **msgspec.to_builtins(problem)}
    await websocket.send_text(msgspec.json.encode(shown).decode())
    await websocket.close(_POLICY_VIOLATION, problem.code)

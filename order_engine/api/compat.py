"""The routes of five other order-execution engines, over the same intake.

The shapes are those of the table in docs/compatibility.md. `compat_in` reads their requests,
`compat_out` makes their answers; a refusal has their status codes (`problems`).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from order_engine.api.compat_in import (
    LooseOrder,
    RefusedOrder,
    parse_exec_frame,
    parse_job,
    parse_keys,
    parse_loose_order,
)
from order_engine.api.compat_out import answer_of, compat_event, compat_frame, job_frame, job_of, upper_frame
from order_engine.api.context import (
    ApiContext,
    account_of,
    context_of,
    json_response,
    rate_headers,
    read_body,
    require_json,
)
from order_engine.api.frames import PageFrame, text_message
from order_engine.api.orders import find_order, submit_order
from order_engine.api.parsing import single_value
from order_engine.api.problems import OK, RequestRejected, compatible, problem_response, to_problem
from order_engine.api.schemas import MAX_BODY_BYTES, view_order
from order_engine.api.streams import Frame, send_life, send_until_gone, serve_order
from order_engine.domain.errors import ClientOrderIdTaken, IdempotencyConflict, InvalidRequest, OrderEngineError
from order_engine.domain.fingerprint import fingerprint
from order_engine.domain.order import OrderId
from order_engine.engine.intake import Submission
from order_engine.ports.store import IdempotencyKey

_FIRST_FRAME_TIMEOUT_S: Final = 30.0
_POLICY_VIOLATION: Final = 1008


async def execute_order(request: Request[Any]) -> Response:
    """Serve `market_execute`, `minimal`, `typed` and `job_queue`: `POST /api/orders/execute`."""
    submission, note = await _submit(request, parse_loose_order, await _json_body(request))
    return json_response(answer_of(request, submission, note), OK, rate_headers(submission))


async def _submit(
    connection: HTTPConnection[Any], parse: Callable[[ApiContext, bytes], LooseOrder], body: bytes
) -> tuple[Submission, str | None]:
    """Accept the order of a body or frame; returns it, and a sentence that names the defaults in it, if any."""
    context = context_of(connection)
    key = parse_keys(connection.headers)
    try:
        order = parse(context, body)
    except RefusedOrder as error:
        # The same bytes are the same request, even if the token is gone or has other decimals now.
        again = None if key is None else IdempotencyKey(key, fingerprint(error.parts))
        known = None if again is None else await context.intake.find_answer(account_of(connection), again)
        if known is None:
            raise
        return known, None
    return await submit_order(connection, order.swap, order.with_key(key)), order.note


async def enqueue(request: Request[Any]) -> Response:
    """Serve `job_queue`: `POST /enqueue`, a market order with the client's id and payload; one id is one job."""
    context = context_of(request)
    key, note = parse_keys(request.headers), None
    submission: Submission | None = None
    try:
        order = parse_job(context, await _json_body(request))
        name = order.swap.client_order_id or ""
        _require_key_of_job(key, name)
        submission = await _submit_job(request, order, name)
        note = None if submission.is_replay else order.note
    except RefusedOrder as error:
        name = error.parts["clientOrderId"] or ""
        _require_key_of_job(key, name)
        # A repetition of the job's request gets the job, even if its token is gone now; any other request is refused.
        again = IdempotencyKey(_job_key(name), fingerprint(error.parts))
        with contextlib.suppress(IdempotencyConflict):
            submission = await context.intake.find_answer(account_of(request), again)
        if submission is None:
            raise
    except InvalidRequest as error:
        field = "orderId" if error.field == "clientOrderId" else error.field
        raise InvalidRequest(field, str(error), code=error.code) from error
    answer = {**answer_of(request, submission, note), "orderId": name}
    return json_response(answer, OK, rate_headers(submission))


def _require_key_of_job(key: str | None, name: str) -> None:
    if key is not None and key != name:
        raise InvalidRequest("idempotency-key", "differs from orderId, which is the key of a job; leave it out")


def _job_key(name: str) -> str:
    """Return the idempotency key of a job: a space keeps it apart from all keys of clients, which are visible ASCII."""
    return f"job {name}"


async def _submit_job(request: Request[Any], order: LooseOrder, name: str) -> Submission:
    """Accept the job, or return the order that has this id already, even with another payload, as those systems do."""
    key = _job_key(name)
    try:
        return await submit_order(request, order.swap, order.with_key(key))
    except IdempotencyConflict:
        known = await context_of(request).reader.find_by_key(account_of(request), key)
        first = None if known is None else known.order
        if first is None:
            raise
    except ClientOrderIdTaken as taken:
        first = await context_of(request).orders.get(account_of(request), OrderId(taken.existing_order_id))
        if first is None:
            raise
    return Submission(first, is_replay=True, rate=None)


async def get_job(request: Request[Any]) -> Response:
    """Serve `job_queue`: `GET /jobs/{id}`, the order as its job queue shows a job."""
    context = context_of(request)
    order = await find_order(request, request.path_params["orderId"])
    return json_response(job_of(order, await context.orders.history(order.order_id, 0)))


async def get_snapshot(request: Request[Any]) -> Response:
    """Serve `market_execute` and `typed`: `GET /api/orders/{id}`, the order with every event kept of it."""
    context = context_of(request)
    order = await find_order(request, request.path_params["orderId"])
    attempts = await context.reader.attempts(order.order_id)
    events = await context.orders.history(order.order_id, 0)
    # A struct's fields are snake_case; the wire's names come from encoding it.
    encoded = msgspec.json.encode(view_order(order, attempts))
    shown = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    shown["events"] = msgspec.Raw(msgspec.json.encode([compat_event(event) for event in events]))
    return json_response(shown)


async def get_history(request: Request[Any]) -> Response:
    """Serve `market_execute` and `typed`: `GET /api/orders/{id}/events`."""
    context = context_of(request)
    order = await find_order(request, request.path_params["orderId"])
    events = await context.orders.history(order.order_id, 0)
    return json_response({"orderId": order.order_id, "events": [compat_event(event) for event in events]})


async def execute_websocket(websocket: WebSocket[Any]) -> None:
    """Serve `market_execute`, `minimal` and `typed` with `?orderId=…`; without it, the first frame is the order."""
    await _serve_named_or(websocket, "orderId", compat_frame, _take_execute)


async def exec_websocket(websocket: WebSocket[Any]) -> None:
    """Serve `job_queue`: `/ws-exec`: the first frame is the order, then its life in the job queue's words."""
    await _take_first_frame(websocket, parse_exec_frame, job_frame)


async def upper_websocket(websocket: WebSocket[Any]) -> None:
    """Serve `upper_case`: `/orders/{orderId}` with upper-case statuses."""
    await serve_order(websocket, websocket.path_params["orderId"], upper_frame)


async def jobs_websocket(websocket: WebSocket[Any]) -> None:
    """Serve `job_queue`: `/ws`, every job's life from now on, or with `?jobId=…` one job's from its start."""
    await _serve_named_or(websocket, "jobId", job_frame, _follow_jobs)


async def _serve_named_or(
    websocket: WebSocket[Any], parameter: str, frame: Frame, serve: Callable[[WebSocket[Any]], Any]
) -> None:
    """Stream the life of the order that the query names; serve without a name otherwise."""
    try:
        name = single_value(websocket.query_params.getlist(parameter), parameter)
    except InvalidRequest as error:
        await _deny(websocket, error)
        return
    if name is not None:
        await serve_order(websocket, name, frame)
    else:
        await serve(websocket)


async def _take_execute(websocket: WebSocket[Any]) -> None:
    await _take_first_frame(websocket, parse_loose_order, compat_frame)


async def _take_first_frame(
    websocket: WebSocket[Any], parse: Callable[[ApiContext, bytes], LooseOrder], frame: Frame
) -> None:
    """Accept the socket, take the order in its first frame, answer it, and stream the order's life."""
    await websocket.accept()
    # A client that disconnects before its answer is not our error; its order continues if it was stored.
    with contextlib.suppress(WebSocketDisconnect):
        try:
            async with asyncio.timeout(_FIRST_FRAME_TIMEOUT_S):
                body = await _first_frame(websocket)
            submission, note = await _submit(websocket, parse, body)
        except (OrderEngineError, RequestRejected, TimeoutError, UnicodeEncodeError) as error:
            await _refuse_frame(websocket, error)
            return
        await websocket.send_text(msgspec.json.encode(answer_of(websocket, submission, note)).decode())
        await send_life(websocket, submission.order, 0, frame)


async def _follow_jobs(websocket: WebSocket[Any]) -> None:
    stream = context_of(websocket).account_streams.of(account_of(websocket))
    try:
        # The cursor is taken before the socket is accepted, so that the client misses nothing after the accept.
        begin = await stream.resolve_cursor(None)
    except OrderEngineError as error:
        await _deny(websocket, error)
        return
    await websocket.accept()
    await send_until_gone(websocket, _job_messages(stream.watch(begin)))


async def _first_frame(websocket: WebSocket[Any]) -> bytes:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    text = message.get("text")
    body = text.encode() if text is not None else message.get("bytes") or b""
    if len(body) > MAX_BODY_BYTES:
        raise RequestRejected("body_too_large", f"A frame must be at most {MAX_BODY_BYTES} bytes.")
    return body


async def _job_messages(pages: AsyncGenerator[Sequence[PageFrame], None]) -> AsyncGenerator[Sequence[Message], None]:
    async with contextlib.aclosing(pages) as batches:
        async for batch in batches:
            yield [text_message(job_frame(event)) for page in batch for event in page.events]


async def _json_body(request: Request[Any]) -> bytes:
    """Return the body; if not empty, it needs a JSON content type, which a page of another site may not send."""
    body = await read_body(request)
    if body:
        require_json(request.headers)
    return body


async def _deny(websocket: WebSocket[Any], error: Exception) -> None:
    await websocket.send_denial_response(problem_response(error, websocket.scope.get("request_id", "")))


async def _refuse_frame(websocket: WebSocket[Any], error: Exception) -> None:
    if isinstance(error, TimeoutError):
        error = RequestRejected("no_order", f"No order came within {_FIRST_FRAME_TIMEOUT_S:g} s.")
    elif isinstance(error, UnicodeEncodeError):
        error = InvalidRequest("", "The frame is not valid Unicode.", code="malformed_json")
    problem, _ = to_problem(error, websocket.scope.get("request_id", ""), may_be_stored=True)
    await websocket.send_text(msgspec.json.encode(compatible(problem)).decode())
    await websocket.close(_POLICY_VIOLATION, problem.code)

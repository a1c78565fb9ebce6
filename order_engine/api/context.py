"""The parts that every handler uses, and how a request's body is taken."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from order_engine.api.frames import PageFrame
from order_engine.api.hosts import limit_key
from order_engine.api.problems import OK, RequestRejected
from order_engine.api.schemas import MAX_BODY_BYTES
from order_engine.batching import GroupCommit
from order_engine.counters import Counters
from order_engine.domain.access import Caller
from order_engine.domain.tokens import TokenRegistry
from order_engine.engine.account_stream import AccountStreams
from order_engine.engine.callers import Callers
from order_engine.engine.health import HealthMonitor
from order_engine.engine.intake import Intake, Submission
from order_engine.engine.limits import CallerLimit
from order_engine.engine.pauses import Pauses
from order_engine.ports.access import AccessStore
from order_engine.ports.bus import EventBus, RateVerdict
from order_engine.ports.chain import Chain
from order_engine.ports.clock import Clock
from order_engine.ports.store import OrderReader
from order_engine.ports.venues import Venue

_JSON_TYPE: Final = re.compile(
    r"[ \t]*application/(?:json|[\w!#$&^.+-]+\+json)[ \t]*(?:;[ \t]*(?:charset=(?:utf-8|\"utf-8\"))?[ \t]*)*",
    re.ASCII | re.IGNORECASE,
)


class ApiContext(msgspec.Struct, frozen=True):
    """The engine as the API sees it. `is_paper`: no venue trades anything real."""

    intake: Intake
    orders: GroupCommit
    reader: OrderReader
    bus: EventBus
    account_streams: AccountStreams[PageFrame]
    tokens: TokenRegistry
    venues: Mapping[str, Venue]
    clock: Clock
    chain: Chain
    default_slippage_bps: int
    quote_timeout_s: float
    quote_limit: CallerLimit
    health: HealthMonitor
    access: AccessStore
    callers: Callers
    pauses: Pauses
    counters: Counters
    is_paper: bool
    has_compat_routes: bool


def context_of(connection: HTTPConnection[Any]) -> ApiContext:
    """Return the context that the app was built with."""
    context: ApiContext = connection.app.state.context
    return context


def account_of(connection: HTTPConnection[Any]) -> str:
    """Return the account whose orders the caller may see."""
    caller: Caller = connection.scope["caller"]
    return caller.account


def death_of_caller(connection: HTTPConnection[Any]) -> "asyncio.Future[None] | None":
    """Return a future that is done when the caller's API key is dead; None for a caller without a key."""
    caller: Caller = connection.scope["caller"]
    return context_of(connection).callers.death_of(caller)


def client_of(connection: HTTPConnection[Any]) -> str:
    """Return the name that the rate limit counts by: an IPv4 address, or the /64 network of an IPv6 address."""
    return limit_key(connection.client.host) if connection.client else "unknown"


async def read_body(request: Request[Any]) -> bytes:
    """Return the whole body; refuses an encoded one, and one over MAX_BODY_BYTES as soon as it is seen."""
    codings = ",".join(request.headers.getlist("content-encoding")).split(",")
    if any(coding.strip().lower() not in ("", "identity") for coding in codings):
        message = "Send the body as it is, without the header `Content-Encoding`."
        raise RequestRejected("encoded_body", message, {"Accept-Encoding": "identity"})
    declared = request.headers.get("content-length", "0")
    chunks: list[bytes] = []
    size = int(declared) if declared.isdecimal() and len(declared) < len(str(2**63)) else 0
    if size <= MAX_BODY_BYTES:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            chunks.append(chunk)
            if size > MAX_BODY_BYTES:
                break
    if size > MAX_BODY_BYTES:
        message = f"The body must be at most {MAX_BODY_BYTES} bytes."
        raise RequestRejected("body_too_large", message, {"Connection": "close"})
    return b"".join(chunks)


def require_json(headers: Headers) -> None:
    """Refuse a body without exactly one content type, which must be JSON in UTF-8."""
    kinds = headers.getlist("content-type")
    if kinds != ["application/json"] and (len(kinds) != 1 or not _JSON_TYPE.fullmatch(kinds[0])):
        raise RequestRejected("not_json", "Send the body, in UTF-8, with the header `Content-Type: application/json`.")


def json_response(view: object, status: int = OK, headers: Mapping[str, str] | None = None) -> Response:
    """Return a view as JSON."""
    return Response(msgspec.json.encode(view), status, headers, media_type="application/json")


def rate_headers(submission: Submission) -> dict[str, str]:
    """Return the RateLimit headers, if there is a limit."""
    return limit_headers(submission.rate)


def limit_headers(rate: RateVerdict | None) -> dict[str, str]:
    """Return the RateLimit headers of a window, if there is a limit."""
    if rate is None:
        return {}
    return {
        "RateLimit-Limit": str(rate.limit),
        "RateLimit-Remaining": str(rate.remaining),
        "RateLimit-Reset": str(rate.reset_s),
    }

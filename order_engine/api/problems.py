"""Errors as RFC 9457 problem documents: the only place that knows HTTP status codes."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from order_engine.domain.errors import (
    CancelTooLate,
    ClientOrderIdTaken,
    IdempotencyConflict,
    InvalidRequest,
    OrderNotFound,
    RateLimited,
    Refused,
    Unavailable,
)

# Of a request before its body: its path, its query and its headers.
MAX_HEAD_BYTES: Final = 32 * 1024
UNAVAILABLE: Final = 503
_RETRY_AFTER_S: Final = 1
# The routes of the compatible systems.
_COMPATIBLE_PATH: Final = re.compile(r"/(?:api|orders|jobs)(?:/.*)?|/(?:enqueue|ws|ws-exec)", re.DOTALL)


class Problem(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """RFC 9457, with a stable `code`, the field at fault and whether trying again can help.

    `order_id`: the existing order that conflicts with the requested one.
    """

    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    code: Annotated[str, Meta(pattern="^[a-z][a-z0-9_]*$")]
    detail: str
    request_id: str = ""
    retryable: bool | msgspec.UnsetType = msgspec.UNSET
    field: str | None = None
    order_id: str | None = None
    type: str | msgspec.UnsetType = msgspec.UNSET


class RequestRejected(Exception):  # noqa: N818 - a refusal, not an error of ours
    """A request that HTTP itself refuses before the engine is asked."""

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """`status` is the HTTP status, `code` the stable name."""
        super().__init__(detail)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


_TITLES: Final = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    421: "Misdirected request",
    422: "Invalid request",
    426: "Upgrade required",
    429: "Too many requests",
    431: "Request header fields too large",
    500: "Internal error",
    503: "Unavailable",
}

# A class that is not listed is answered as its nearest parent that is.
_STATUSES: Final[Mapping[type, int]] = {
    Refused: 422,
    InvalidRequest: 422,
    OrderNotFound: 404,
    IdempotencyConflict: 422,
    ClientOrderIdTaken: 409,
    CancelTooLate: 409,
    RateLimited: 429,
    Unavailable: 503,
}


def to_problem(error: Exception, request_id: str, *, may_be_stored: bool = False) -> tuple[Problem, dict[str, str]]:
    """Return the problem document of the error, and its headers.

    `may_be_stored`: the request places an order, so after a 503 the order may be stored.
    """
    headers: dict[str, str] = {}
    field: str | None = None
    if isinstance(error, RequestRejected):
        status, code, detail, headers = error.status, error.code, str(error), error.headers
    elif (known := _status_of(type(error))) is not None:
        status = known
        code = getattr(error, "code", "unavailable")
        detail = str(error)
    else:
        status, code = 500, "internal_error"
        detail = "This is a bug in order-engine. The log of the server has more under the request id."
    if isinstance(error, InvalidRequest):
        field = error.field or None
        detail = f"{error.field} {error}." if error.field else str(error)
        status = 400 if error.code in ("malformed_json", "duplicate_member") else status
    if isinstance(error, RateLimited):
        headers["Retry-After"] = headers["RateLimit-Reset"] = str(error.retry_after_s)
        headers["RateLimit-Limit"] = str(error.limit)
        headers["RateLimit-Remaining"] = "0"
    if status == 503:  # noqa: PLR2004 - the code itself
        headers["Retry-After"] = str(_RETRY_AFTER_S)
        detail = f"{detail.rstrip('.')}."
        if may_be_stored:
            detail += " Whether the request was stored is not known; repeat it with an Idempotency-Key."
    if field is not None:
        field = _escape_surrogates(field)
    problem = Problem(
        _TITLES.get(status, "Error"),
        status,
        code,
        _escape_surrogates(detail),
        request_id,
        retryable=status in (429, 503),
        field=field,
        order_id=error.existing_order_id if isinstance(error, ClientOrderIdTaken) else None,
        type="about:blank",
    )
    return problem, headers


def _status_of(kind: type[Exception]) -> int | None:
    return next((_STATUSES[it] for it in kind.__mro__ if it in _STATUSES), None)


def _escape_surrogates(text: str) -> str:
    """Return the text with escapes for the characters that UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()


def problem_response(error: Exception, request_id: str, *, may_be_stored: bool = False) -> Response:
    """Return the error as a response; see `to_problem`."""
    problem, headers = to_problem(error, request_id, may_be_stored=may_be_stored)
    return _ProblemResponse(problem, headers)


def compatible(problem: Problem) -> dict[str, Any]:
    """Return the problem as the compatible systems tell it: with `error`, and 400 where v1 says 422."""
    status = 400 if problem.status == 422 else problem.status  # noqa: PLR2004 - the codes themselves
    shown: dict[str, Any] = {"error": problem.detail, **msgspec.to_builtins(problem)}
    return {**shown, "title": _TITLES.get(status, "Error"), "status": status}


class _ProblemResponse(Response):
    """A problem document, in the form that its route uses."""

    def __init__(self, problem: Problem, headers: Mapping[str, str]) -> None:
        super().__init__(msgspec.json.encode(problem), problem.status, headers, media_type="application/problem+json")
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Response. A refusal on a compatible route has `error`, also if the edge refused the request."""
        if _COMPATIBLE_PATH.fullmatch(scope["path"]):
            shown = compatible(self._problem)
            self.status_code = shown["status"]
            self.body = msgspec.json.encode(shown)
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)

"""Errors as RFC 9457 problem documents, and every HTTP status that the API uses."""

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
    KeyNotFound,
    LimitExceeded,
    OrderNotFound,
    Paused,
    RateLimited,
    Refused,
    Unauthorized,
    Unavailable,
)

# Of a request before its body: its path, its query and its headers.
MAX_HEAD_BYTES: Final = 32 * 1024
# Key in the scope of a request that was refused: the problem's code.
PROBLEM_CODE: Final = "order_engine.problem"
SWITCHING_PROTOCOLS: Final = 101
OK: Final = 200
ACCEPTED: Final = 202
NO_CONTENT: Final = 204
GOOD: Final = frozenset({OK, ACCEPTED, NO_CONTENT})
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

    def __init__(
        self, code: str, detail: str, headers: Mapping[str, str] | None = None, status: int | None = None
    ) -> None:
        """`code` is the stable name, which has an HTTP status; `status` is another one that a library chose."""
        super().__init__(detail)
        self.status = status_of(code) if status is None else status
        self.code = code
        self.headers = dict(headers or {})


_TITLES: Final = {
    400: "Bad request",
    401: "Unauthorized",
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

# The errors of the engine; a class that is not listed is answered as its nearest parent that is.
_ERRORS: Final[Mapping[type, int]] = {
    Refused: 422,
    InvalidRequest: 422,
    OrderNotFound: 404,
    KeyNotFound: 404,
    IdempotencyConflict: 422,
    ClientOrderIdTaken: 409,
    CancelTooLate: 409,
    RateLimited: 429,
    LimitExceeded: 409,
    Unauthorized: 401,
    Paused: 503,
    Unavailable: 503,
}
# The codes of a request that is refused before the engine is asked, and of a body that is not JSON.
_CODES: Final[Mapping[str, int]] = {
    "bad_handshake": 400,
    "bad_host": 400,
    "duplicate_member": 400,
    "malformed_json": 400,
    "malformed_request": 400,
    "no_order": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "origin_not_allowed": 403,
    "no_such_path": 404,
    "not_acceptable": 406,
    "body_too_large": 413,
    "encoded_body": 415,
    "not_json": 415,
    "host_not_allowed": 421,
    "websocket_only": 426,
    "websocket_version": 426,
    "head_too_large": 431,
    "internal_error": 500,
    "stopping": 503,
    "too_many_connections": 503,
}


def status_of(refusal: type[Exception] | str) -> int:
    """Return the HTTP status of an error of the engine, or of the code of a RequestRejected."""
    if isinstance(refusal, str):
        return _CODES[refusal]
    return next(_ERRORS[it] for it in refusal.__mro__ if it in _ERRORS)


def compatible_status(status: int) -> int:
    """Return the status that the compatible systems use where v1 uses this one."""
    return 400 if status == status_of(InvalidRequest) else status


def to_problem(error: Exception, request_id: str, *, may_be_stored: bool = False) -> tuple[Problem, dict[str, str]]:
    """Return the problem document of the error, and its headers.

    `may_be_stored`: the request places an order, so after a 503 the order may be stored.
    """
    headers: dict[str, str] = {}
    field: str | None = None
    if isinstance(error, RequestRejected):
        status, code, detail, headers = error.status, error.code, str(error), error.headers
    elif isinstance(error, (Refused, Unavailable)):
        status, code, detail = status_of(type(error)), getattr(error, "code", "unavailable"), str(error)
    else:
        code = "internal_error"
        status = status_of(code)
        detail = "This is a bug in order-engine. The log of the server has more under the request id."
    if isinstance(error, LimitExceeded) and error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
        status = status_of(RateLimited)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, InvalidRequest):
        field = error.field or None
        detail = f"{error.field} {error}." if error.field else str(error)
        status = _CODES.get(error.code, status)
    if isinstance(error, RateLimited):
        headers["Retry-After"] = headers["RateLimit-Reset"] = str(error.retry_after_s)
        headers["RateLimit-Limit"] = str(error.limit)
        headers["RateLimit-Remaining"] = "0"
    if is_unavailable(status):
        headers["Retry-After"] = str(_RETRY_AFTER_S)
        detail = f"{detail.rstrip('.')}."
        if may_be_stored and not isinstance(error, Paused):
            detail += " Whether the request was stored is not known; repeat it with an Idempotency-Key."
    if field is not None:
        field = _escape_surrogates(field)
    problem = Problem(
        _TITLES.get(status, "Error"),
        status,
        code,
        _escape_surrogates(detail),
        request_id,
        retryable=is_unavailable(status) or status == status_of(RateLimited),
        field=field,
        order_id=error.existing_order_id if isinstance(error, ClientOrderIdTaken) else None,
        type="about:blank",
    )
    return problem, headers


def is_unavailable(status: int) -> bool:
    """Return whether the request can succeed later, as it is."""
    return status == status_of(Unavailable)


def _escape_surrogates(text: str) -> str:
    """Return the text with escapes for the characters that UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()


def problem_response(error: Exception, request_id: str, *, may_be_stored: bool = False) -> Response:
    """Return the error as a response; see `to_problem`."""
    problem, headers = to_problem(error, request_id, may_be_stored=may_be_stored)
    return _ProblemResponse(problem, headers)


def compatible(problem: Problem) -> dict[str, Any]:
    """Return the problem as the compatible systems tell it: with `error`, and 400 where v1 says 422."""
    status = compatible_status(problem.status)
    shown: dict[str, Any] = {"error": problem.detail, **msgspec.to_builtins(problem)}
    return {**shown, "title": _TITLES.get(status, "Error"), "status": status}


class _ProblemResponse(Response):
    """A problem document, in the form that its route uses."""

    def __init__(self, problem: Problem, headers: Mapping[str, str]) -> None:
        super().__init__(msgspec.json.encode(problem), problem.status, headers, media_type="application/problem+json")
        self._problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Response. A refusal on a compatible route has `error`, also if the edge refused the request."""
        scope[PROBLEM_CODE] = self._problem.code
        if _COMPATIBLE_PATH.fullmatch(scope["path"]):
            shown = compatible(self._problem)
            self.status_code = shown["status"]
            self.body = msgspec.json.encode(shown)
            self.headers["content-length"] = str(len(self.body))
        await super().__call__(scope, receive, send)

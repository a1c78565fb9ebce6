"""The headers that the edge puts on every answer, errors included."""

from typing import Final

RawHeaders = list[tuple[bytes, bytes]]

# A handler's own value of one of these stays.
_DEFAULTS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"vary", b"Origin"),
)
# The page of /docs loads its own script and style and asks this engine. Swagger UI writes style attributes
# and draws its icons from data: URLs.
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_EXPOSED: Final = (
    b"Location, Idempotent-Replayed, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, "
    b"X-Request-Id, Allow"
)
_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
    (
        b"access-control-allow-headers",
        b"Accept, Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Idempotency-Key, X-Request-Id",
    ),
    # Two hours, the maximum for which Chromium keeps an answer.
    (b"access-control-max-age", b"7200"),
)
_PREFLIGHT_VARY: Final = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


def completed(headers: RawHeaders, more: RawHeaders) -> RawHeaders:
    """Return an answer's headers with `more` and with the defaults for which it has no value of its own."""
    names = {name for name, _ in headers}
    return [*headers, *(it for it in _DEFAULTS if it[0] not in names), *more]


def cross_origin_headers(origin: bytes) -> RawHeaders:
    """Return the headers that let a page of this origin read the answer."""
    return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)]


def preflight_headers(*, asks_for_private_network: bool) -> RawHeaders:
    """Return the answer to a browser that asks which requests a page may send.

    A page that may call the engine may do so from a public site too: ALLOWED_ORIGINS names it for that.
    """
    headers = [*_PREFLIGHT, (b"vary", _PREFLIGHT_VARY)]
    if asks_for_private_network:
        headers.append((b"access-control-allow-private-network", b"true"))
    return headers

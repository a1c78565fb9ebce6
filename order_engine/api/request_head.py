"""The head of an HTTP/1.1 request: the rules of RFC 9112 beyond the grammar that the parser checks."""

import re
from collections.abc import Sequence
from typing import Any, Final

import httptools

from order_engine.api.problems import RequestRejected

Headers = Sequence[tuple[bytes, bytes]]

MAX_HEADERS: Final = 100
# The longest line that the WebSocket handshake takes.
_MAX_LINE_BYTES: Final = 8_000
_HOST: Final = re.compile(rb"[\w.~%!$&'()*+,;=-]*(:\d*)?|\[[\w.:%~-]+\](:\d*)?", re.ASCII)
# Headers that offer another protocol; without support for it they mean nothing.
_OFFERS: Final = (b"upgrade", b"http2-settings")


class Target:
    """The request-target: its path and query as sent, and the authority if it is absolute."""

    __slots__ = ("authority", "path", "query")

    def __init__(self, url: bytes) -> None:
        """Raises RequestRejected (400)."""
        try:
            parsed: Any = httptools.parse_url(url)  # Its stubs know of no target without a path.
            path = parsed.path or b"/"
            path.decode("ascii")
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            raise malformed("The request-target is not a path") from None
        if parsed.fragment is not None or parsed.userinfo is not None:
            raise malformed("The request-target has a fragment or a user name")
        self.path: bytes = path
        self.query: bytes = parsed.query or b""
        self.authority: bytes | None = None
        if parsed.host is not None:
            host = b"[%b]" % parsed.host if b":" in parsed.host else parsed.host
            self.authority = host if parsed.port is None else b"%b:%d" % (host, parsed.port)

    @property
    def origin_form(self) -> bytes:
        """The target as a path and a query."""
        return b"%b?%b" % (self.path, self.query) if self.query else self.path


def malformed(detail: str) -> RequestRejected:
    """Return the refusal of bytes that are no HTTP/1.1 request; the connection closes after it."""
    message = f"{detail.rstrip('.')[:200]}. Send requests as RFC 9112 (HTTP/1.1) says."
    return RequestRejected("malformed_request", message, {"Connection": "close"})


def too_large(detail: str) -> RequestRejected:
    """Return the refusal of a head that is too long; the connection closes after it."""
    return RequestRejected("head_too_large", detail, {"Connection": "close"})


def check_head(method: bytes, version: str, headers: Headers) -> None:
    """Raise RequestRejected if the request cannot be understood in one way only."""
    if version not in ("1.0", "1.1"):
        raise malformed(f"This server speaks HTTP/1.1, not HTTP/{version}")
    if method == b"CONNECT":
        raise malformed("CONNECT is for proxies, and this server is not one")
    hosts, codings, has_length = [], [], False
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"content-length":
            has_length = True
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise malformed(f"The request has {len(hosts)} Host headers, and needs one")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise malformed("The Host header is not `name` or `name:port`")
    if codings:
        _check_codings(version, codings, has_length=has_length)


def _check_codings(version: str, codings: list[bytes], *, has_length: bool) -> None:
    if version == "1.0" or b",".join(codings).strip().lower() != b"chunked":
        raise malformed("The only Transfer-Encoding is `chunked`, in HTTP/1.1")
    if has_length:
        raise malformed("The request has both Transfer-Encoding and Content-Length")


def is_websocket_handshake(method: bytes, version: str, headers: Headers) -> bool:
    """Return whether the client asks for a WebSocket and sends no body; any other offer of a protocol is ignored."""
    if method != b"GET" or version != "1.1" or b"websocket" not in _tokens(headers, b"upgrade"):
        return False
    has_body = values_of(headers, b"transfer-encoding") or any(
        length.strip(b"0 \t") for length in values_of(headers, b"content-length")
    )
    return not has_body and b"upgrade" in _tokens(headers, b"connection")


def head_bytes(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """Return the head as it is sent; raises RequestRejected if a line is too long to be passed on."""
    lines = [b"%b %b HTTP/%b\r\n" % (method, target, version.encode())]
    lines += [b"%b: %b\r\n" % header for header in headers]
    if max(map(len, lines)) > _MAX_LINE_BYTES:
        raise too_large(f"Each line of the head must be at most {_MAX_LINE_BYTES} bytes.")
    return b"".join([*lines, b"\r\n"])


def without_offers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers as if the client had not offered another protocol (RFC 9110, section 7.8, allows that)."""
    kept = []
    for name, value in headers:
        if name == b"connection":
            options = [it.strip() for it in value.split(b",")]
            value = b", ".join(it for it in options if it and it.lower() not in _OFFERS)  # noqa: PLW2901 - the options that are left
        if name not in _OFFERS and not (name == b"connection" and not value):
            kept.append((name, value))
    return kept


def values_of(headers: Headers, name: bytes) -> list[bytes]:
    """Return the values of all headers of this name, which is in lower case."""
    return [value for it, value in headers if it == name]


def _tokens(headers: Headers, name: bytes) -> set[bytes]:
    return {token.strip().lower() for value in values_of(headers, name) for token in value.split(b",")}

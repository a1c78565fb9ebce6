"""The address of a running engine: as a user writes it, as the client uses it, and without secrets."""

import base64
import re
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

_SCHEMES: Final = {"http": "ws", "https": "wss"}
_HOST: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_MAX_PORT: Final = 65_535
_API_KEY: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)


class AddressError(ValueError):
    """The address or the key cannot be used. The message quotes neither: each may hold a secret."""


class EngineAddress(msgspec.Struct, frozen=True):
    """The address of an engine.

    `shown` has no user, no password, no path and no query: it is for the terminal and for errors.
    `credentials` is the Authorization header that the user and the password of the URL make, or "".
    """

    shown: str
    http: str
    websocket: str
    credentials: str


def parse_engine_address(url: str) -> EngineAddress:
    """Return the address that the URL names; raises AddressError."""
    if not url.isascii() or not url.isprintable() or " " in url:
        message = "holds a space, a line feed or another character that no URL can hold; write it as %XX or xn--…"
        raise AddressError(message)
    try:
        parts = urlsplit(url)
    except ValueError:
        # The words of urlsplit quote the URL, and with it a password.
        message = "is not a URL"
        raise AddressError(message) from None
    if parts.scheme not in _SCHEMES or not parts.hostname:
        message = "must begin with http:// or https:// and name a host, such as http://127.0.0.1:3000"
        raise AddressError(message)
    if "@" in parts.path + parts.query + parts.fragment:
        message = "has an @ after its host; in a user name or a password write / as %2F, ? as %3F and # as %23"
        raise AddressError(message)
    userinfo, _, place = parts.netloc.rpartition("@")
    port = place.rpartition("]")[2].partition(":")[2]
    if port and not (port.isdecimal() and int(port) <= _MAX_PORT):
        message = f"its port must be a number from 0 to {_MAX_PORT}"
        raise AddressError(message)
    if not _HOST.fullmatch(parts.hostname):
        message = "its host must be a host name or an IP address, such as http://127.0.0.1:3000"
        raise AddressError(message)
    if "?" in url or "#" in url:
        message = "must have no query and no fragment (? and #); a key goes into ENGINE_API_KEY"
        raise AddressError(message)
    path = parts.path.rstrip("/")
    return EngineAddress(
        f"{parts.scheme}://{place}",
        f"{parts.scheme}://{place}{path}",
        f"{_SCHEMES[parts.scheme]}://{place}{path}",
        f"Basic {base64.b64encode(unquote_to_bytes(userinfo)).decode()}" if userinfo else "",
    )


def check_api_key(api_key: str) -> None:
    """Raise AddressError unless the key is empty or can be sent in a header."""
    if api_key and not _API_KEY.fullmatch(api_key):
        message = "must be visible ASCII characters without spaces and line feeds, as it is sent in an HTTP header"
        raise AddressError(message)


def authorization(address: EngineAddress, api_key: str) -> str:
    """Return the Authorization header for this key, or for the URL's own user; "" if there is neither.

    Raises AddressError.
    """
    if not api_key:
        return address.credentials
    check_api_key(api_key)
    if address.credentials:
        message = "cannot be sent together with the user name in the engine's URL; give one of them"
        raise AddressError(message)
    return f"Bearer {api_key}"

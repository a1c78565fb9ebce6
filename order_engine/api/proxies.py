"""The headers in which a trusted proxy names the client whose request it passes on."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.datastructures import Headers

from order_engine.api.hosts import Network, is_within, parse_address, parse_host

_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
# RFC 7239: elements are separated by commas, pairs by semicolons; a value may be quoted.
_PAIR: Final = re.compile(r'\s*([\w!#$%&\'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;]*))\s*(?:(;)|(,)|$)', re.ASCII)


class Passed(msgspec.Struct, frozen=True):
    """The request as it reached the outermost trusted proxy; None: the proxy does not say."""

    client: str | None = None
    scheme: str | None = None
    host: str | None = None


def read_forwarding(headers: Headers, trusted: Sequence[Network]) -> Passed:
    """Return the client, scheme and host that a trusted proxy names. Call it only if the peer is trusted.

    A proxy that writes one kind of header forwards the client's own header of the other kind. So if `X-Forwarded-For`
    and `Forwarded` name different clients, both are ignored.
    """
    addresses = [_address_of(part) for value in headers.getlist("x-forwarded-for") for part in value.split(",")]
    elements = _elements(headers.getlist("forwarded"))
    by_list = _outermost(addresses, trusted)
    by_element = _outermost([_address_of(element.get("for", "")) for element in elements], trusted)
    client = None if by_list is None else addresses[by_list]
    element = elements[-1] if elements else {}
    if by_element is not None:
        element = elements[by_element]
        named = _address_of(element["for"])
        if addresses and named != client:
            return Passed()
        client = named
    scheme = element.get("proto") or _last(headers, "x-forwarded-proto")
    return Passed(
        client,
        None if scheme is None else _SCHEMES.get(scheme.lower()),
        element.get("host") or _last(headers, "x-forwarded-host"),
    )


def _outermost(addresses: Sequence[str | None], trusted: Sequence[Network]) -> int | None:
    """Return the place of the rightmost address that is not a trusted proxy's.

    The proxy after each address in the list has added it. A word that is not an address ends the search.
    """
    found = None
    for place in range(len(addresses) - 1, -1, -1):
        text = addresses[place]
        address = None if text is None else parse_address(text)
        if address is None:
            break
        found = place
        if not is_within(address, trusted):
            break
    return found


def _address_of(text: str) -> str | None:
    """Return the address of `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`, else None."""
    text = text.strip()
    address = parse_address(text)
    if address is None:
        host = parse_host(text)
        address = None if host is None else parse_address(host.name)
    return None if address is None else str(address)


def _elements(values: Sequence[str]) -> list[dict[str, str]]:
    """Return the elements of `Forwarded` headers, each as its pairs; none if one of them is malformed."""
    text = ",".join(values)
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is None:
            return []
        name, quoted, plain, _, comma = match.groups()
        elements[-1][name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        if comma:
            elements.append({})
        position = match.end()
    return [element for element in elements if element]


def _last(headers: Headers, name: str) -> str | None:
    values = headers.getlist(name)
    return values[-1].rpartition(",")[2].strip() if values else None

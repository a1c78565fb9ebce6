"""Host names, origins and addresses, as the edge compares them."""

import functools
import ipaddress
import re
from collections.abc import Iterable
from typing import Final

import msgspec

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_AUTHORITY: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[\w.~-]+)?)\]|(?P<name>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?))(?::(?P<port>\d{0,5}))?",
    re.ASCII,
)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*", re.ASCII)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_MAX_PORT: Final = 65_535
_IPV6_KEY_PREFIX: Final = 64


class Host(msgspec.Struct, frozen=True):
    """A host in the one spelling that is compared: `Example.COM.:80` is name `example.com`, port 80.

    No name server can point a name elsewhere that is an IP address.
    """

    name: str
    port: int | None
    is_address: bool


class Origin(msgspec.Struct, frozen=True):
    """A web origin in the one spelling that is compared; the port is None where it is the scheme's own."""

    scheme: str
    name: str
    port: int | None

    def is_at(self, host: Host) -> bool:
        """Return whether a `Host` header with this host is one of a page of this origin to its own server."""
        port = None if host.port == _DEFAULT_PORTS.get(self.scheme) else host.port
        return (self.name, self.port) == (host.name, port)

    @property
    def netloc(self) -> str:
        """The host and the port as they stand in a URL."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


@functools.lru_cache(maxsize=256)
def parse_host(text: str) -> Host | None:
    """Return the host of a `Host` header, or None if the text is not `name` or `name:port`."""
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else None
    if port is not None and port > _MAX_PORT:
        return None
    if match["v6"] is not None:
        address = parse_address(match["v6"])
        return None if address is None else Host(str(address), port, is_address=True)
    # One dot at the end says that the name is complete; the name is the same without it.
    name = match["name"].lower().removesuffix(".")
    return Host(name, port, is_address=parse_address(name) is not None)


@functools.lru_cache(maxsize=256)
def parse_origin(text: str) -> Origin | None:
    """Return the origin of an `Origin` header, or None if the text is not `scheme://host` or `scheme://host:port`."""
    scheme, separator, authority = text.partition("://")
    host = parse_host(authority)
    if not separator or not _SCHEME.fullmatch(scheme) or host is None:
        return None
    scheme = scheme.lower()
    return Origin(scheme, host.name, None if host.port == _DEFAULT_PORTS.get(scheme) else host.port)


@functools.lru_cache(maxsize=1_024)
def parse_address(text: str) -> Address | None:
    """Return the IP address, or None; an IPv4 address that is written as IPv6 is the IPv4 address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


@functools.lru_cache(maxsize=4_096)
def limit_key(text: str) -> str:
    """Return the name by which a client's orders are counted.

    An IPv6 client usually has a whole /64 network, so it is counted by that: `2001:db8:1:2::/64`.
    """
    address = parse_address(text)
    if address is None:
        return text
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
        return str(ipaddress.IPv6Network((int(address), _IPV6_KEY_PREFIX), strict=False))
    return str(address)


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Return whether the address belongs to one of the networks."""
    return any(address in network for network in networks)


# --- settings ------------------------------------------------------------------------------------


def parse_host_names(text: str) -> frozenset[str]:
    """Return the names of ALLOWED_HOSTS; raises ValueError with a sentence."""
    names = set()
    for part in _parts(text):
        host = parse_host(part)
        if host is None or host.port is not None:
            message = f"{part!r} must be a host name without scheme, port or wildcard, such as orders.example.com"
            raise ValueError(message)
        names.add(host.name)
    return frozenset(names)


def parse_origins(text: str) -> frozenset[Origin]:
    """Return the origins of ALLOWED_ORIGINS; raises ValueError with a sentence."""
    origins = set()
    for part in _parts(text):
        origin = parse_origin(part.removesuffix("/"))
        if origin is None:
            message = f"{part!r} must be an origin without path or wildcard, such as https://app.example.com"
            raise ValueError(message)
        origins.add(origin)
    return frozenset(origins)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks of TRUSTED_PROXIES; raises ValueError with a sentence."""
    networks = []
    for part in _parts(text):
        try:
            networks.append(ipaddress.ip_network(part))
        except ValueError as error:
            message = f"{part!r} must be an IP address or a network, such as 10.0.0.7 or 10.0.0.0/24 ({error})"
            raise ValueError(message) from error
    return tuple(networks)


def parse_public_url(text: str) -> Origin | None:
    """Return the origin of PUBLIC_URL, None if it is empty; raises ValueError with a sentence."""
    if not text:
        return None
    origin = parse_origin(text.removesuffix("/"))
    if origin is None or origin.scheme not in ("http", "https"):
        message = "must be http:// or https:// and a host without a path, such as https://orders.example.com"
        raise ValueError(message)
    return origin


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]

"""The settings of the HTTP API."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, field_validator

from order_engine.api.hosts import parse_host_names, parse_networks, parse_origins, parse_public_url
from order_engine.api.limits import (
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_ADDRESS,
    MAX_FRAMES_PER_WINDOW,
    MAX_KIB_PER_WINDOW,
)


def _checked_by(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Return a validator that accepts and keeps each text that `parse` accepts."""

    def check(text: str) -> str:
        parse(text)
        return text

    return check


class ApiSettings(BaseModel):
    """The HTTP API."""

    default_slippage_bps: int = Field(50, ge=1, le=1000, description="Slippage of an order without its own, in bps.")
    allowed_hosts: Annotated[str, AfterValidator(_checked_by(parse_host_names))] = Field(
        "",
        description="Host names, separated by commas, under which the API answers besides addresses, localhost and "
        "PUBLIC_URL's. A request for another name gets 421.",
    )
    allowed_origins: Annotated[str, AfterValidator(_checked_by(parse_origins))] = Field(
        "",
        description="Web origins, separated by commas, whose pages may call the API besides its own and loopback ones.",
    )
    compat_routes: Literal["on", "off"] = Field(
        "on", description="Routes of the five compatible systems (/api/orders, /enqueue, /jobs, /ws, ...); off: 404."
    )
    public_url: Annotated[str, AfterValidator(_checked_by(parse_public_url))] = Field(
        "",
        description="Address under which clients reach the API through a proxy, such as https://orders.example.com. "
        "Its pages may call the API, and absolute URLs in answers begin with it.",
    )
    trusted_proxies: Annotated[str, AfterValidator(_checked_by(parse_networks))] = Field(
        "",
        description="Addresses or networks of proxies, separated by commas, such as 10.0.0.7,10.1.0.0/16. Their "
        "X-Forwarded-For, -Proto, -Host and Forwarded headers are believed, so each client has a limit of its own.",
    )
    api_max_orders_per_min: int = Field(
        120, ge=0, le=1_000_000, description="Orders a minute that one client address may place; 0 is no limit."
    )
    api_max_quotes_per_min: int = Field(
        600, ge=0, le=1_000_000, description="Quotes a minute that one client address may ask for; 0 is no limit."
    )
    max_connections: int = Field(
        MAX_CONNECTIONS,
        ge=0,
        le=1_000_000,
        description="Connections that one process serves at once; further ones get 503. 0: as many as it may open "
        "files.",
    )
    max_connections_per_address: int = Field(
        MAX_CONNECTIONS_PER_ADDRESS,
        ge=0,
        le=1_000_000,
        description="Connections of one client address at once; further ones get 503. 0 is no limit.",
    )
    websocket_max_frames: int = Field(
        MAX_FRAMES_PER_WINDOW,
        ge=0,
        le=1_000_000,
        description="Frames of any kind that a WebSocket client may send in 10 s; after more it is closed with 1008. "
        "0 is no limit.",
    )
    websocket_max_kib: int = Field(
        MAX_KIB_PER_WINDOW,
        ge=0,
        le=1_000_000,
        description="Maximum KiB from a WebSocket client in 10 s. 0 is no limit.",
    )

    @field_validator("compat_routes", mode="before")
    @classmethod
    def _lower_switch(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

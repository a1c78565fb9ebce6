"""The settings of the commands that talk to an engine."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from order_engine.engine_address import AddressError, check_api_key, parse_engine_address
from order_engine.server_urls import PLATFORM_PORT
from order_engine.settings.errors import SettingsError

# The URL that HOST and PORT make if they are not set.
DEFAULT_ENGINE_URL: Final = "http://127.0.0.1:3000"
ENV_FILE: Final = ".env"
# Docker Compose reads the same file, and has settings of its own.
_NOT_OURS: Final = "compose_"
# The local address of an engine that listens on every address.
_ON_THIS_MACHINE: Final = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}  # noqa: S104 - it is replaced


def _known_engine(url: str) -> str:
    url = url.strip()
    if url:
        parse_engine_address(url)
    return url


def _sendable_key(key: SecretStr) -> SecretStr:
    value = key.get_secret_value().strip()
    check_api_key(value)
    return SecretStr(value)


class ClientSettings(BaseSettings):
    """The engine and the command line."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        extra="ignore",
        env_ignore_empty=True,
        frozen=True,
        hide_input_in_errors=True,
    )

    host: str = Field("127.0.0.1", description="Address that the API listens on; :: is all addresses, IPv4 and IPv6.")
    port: int = Field(3000, ge=0, le=65_535, description="Port that the API listens on; 0 takes a free one.")
    engine_url: Annotated[str, AfterValidator(_known_engine)] = Field(
        "",
        repr=False,
        description="The engine that the command line talks to, such as http://127.0.0.1:3000. Empty: the one at HOST "
        "and PORT.",
    )
    engine_api_key: Annotated[SecretStr, AfterValidator(_sendable_key)] = Field(
        SecretStr(""), description="API key for that engine, if it has any, or for the proxy before it."
    )

    @model_validator(mode="before")
    @classmethod
    def _only_where_they_count(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Ignore settings that the command line does not use: HOST and PORT, too, if ENGINE_URL is set."""
        if cls is not ClientSettings:
            return values
        unused = ("host", "port") if values.get("engine_url") else ()
        return {name: it for name, it in values.items() if name not in unused and not is_of_the_platform(name, it)}

    @property
    def engine(self) -> str:
        """The URL of the engine that the command line talks to; raises SettingsError if it is not known."""
        if self.engine_url:
            return self.engine_url
        if self.port == 0:
            raise SettingsError(
                "PORT=0 takes any free port: set ENGINE_URL to the address that the engine says it has."
            )
        host = _ON_THIS_MACHINE.get(self.host, self.host)
        url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        try:
            parse_engine_address(url)
        except AddressError:
            raise SettingsError(
                "HOST is not an address that the command line can talk to: set ENGINE_URL to the engine's."
            ) from None
        return url


def is_of_the_platform(name: str, value: object) -> bool:
    """Return whether Docker Compose or a platform uses this name for another purpose.

    For a service that is called redis, Kubernetes sets REDIS_PORT=tcp://10.0.0.1:6379 in every pod.
    """
    is_link = isinstance(value, str) and PLATFORM_PORT.match(value) is not None
    return name.startswith(_NOT_OURS) or (is_link and name in ("port", "redis_port"))

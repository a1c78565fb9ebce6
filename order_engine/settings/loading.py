"""All settings of a process together, and how they are read."""

from pathlib import Path
from typing import Any, Final, Self, TypeVar

from dotenv.parser import parse_stream
from pydantic import ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from order_engine.settings.api import ApiSettings
from order_engine.settings.client import ENV_FILE, ClientSettings, is_of_the_platform
from order_engine.settings.errors import SettingsError
from order_engine.settings.log import LogSettings
from order_engine.settings.paper import SLOWEST_PAPER_QUOTE_MS, PaperSettings
from order_engine.settings.servers import ServerSettings
from order_engine.settings.worker import WorkerSettings

# By their reader, in the order of .env.example.
GROUPS: Final = (ClientSettings, ServerSettings, ApiSettings, WorkerSettings, PaperSettings, LogSettings)
_MAX_SHOWN: Final = 60

_Loaded = TypeVar("_Loaded", bound=ClientSettings)


class Settings(ClientSettings, ServerSettings, ApiSettings, WorkerSettings, PaperSettings, LogSettings):
    """The settings of one process, from the environment or from a file `.env`."""

    model_config = SettingsConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_not_ours(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if not is_of_the_platform(name, value)}

    @field_validator("host")
    @classmethod
    def _listenable(cls, value: str) -> str:
        host = value.strip().removeprefix("[").removesuffix("]")
        if host == "*" or set("/@, ") & set(host):
            raise ValueError("must be one address or host name: 0.0.0.0 is all of IPv4, :: is all of IPv4 and IPv6")
        return host

    @model_validator(mode="after")
    def _quotes_in_time(self) -> Self:
        slowest_ms = self.mock_delay_scale * SLOWEST_PAPER_QUOTE_MS
        if slowest_ms > self.quote_timeout_ms:
            message = (
                f"MOCK_DELAY_SCALE={self.mock_delay_scale:g} makes paper quotes take up to {slowest_ms:g} ms, longer "
                f"than QUOTE_TIMEOUT_MS={self.quote_timeout_ms} waits; lower the one or raise the other."
            )
            raise ValueError(message)
        return self


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; raises SettingsError with a sentence for each wrong setting."""
    return _load(Settings, overrides)


def load_client_settings() -> ClientSettings:
    """Read the settings for talking to an engine; raises SettingsError like `load_settings`."""
    return _load(ClientSettings, {})


def _load(kind: type[_Loaded], overrides: dict[str, Any]) -> _Loaded:
    _check_env_file(Path(ENV_FILE))
    try:
        return kind(**overrides)
    except ValidationError as error:
        # Without a cause, because pydantic's own message quotes the value, which may be a secret.
        raise SettingsError("\n".join(_sentence(it) for it in error.errors())) from None


def _check_env_file(path: Path) -> None:
    """Refuse a file that would otherwise cause a traceback, and a line that would be silently ignored."""
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8") as file:
            broken = next((it.original.line for it in parse_stream(file) if it.error), None)
    except UnicodeDecodeError as error:
        message = f"{path} cannot be used: it is not UTF-8 text."
        raise SettingsError(message) from error
    except OSError as error:
        message = f"{path} cannot be used: {error.strerror}."
        raise SettingsError(message) from error
    if broken is not None:
        message = f"{path} cannot be used: line {broken} is not NAME=value; a quote that is opened must be closed."
        raise SettingsError(message)


def _sentence(error: object) -> str:
    assert isinstance(error, dict)  # noqa: S101 - pydantic's ErrorDetails is a dict
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{_where_in_env_file(name)} is not a setting of order-engine; .env.example lists them all."
    allowed = str(error["msg"]).removeprefix("Value error, ")
    field = Settings.model_fields.get(name)
    meaning = f" {name.upper()}: {field.description}" if field else ""
    value = "" if _may_hold_a_secret(name, error["input"]) else f"={error['input']!r}"
    return f"{name.upper()}{value} cannot be used: {allowed[0].lower()}{allowed[1:]}.{meaning}"


def _may_hold_a_secret(name: str, value: object) -> bool:
    """Return whether the value must stay out of terminal and logs: a key or a URL, also in the wrong setting."""
    text = str(value)
    is_odd = not text.isprintable() or len(text) > _MAX_SHOWN or set("@?") & set(text) or "://" in text
    return bool(name.endswith(("_url", "_password", "_key", "_secret", "_token")) or is_odd)


def _where_in_env_file(name: str) -> str:
    """Name a variable of .env, or only its line if it may be the second line of a secret."""
    with Path(ENV_FILE).open(encoding="utf-8") as file:
        found = {it.key: it.original.line for it in parse_stream(file) if it.key and it.key.lower() == name}
    if name.upper() in found and len(name) <= _MAX_SHOWN:
        return f"{name.upper()} in {ENV_FILE}"
    return f"Line {max(found.values(), default=1)} of {ENV_FILE}"

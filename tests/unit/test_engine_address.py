"""The engine's address: which URLs are understood, and that no refusal quotes a secret."""

import traceback
from pathlib import Path

import pytest

from order_engine.client import EngineClient, UnusableAddressError
from order_engine.engine_address import AddressError, authorization, parse_engine_address
from order_engine.settings import SettingsError, load_client_settings

SECRET = "s3cr3t"

GOOD = {
    "http://127.0.0.1:3000": ("http://127.0.0.1:3000", "ws://127.0.0.1:3000", ""),
    "https://engine.example/": ("https://engine.example", "wss://engine.example", ""),
    "HTTP://Engine.example:80": ("http://Engine.example:80", "ws://Engine.example:80", ""),
    "http://http.example/https/": ("http://http.example/https", "ws://http.example/https", ""),
    "http://[::1]:3000": ("http://[::1]:3000", "ws://[::1]:3000", ""),
    "http://order_engine:3000/v0": ("http://order_engine:3000/v0", "ws://order_engine:3000/v0", ""),
    "https://me:p%40ss@engine.example": (
        "https://engine.example",
        "wss://engine.example",
        "Basic bWU6cEBzcw==",
    ),
    "https://me:p@ss@engine.example": ("https://engine.example", "wss://engine.example", "Basic bWU6cEBzcw=="),
}

BAD_URLS = [
    SECRET,
    f"engine:{SECRET}",
    f"ftp://me:{SECRET}@engine",
    f"http://me:{SECRET}@",
    f"http://me:{SECRET}@engine:port",
    f"http://me:{SECRET}@engine:99999",
    f"http://me:{SECRET}@engine:",
    f"http://me:{SECRET}@[::1",
    f"http://me:{SECRET}@a b",
    f"http://me:{SECRET}@a..b",
    f"http://me:{SECRET}@engine\n",
    f"http://me:{SECRET}\x00@engine",
    f"http://mü:{SECRET}@engine",
    f"http://me:{SECRET}@ünicode",
    f"http://me:{SECRET}/x@engine",
    f"http://me:{SECRET}?x@engine",
    f"http://me:{SECRET}#x@engine",
    f"http://me:12/{SECRET}@engine",
    f"http://engine?key={SECRET}",
    f"http://engine/?{SECRET}",
    f"http://engine/#{SECRET}",
    f"http://engine?@{SECRET}",
    f"http://{'a' * 64}.{SECRET}",
    f"http://%zz{SECRET}",
    f"http:///{SECRET}",
    f"//{SECRET}",
]
# An empty port means the scheme's default port.
FINE_URLS = {f"http://me:{SECRET}@engine:"}
BAD_KEYS = [
    f"{SECRET}\n",
    f"{SECRET}\r\nX-Evil: 1",
    f" {SECRET}",
    f"{SECRET} {SECRET}",
    f"{SECRET}\t",
    f"ü{SECRET}",
    f"{SECRET}\udcff",
    f"{SECRET}\x00",
    f"{SECRET}\x7f",
]


@pytest.mark.parametrize(("url", "parts"), GOOD.items(), ids=str)
def test_an_address_is_used_without_its_user_who_goes_into_a_header(url: str, parts: tuple[str, str, str]) -> None:
    address = parse_engine_address(url)
    assert (address.http, address.websocket, address.credentials) == parts
    assert address.http.startswith(address.shown)


@pytest.mark.parametrize("url", [it for it in BAD_URLS if it not in FINE_URLS])
def test_a_url_that_cannot_be_used_is_not_quoted(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UnusableAddressError) as refused:
        EngineClient(url)
    assert SECRET not in _all_text(refused.value)
    if "\x00" in url or url != url.strip():
        return  # No environment variable holds NUL, and settings are stripped.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENGINE_URL", url)
    with pytest.raises(SettingsError, match="ENGINE_URL cannot be used") as stopped:
        load_client_settings()
    assert SECRET not in _all_text(stopped.value)


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_cannot_be_sent_is_not_quoted(key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UnusableAddressError, match="API key") as refused:
        EngineClient("http://127.0.0.1:3000", key)
    assert SECRET not in _all_text(refused.value)
    if "\x00" in key or key != key.strip():
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENGINE_API_KEY", key)
    with pytest.raises(SettingsError, match="ENGINE_API_KEY cannot be used") as stopped:
        load_client_settings()
    assert SECRET not in _all_text(stopped.value)


def test_two_credentials_for_one_header_are_refused() -> None:
    address = parse_engine_address(f"http://me:{SECRET}@engine")
    with pytest.raises(AddressError, match="one of them") as refused:
        authorization(address, SECRET)
    assert SECRET not in _all_text(refused.value)
    assert authorization(parse_engine_address("http://engine"), "key") == "Bearer key"


def _all_text(error: BaseException) -> str:
    return f"{error} {error!r} {''.join(traceback.format_exception(error))}".replace(__file__, "")

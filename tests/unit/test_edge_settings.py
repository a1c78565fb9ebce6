"""The settings of the edge: each refused value is named in a sentence."""

import pytest

from order_engine.settings import SettingsError, load_settings

SOUND = {
    "allowed_hosts": ("api", "api, Orders.Example.com.", ""),
    "allowed_origins": ("https://a.example", "http://a.example:8080/ ,chrome-extension://abc", ""),
    "public_url": ("https://orders.example.com", "http://10.0.0.7:3000/", ""),
    "trusted_proxies": ("10.0.0.7", "10.0.0.0/8, fd00::/8,::1", ""),
}
WRONG = {
    "host": ("*", "http://127.0.0.1", "127.0.0.1,::1"),
    "allowed_hosts": ("*", "*.example.com", "http://api", "api:3000", "a b", "api/", "é.example"),
    "allowed_origins": ("*", "null", "a.example", "https://a.example/path", "https://*.example", "https://u@a.example"),
    "public_url": (
        "orders.example.com",
        "ftp://a.example",
        "https://a.example/engine",
        "https://",
        "https://a.example?x",
    ),
    "trusted_proxies": ("*", "proxy", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "loopback"),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_values_are_taken(name: str) -> None:
    for value in SOUND[name]:
        assert getattr(load_settings(**{name: value}), name) == value


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_with_an_example_of_a_right_one(name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(SettingsError, match=name.upper()) as refused:
            load_settings(**{name: value})
        assert "such as" in str(refused.value) or "0.0.0.0 is all" in str(refused.value), value

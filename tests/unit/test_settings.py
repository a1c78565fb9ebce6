"""A wrong setting stops the start with a sentence, and no sentence contains a password."""

from pathlib import Path

import pytest

from order_engine.paper import venue
from order_engine.settings import (
    SLOWEST_PAPER_QUOTE_MS,
    Settings,
    SettingsError,
    load_client_settings,
)
from order_engine.wiring import chain_faults
from tests.unit.test_server_urls import REDIS


def test_the_defaults_are_those_of_the_documents(load) -> None:
    settings = load()
    expected = {
        "host": "127.0.0.1",
        "port": 3000,
        "mock_fail_rate": 0,
        "mock_delay_scale": 1,
        "default_slippage_bps": 50,
        "api_max_orders_per_min": 120,
        "queue_max_per_min": 0,
        "worker_concurrency": 100,
        "order_max_attempts": 3,
        "retry_backoff_ms": 1_000,
        "lease_seconds": 15,
        "log_format": "console",
    }
    assert {name: getattr(settings, name) for name in expected} == expected
    assert (settings.postgres, settings.redis) == (None, None)
    assert settings.sqlite_path == Path(".order-engine/order-engine.sqlite3")


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_says_what_it_means(name: str) -> None:
    assert (Settings.model_fields[name].description or "").endswith(".")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "abc", "integer"),
        ("PORT", "80.5", "integer"),
        ("PORT", "-1", "greater than or equal to 0"),
        ("PORT", "65536", "less than or equal to 65535"),
        ("REDIS_PORT", "0", "greater than or equal to 1"),
        ("REDIS_HOST", "cache/0", "host name"),
        ("REDIS_HOST", "cache:6380", "host name"),
        ("MOCK_FAIL_RATE", "1.5", "less than or equal to 1"),
        ("MOCK_FAIL_RATE", "-0.1", "greater than or equal to 0"),
        ("MOCK_FAIL_RATE", "half", "number"),
        ("MOCK_FAIL_RATE", "nan", "1"),
        ("MOCK_DELAY_SCALE", "inf", "less than or equal to 100"),
        ("MOCK_SEED", "-1", "greater than or equal to 0"),
        ("DEFAULT_SLIPPAGE_BPS", "0", "greater than or equal to 1"),
        ("DEFAULT_SLIPPAGE_BPS", "1001", "less than or equal to 1000"),
        ("API_MAX_ORDERS_PER_MIN", "-1", "greater than or equal to 0"),
        ("WORKER_CONCURRENCY", "0", "greater than or equal to 1"),
        ("ORDER_MAX_ATTEMPTS", "0", "greater than or equal to 1"),
        ("LEASE_SECONDS", "601", "less than or equal to 600"),
        ("SHUTDOWN_GRACE_MS", "8001", "less than or equal to 8000"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("COMPAT_ROUTES", "no", "'on' or 'off'"),
        ("LOG_FORMAT", "xml", "'console' or 'json'"),
    ],
)
def test_a_bad_value_gives_a_sentence_with_name_value_and_what_is_allowed(
    refusal, name: str, value: str, allowed: str
) -> None:
    sentence = refusal(**{name: value})
    assert sentence.startswith(f"{name}={value!r} cannot be used: ")
    assert allowed in sentence
    assert Settings.model_fields[name.lower()].description in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("DATABASE_URL", "mysql://host/orders", "postgres://"),
        ("DATABASE_URL", "orders.db", "sqlite:///"),
        ("DATABASE_URL", "/var/lib/orders.db", "sqlite:///"),
        ("REDIS_URL", "cache:6379", "redis://"),
        ("REDIS_URL", "http://cache", "redis://"),
        ("CHAIN_URL", "chain:8899", "http://"),
        ("CHAIN_URL", "http://", "http://"),
    ],
)
def test_a_bad_url_gives_a_sentence_with_its_name_and_what_is_allowed(
    refusal, name: str, value: str, allowed: str
) -> None:
    sentence = refusal(**{name: value})
    assert sentence.startswith(f"{name} cannot be used: must begin with ")
    assert allowed in sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://engine:s3cret@host/orders"),
        ("DATABASE_URL", "postgres://engine:s3cret@host/orders"),
        ("DATABASE_URL", "postgres://engine:s3cret@[host/orders"),
        ("DATABASE_URL", "postgres://engine:5432/s3cret@host:5432/orders"),
        ("DATABASE_URL", "postgres://engine:/s3cret@host:port/orders"),
        ("ENGINE_URL", "https://engine:s3cret@host:port"),
        ("DATABASE_URL", "postgres://engine:s3cret\u2100@host/orders"),
        ("REDIS_URL", "http://:s3cret@host"),
        ("REDIS_URL", "s3cret"),
        ("REDIS_HOST", "redis://:s3cret@host:6379/0"),
    ],
)
def test_no_sentence_tells_a_password(refusal, name: str, value: str) -> None:
    sentence = refusal(**{name: value})
    assert name in sentence
    assert "s3cret" not in sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgres://host:port/orders"),
        ("DATABASE_URL", "postgres://host:65536/orders"),
        ("DATABASE_URL", "postgres://one:5432,two:port/orders"),
        ("DATABASE_URL", "postgres://[::1]:port/orders"),
        ("REDIS_URL", "redis://host:port/0"),
        ("ENGINE_URL", "http://host:port"),
    ],
)
def test_a_port_in_a_url_is_a_number(refusal, name: str, value: str) -> None:
    assert refusal(**{name: value, **({} if name == "REDIS_URL" else REDIS)}).startswith(
        f"{name} cannot be used: its port must be a number from 0 to 65535."
    )


def test_paper_quotes_that_come_too_late_are_refused(load, refusal) -> None:
    assert venue._QUOTE_DELAY_S[1] * 1000 == SLOWEST_PAPER_QUOTE_MS
    most = 2_000 // SLOWEST_PAPER_QUOTE_MS
    assert load(MOCK_DELAY_SCALE=str(most - 1)).mock_delay_scale == most - 1
    sentence = refusal(MOCK_DELAY_SCALE=str(most + 1))
    assert all(name in sentence for name in (f"MOCK_DELAY_SCALE={most + 1}", "QUOTE_TIMEOUT_MS=2000"))
    assert load(MOCK_DELAY_SCALE="100", QUOTE_TIMEOUT_MS="60000").mock_delay_scale == 100


def test_everything_that_is_wrong_is_told_at_once(refusal) -> None:
    sentences = refusal(PORT="abc", LOG_LEVEL="loud").splitlines()
    assert sorted(sentence.split("=")[0] for sentence in sentences) == ["LOG_LEVEL", "PORT"]


@pytest.mark.parametrize("value", ["INFO", "Info", "info"])
def test_a_level_is_taken_in_any_case(load, value: str) -> None:
    assert load(LOG_LEVEL=value).log_level == "info"


def test_an_empty_variable_is_no_variable(load) -> None:
    settings = load(PORT="", DATABASE_URL="", REDIS_URL="")
    assert (settings.port, settings.postgres, settings.redis) == (3000, None, None)


# --- .env ----------------------------------------------------------------------------------------


def test_a_file_sets_what_the_environment_does_not(load, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=4000\nHOST=0.0.0.0\n# a comment\n")
    settings = load(PORT="5000")
    assert (settings.port, settings.host) == (5000, "0.0.0.0")  # noqa: S104 - nothing listens


def test_an_unknown_name_in_the_file_is_refused(refusal, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PROT=4000\nAPI_SECRET=s3cret\n")
    sentences = refusal().splitlines()
    assert sentences == [
        f"{name} in .env is not a setting of order-engine; .env.example lists them all."
        for name in ("PROT", "API_SECRET")
    ]


def test_a_bad_value_in_the_file_is_refused_like_any(refusal, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=abc\n")
    assert refusal().startswith("PORT='abc' cannot be used: ")


def test_an_unknown_variable_of_the_environment_is_somebody_else_s(load) -> None:
    assert load(PROT="4000").port == 3000


def test_what_is_for_docker_compose_or_for_the_command_line_may_stand_in_the_file(load, tmp_path: Path) -> None:
    lines = ("COMPOSE_PROJECT_NAME=orders", "COMPOSE_FILE=a.yml", "ENGINE_URL=http://engine:3000", "ENGINE_API_KEY=k3y")
    (tmp_path / ".env").write_text("\n".join(lines))
    assert load().port == 3000
    client = load_client_settings()
    assert (client.engine_url, client.engine_api_key.get_secret_value()) == ("http://engine:3000", "k3y")


def test_the_command_line_minds_no_setting_but_its_own(load, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=abc\nMOCK_FAIL_RATE=2\nENGINE_URL=http://engine:3000\n")
    assert load_client_settings().engine == "http://engine:3000"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://127.0.0.1:3000"),
        ({"PORT": "4000"}, "http://127.0.0.1:4000"),
        ({"PORT": "4000", "ENGINE_URL": "http://engine:5000"}, "http://engine:5000"),
        ({"PORT": "0", "ENGINE_URL": "http://engine:5000"}, "http://engine:5000"),
        ({"HOST": "0.0.0.0", "PORT": "4000"}, "http://127.0.0.1:4000"),  # noqa: S104 - nothing is bound
        ({"HOST": "*"}, "http://127.0.0.1:3000"),
        ({"HOST": "::", "PORT": "4000"}, "http://[::1]:4000"),
        ({"HOST": "::1"}, "http://[::1]:3000"),
        ({"HOST": "192.0.2.7", "PORT": "80"}, "http://192.0.2.7:80"),
        ({"HOST": "trading.internal"}, "http://trading.internal:3000"),
    ],
    ids=str,
)
def test_the_command_line_talks_to_the_engine_at_host_and_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, str], url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOST", "PORT", "ENGINE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    assert load_client_settings().engine == url
    (tmp_path / ".env").unlink()
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert load_client_settings().engine == url


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"PORT": "abc"}, "PORT"), ({"PORT": "0"}, "ENGINE_URL"), ({"HOST": "http://x/y"}, "HOST")],
    ids=str,
)
def test_an_engine_that_host_and_port_cannot_name_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOST", "PORT", "ENGINE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=told):
        _ = load_client_settings().engine


@pytest.mark.parametrize("url", ["engine:3000", "ftp://engine", "http://", "nonsense"])
def test_an_engine_url_is_http(refusal, url: str) -> None:
    assert refusal(ENGINE_URL=url).startswith(
        "ENGINE_URL cannot be used: must begin with http:// or https:// and name a host"
    )


@pytest.mark.parametrize("line", ["HOST='127.0.0.1", 'HOST="127.0.0.1', "=3000"])
def test_a_line_of_the_file_that_cannot_be_read_is_refused(refusal, tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"PORT=4000\n{line}\n")
    assert refusal() == ".env cannot be used: line 2 is not NAME=value; a quote that is opened must be closed."


def test_a_file_that_cannot_be_read_is_refused(refusal, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"HOST=h\xf6st\n")
    assert refusal() == ".env cannot be used: it is not UTF-8 text."
    (tmp_path / ".env").write_text("HOST=host\n")
    (tmp_path / ".env").chmod(0)
    try:
        (tmp_path / ".env").read_text()
    except PermissionError:
        assert refusal() == ".env cannot be used: Permission denied."


@pytest.mark.parametrize("faults", ["drop=2", "flood=0.1", "drop"])
def test_faults_that_the_paper_chain_does_not_have_are_refused(load, faults: str) -> None:
    with pytest.raises(SettingsError, match=f"CHAIN_FAULTS='{faults}' cannot be used: "):
        chain_faults(load(CHAIN_FAULTS=faults))

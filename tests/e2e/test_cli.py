"""The command line as api.md has it: data on stdout, messages on stderr, and an exit code that says how it ended."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.conftest import EMBEDDED, Engine, Engines
from tests.e2e.conversation import HANG_S, Json, ended, events_of, is_gapless, order_of, place, reached
from tests.servers import PostgresServer, RedisServer, free_port
from tests.stack import embedded_stack

OK, USAGE, REJECTED, FAILED, TIMED_OUT, UNREACHABLE, UNKNOWN = 0, 2, 3, 4, 5, 6, 7
SUBMIT = ("submit", "market", "SOL", "USDC")
LIFE = ["pending", "routing", "building", "submitted", "confirmed"]

Run = subprocess.CompletedProcess[str]


class CommandLine:
    """`order-engine` with an environment of its own, in an empty directory."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        self.environment = inherited | {"PYTHONUTF8": "1"} | environment

    def start(self, *words: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "order_engine", *words],
            env=self.environment | environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str, **environment: str) -> Run:
        """Run to the end; no command may hang, and none may show a traceback."""
        process = self.start(*words, **environment)
        try:
            stdout, stderr = process.communicate(timeout=HANG_S)
        finally:
            process.kill()
            process.communicate()
        assert "Traceback" not in stderr + stdout, stderr
        return Run(words, process.returncode, stdout, stderr)

    def json(self, *words: str) -> list[Json]:
        """Run with --json, which must succeed; returns the documents, one a line."""
        run = self(*words, "--json")
        assert run.returncode == OK, run.stderr
        return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture
def engine(engines: Engines) -> Engine:
    return engines.get(EMBEDDED, MOCK_DELAY_SCALE="0")


@pytest.fixture
def slow(engines: Engines) -> Iterator[tuple[Engine, httpx2.Client]]:
    """An engine whose orders are pending for a second and submitted for ten."""
    running = engines.get(EMBEDDED, MOCK_DELAY_SCALE="5")
    with running.client() as http:
        yield running, http


@pytest.fixture
def command(tmp_path: Path, engine: Engine) -> CommandLine:
    return CommandLine(tmp_path, ENGINE_URL=engine.url)


@pytest.fixture
def bare(tmp_path: Path) -> CommandLine:
    """A command line that talks to no engine and starts its own in an empty directory."""
    return CommandLine(tmp_path, MOCK_DELAY_SCALE="0", DATA_DIR=str(tmp_path / "data"), HOST="127.0.0.1")


def refused(run: Run, code: int, *told: str) -> None:
    """Check that the command ended with the code and said why, on stderr alone."""
    assert (run.returncode, run.stdout) == (code, ""), run
    for words in told:
        assert words in run.stderr


# --- orders --------------------------------------------------------------------------------------


def test_submit_prints_the_order_and_get_prints_it_again(command: CommandLine, http: httpx2.Client) -> None:
    submitted = command(*SUBMIT, "1.5", "--slippage-bps", "75", "--client-order-id", "mine")
    assert (submitted.returncode, submitted.stderr) == (OK, "")
    order_id = submitted.stdout.split()[0]
    order = ended(http, order_id)
    shown = command("get", order_id)

    assert (order["amountIn"], order["slippageBps"], order["clientOrderId"]) == ("1.5", 75, "mine")
    assert (shown.returncode, shown.stderr, shown.stdout.count("\n")) == (OK, "", 4)
    for quote in order["quotes"]:
        why = "chosen" if quote["chosen"] else f"lost: {quote['lostBecause']}"
        assert any(quote["venue"] in line and why in line for line in shown.stdout.splitlines())
    assert all(word in shown.stdout for word in (order_id, "confirmed", "1.5 SOL", order["amountOut"]))
    assert all(word in shown.stdout for word in (order["txSignature"], "landed", "finalizedBlockHeight", "contextSlot"))
    assert command.json("attempts", order_id) == order["attempts"]
    assert command.json("get", order_id) == [order]
    assert command.json("get", "mine") == [order]


def test_submit_wait_follows_the_order_to_its_end(command: CommandLine, http: httpx2.Client) -> None:
    run = command(*SUBMIT, "1", "--wait")
    assert (run.returncode, run.stderr) == (OK, "")
    lines = run.stdout.splitlines()
    assert [line.split()[2] for line in lines] == LIFE
    [order_id] = {line.split()[3] for line in lines}
    order = ended(http, order_id)
    margin = events_of(http, order_id)[1]["data"]["marginBps"]
    assert lines[1].endswith(f"{order['venue']} wins by {margin} bps")
    assert lines[-1].endswith(f"got {order['amountOut']} on {order['venue']}")
    events = command.json(*SUBMIT, "1", "--wait")
    assert is_gapless(events)
    assert events == events_of(http, events[0]["orderId"])


def test_submit_json_is_the_order_resource_and_a_key_repeats_it(command: CommandLine) -> None:
    [order] = command.json(*SUBMIT, "1", "--idempotency-key", "cli")
    assert command.json(*SUBMIT, "1", "--idempotency-key", "cli") == [order]
    refused(command(*SUBMIT, "2", "--idempotency-key", "cli"), REJECTED, "idempotency key")


def test_list_prints_a_line_for_each_order_newest_first(command: CommandLine, http: httpx2.Client) -> None:
    placed = [place(http, tokenOut="JitoSOL")["orderId"] for _ in range(3)]
    for order_id in placed:
        ended(http, order_id)
    run = command("list", "--token-out", "JitoSOL")
    assert (run.returncode, run.stderr) == (OK, "")
    assert [line.split()[0] for line in run.stdout.splitlines()] == placed[::-1]
    page = command("list", "--token-out", "JitoSOL", "--limit", "2", "--json")
    assert [json.loads(line)["orderId"] for line in page.stdout.splitlines()] == placed[:0:-1]
    cursor = page.stderr.split()[-1]
    rest = command.json("list", "--token-out", "JitoSOL", "--cursor", cursor, "--status", "confirmed")
    assert [order["orderId"] for order in rest] == placed[:1]
    assert command.json("list", "--token-in", "JUP", "--token-out", "RAY") == []
    refused(command("list", "--status", "done"), REJECTED, "status")


def test_watch_shows_a_life_from_its_start_or_after_a_seq(command: CommandLine, http: httpx2.Client) -> None:
    order_id = ended(http, place(http)["orderId"])["orderId"]
    run = command("watch", order_id)
    assert (run.returncode, run.stderr) == (OK, "")
    assert [line.split()[2] for line in run.stdout.splitlines()] == LIFE
    assert command.json("watch", order_id, "--after", "3") == events_of(http, order_id)[3:]


def test_watch_of_an_order_whose_end_was_seen_ends_well_at_once(command: CommandLine, http: httpx2.Client) -> None:
    order = ended(http, place(http)["orderId"])
    run = command("watch", order["orderId"], "--after", str(order["seq"]), "--timeout", "8")
    assert (run.returncode, run.stdout) == (OK, "")


def test_cancel_takes_an_order_back_or_says_that_it_is_too_late(tmp_path: Path, engines: Engines) -> None:
    # One order at a time, which is submitted for 20 s: the next one is pending until then.
    engine = engines.get(EMBEDDED, MOCK_DELAY_SCALE="10", QUOTE_TIMEOUT_MS="10000", WORKER_CONCURRENCY="1")
    command = CommandLine(tmp_path, ENGINE_URL=engine.url)
    with engine.client() as http:
        signed = place(http)["orderId"]
        reached(http, signed, "submitted")
        waits = place(http)["orderId"]
    refused(command("cancel", signed), REJECTED, "signed")
    [cancelled] = command.json("cancel", waits)
    assert (cancelled["status"], cancelled["reason"]["code"]) == ("cancelled", "cancelled_by_client")
    assert command("watch", cancelled["orderId"]).returncode == FAILED


# --- exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [("nonsense",), ("get",), ("submit", "limit", "SOL", "USDC", "1"), ("demo", "--orders", "0")],
    ids=" ".join,
)
def test_a_wrong_command_is_a_2(bare: CommandLine, words: tuple[str, ...]) -> None:
    run = bare(*words)
    refused(run, USAGE)
    assert run.stderr


def test_what_the_engine_refuses_is_a_3_that_says_why(command: CommandLine) -> None:
    refused(command("submit", "market", "SOL", "DOGE", "1", "--wait"), REJECTED, "tokenOut")
    refused(command(*SUBMIT, "0", "--json"), REJECTED, "amountIn")
    for words in ("cancel", "watch"):
        refused(command(words, "01900000-0000-7000-8000-000000000000"), REJECTED, "no order")


def test_an_id_that_is_no_word_is_an_order_that_is_not_there(command: CommandLine) -> None:
    for name in ("../tokens", "?limit=1"):
        refused(command("get", name), REJECTED)


def test_an_order_that_fails_is_a_4(tmp_path: Path, engines: Engines) -> None:
    failing = engines.get(EMBEDDED, MOCK_DELAY_SCALE="0", MOCK_FAIL_RATE="1", RETRY_BACKOFF_MS="10")
    command = CommandLine(tmp_path, ENGINE_URL=failing.url)
    run = command(*SUBMIT, "1", "--wait", "--json")
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert (run.returncode, events[-1]["status"]) == (FAILED, "failed")
    assert [event["status"] for event in events].count("retrying") == 2
    shown = command("watch", events[0]["orderId"])
    assert shown.returncode == FAILED
    assert events[-1]["data"]["reason"]["message"] in shown.stdout


def test_waiting_too_long_is_a_5_and_the_order_goes_on(tmp_path: Path, slow: tuple[Engine, httpx2.Client]) -> None:
    engine, http = slow
    command = CommandLine(tmp_path, ENGINE_URL=engine.url)
    run = command(*SUBMIT, "1", "--wait", "--timeout", "0.5", "--json")
    assert run.returncode == TIMED_OUT
    assert run.stderr
    [order_id] = {json.loads(line)["orderId"] for line in run.stdout.splitlines()}
    assert order_of(http, order_id)["status"] in LIFE
    assert command("watch", order_id, "--timeout", "0.5").returncode == TIMED_OUT


@pytest.mark.parametrize("words", [(*SUBMIT, "1"), ("list",)], ids=lambda words: words[0])
def test_no_engine_is_a_6_that_names_the_address(bare: CommandLine, words: tuple[str, ...]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    refused(bare(*words, "--retry-for", "0", ENGINE_URL=url), UNREACHABLE, url)
    again = bare(*words, "--retry-for", "0.5", HOST="127.0.0.1", PORT=url.rsplit(":", 1)[1])
    refused(again, UNREACHABLE, url, "Trying again")
    assert ("was not placed" in again.stderr) is (words[0] == "submit")


def test_watching_no_engine_is_a_6(bare: CommandLine) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    refused(bare("watch", "x", "--timeout", "8", ENGINE_URL=url), UNREACHABLE, url)


# --- demo, migrate, up ---------------------------------------------------------------------------


def test_the_demo_shows_five_orders_from_pending_to_confirmed_and_ends(bare: CommandLine) -> None:
    run = bare("demo", "--once", PORT=str(free_port()))
    assert run.returncode == OK, run.stderr
    assert "5 of 5 orders confirmed" in run.stdout
    for number in range(1, 6):
        lines = [line.split() for line in run.stdout.splitlines() if line.startswith(f"#{number} ")]
        assert [next(word for word in line if word in LIFE) for line in lines] == LIFE


def test_the_demo_as_json_is_its_orders_and_nothing_else(bare: CommandLine) -> None:
    run = bare("demo", "--once", "--json", "--orders", "7", PORT=str(free_port()))
    orders = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == OK
    assert [order["status"] for order in orders] == ["confirmed"] * 7
    assert run.stderr


def test_a_demo_stays_up_and_says_where_to_look_next(bare: CommandLine) -> None:
    port = free_port()
    process = bare.start("demo", "--port", str(port), PYTHONUNBUFFERED="1")
    try:
        assert process.stdout is not None
        told = ""
        while "ORDER_ID" not in told:
            line = process.stdout.readline()
            assert line, told
            told += line
        assert f"http://127.0.0.1:{port}/docs" in told
        page = httpx2.get(f"http://127.0.0.1:{port}/v1/orders", trust_env=False).json()
        assert [order["status"] for order in page["orders"]] == ["confirmed"] * 5
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=HANG_S)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, stderr) == (OK, "")


def test_migrate_brings_either_store_up_to_date_and_may_be_repeated(
    bare: CommandLine, postgres: PostgresServer
) -> None:
    database_url = asyncio.run(postgres.create_database())
    prisma = database_url.replace("postgresql://", "postgres://", 1) + "?schema=public"
    for environment in ({}, {"DATABASE_URL": prisma}):
        run = bare("migrate", **environment)
        assert (run.returncode, run.stdout) == (OK, "")
        assert "up to date" in run.stderr
        again = bare("migrate", "--json", **environment)
        assert (again.returncode, json.loads(again.stdout)) == (OK, {"migrated": True})
    asyncio.run(postgres.drop_database(database_url))


@pytest.mark.parametrize(
    ("role", "settings", "told"),
    [
        ("up", {"MOCK_FAIL_RATE": "1.5"}, ("MOCK_FAIL_RATE", "1.5", "1")),
        ("demo", {"PORT": "http"}, ("PORT", "http", "integer")),
        ("worker", {"LOG_FORMAT": "xml"}, ("LOG_FORMAT", "xml", "console", "json")),
        ("migrate", {"DATABASE_URL": "mysql://user:secret@host/db"}, ("DATABASE_URL", "postgres")),
        ("api", {}, ("DATABASE_URL", "PostgreSQL", "order-engine up")),
        ("worker", {"DATABASE_URL": "sqlite:///orders.db"}, ("DATABASE_URL", "PostgreSQL", "order-engine up")),
        ("list", {"ENGINE_URL": "127.0.0.1:3000"}, ("ENGINE_URL", "http://")),
    ],
)
def test_a_bad_setting_stops_the_start_with_a_sentence_about_it(
    bare: CommandLine, role: str, settings: dict[str, Any], told: tuple[str, ...]
) -> None:
    run = bare(role, **settings)
    refused(run, USAGE, *told)
    assert "secret" not in run.stderr


def test_an_unknown_name_in_the_env_file_stops_the_start(bare: CommandLine) -> None:
    (bare.directory / ".env").write_text("MOCK_FAIL_RTE=0.5\n")
    refused(bare("up"), USAGE, "MOCK_FAIL_RTE", ".env.example")


def test_postgres_without_redis_stops_the_start(bare: CommandLine) -> None:
    refused(bare("api", DATABASE_URL="postgres://u:secret@127.0.0.1/x"), USAGE, "REDIS_URL")


def test_a_database_that_is_not_there_stops_the_start_with_a_sentence(
    bare: CommandLine, postgres: PostgresServer, redis: RedisServer
) -> None:
    elsewhere = f"postgresql://u:secret@127.0.0.1:{free_port()}/x"
    missing = postgres.url.rsplit("/", 1)[0] + "/no_such_database"
    for url in (elsewhere, missing):
        run = bare("migrate", DATABASE_URL=url, REDIS_URL=redis.url)
        refused(run, UNREACHABLE, "PostgreSQL")
        assert "secret" not in run.stderr


def test_a_port_in_use_and_a_data_dir_in_use_are_each_a_clear_sentence(bare: CommandLine, tmp_path: Path) -> None:
    with embedded_stack(tmp_path, MOCK_DELAY_SCALE="0") as stack:
        first = stack.spawn("up")
        refused(bare("up", PORT=str(first.port), DATA_DIR=str(tmp_path / "other")), USAGE, str(first.port), "in use")
        refused(bare("demo", "--port", str(first.port)), USAGE, str(first.port), "in use")
        refused(bare("up", PORT=str(free_port())), USAGE, "Another order-engine", str(tmp_path / "data"))
        assert httpx2.get(f"{first.url}/health", trust_env=False).json() == {"status": "ok"}
        first.terminate()
        assert first.process is not None
        assert first.process.returncode == OK


def test_up_says_where_it_listens_as_json_too(bare: CommandLine) -> None:
    process = bare.start("up", "--json", PORT="0")
    try:
        assert process.stderr is not None
        started = json.loads(process.stderr.readline())
        assert httpx2.get(f"{started['address']}/health", trust_env=False).json() == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=HANG_S)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, stdout) == (OK, "")

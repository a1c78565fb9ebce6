"""Reading with the commands: every order's events, lists with dates and as CSV, and the sentences of `up`."""

import csv
import io
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from order_engine.telling import show_as_csv, show_csv_header, words_of
from tests.e2e.conftest import EMBEDDED, Engine, Engines
from tests.e2e.conversation import HANG_S, ended, events_of, place
from tests.e2e.test_cli import OK, SUBMIT, TIMED_OUT, UNREACHABLE, USAGE, CommandLine, bare, refused
from tests.scripted import placed_order
from tests.servers import free_port

__all__ = ["bare"]


@pytest.fixture
def engine(engines: Engines) -> Engine:
    return engines.get(EMBEDDED, MOCK_DELAY_SCALE="0")


@pytest.fixture
def command(tmp_path: Path, engine: Engine) -> CommandLine:
    return CommandLine(tmp_path, ENGINE_URL=engine.url)


# --- watch --all ---------------------------------------------------------------------------------


def watched(command: CommandLine, words: tuple[str, ...], until: Callable[[str], bool]) -> tuple[list[str], str]:
    """Watch every order until a line is there, then press Ctrl+C; returns all lines, and stderr."""
    process = command.start("watch", "--all", *words)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while not until(lines[-1]):
            lines.append(process.stdout.readline())
            assert lines[-1]
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=HANG_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in stderr
    return lines, stderr


def test_watch_all_shows_every_order_and_ctrl_c_tells_where_to_go_on(command: CommandLine, http: httpx2.Client) -> None:
    first = ended(http, place(http)["orderId"])["orderId"]
    lines, stderr = watched(command, ("--after", "0"), lambda line: first in line and "confirmed" in line)
    assert [line.split()[2] for line in lines if first in line] == [it["status"] for it in events_of(http, first)]
    assert any(" wins by " in line for line in lines)

    second = ended(http, place(http)["orderId"])["orderId"]
    cursor = stderr.split("order-engine watch --all --after ")[1].split()[0]
    lines, stderr = watched(command, ("--after", cursor, "--json"), lambda line: second in line)
    seen = [event for line in lines for event in json.loads(line)["events"] if event["orderId"] == second]
    assert seen == events_of(http, second)[: len(seen)]
    assert seen[0]["seq"] == 1
    cursors = ["0", cursor, *(json.loads(line)["cursor"] for line in lines)]
    assert stderr.split("order-engine watch --all --after ")[1].split()[0] in cursors


def test_watch_all_ends_when_its_time_is_up(command: CommandLine) -> None:
    run = command("watch", "--all", "--timeout", "0.01")
    # A busy machine may not have opened the stream by then.
    assert run.returncode in (TIMED_OUT, UNREACHABLE)
    assert "The time is up" in run.stderr


def test_watch_takes_one_order_or_all_of_them(command: CommandLine) -> None:
    for words in ((), ("x", "--all"), ("x", "--after", "cursor"), ("x", "--timeout", "nan"), ("--retry-for", "-1")):
        refused(command("watch", *words), USAGE)


@pytest.mark.parametrize(
    ("status", "data", "words"),
    [
        ("pending", {}, ""),
        (
            "pending",
            {"type": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": "1.5", "slippageBps": 50},
            "market 1.5 SOL → USDC, slippage 50 bps",
        ),
        (
            "pending",
            {"tokenIn": "SOL", "tokenOut": "USDC", "amountIn": "1", "clientOrderId": "mine", "slippageBps": None},
            "market 1 SOL → USDC, client's id mine",
        ),
        ("routing", {"venue": None, "marginBps": None}, ""),
        ("routing", {"venue": "raydium", "marginBps": None}, "raydium wins"),
        ("routing", {"venue": "raydium", "marginBps": 0}, "raydium wins by 0 bps"),
        ("confirmed", {"amountOut": "3.0", "venue": "meteora"}, "got 3.0 on meteora"),
        ("failed", {"reason": {"code": "no_route", "message": "None."}}, "no_route: None."),
    ],
)
def test_an_event_says_itself_in_a_few_words(status: str, data: dict[str, Any], words: str) -> None:
    assert words_of({"status": status, "data": data}) == words


# --- list ----------------------------------------------------------------------------------------


def test_list_has_dates_all_pages_and_csv(command: CommandLine, http: httpx2.Client) -> None:
    orders = [ended(http, place(http, "1.10", clientOrderId=f"=dates{n}")["orderId"]) for n in range(2)]
    more = [place(http, tokenIn="USDC", tokenOut="SOL")["orderId"] for _ in range(105)]
    for order_id in more:
        ended(http, order_id)
    everything = command("list", "--all")
    lines = everything.stdout.splitlines()
    assert (everything.returncode, everything.stderr) == (OK, "")
    assert {line.split()[0] for line in lines} >= {*more}
    line = next(it for it in lines if orders[0]["orderId"] in it)
    assert line.split()[2:4] == [orders[0]["createdAt"], orders[0]["updatedAt"]]

    since = orders[0]["createdAt"]
    [row] = csv.DictReader(io.StringIO(command("list", "--csv", "--client-order-id", "=dates1").stdout))
    assert (row["orderId"], row["amountIn"], row["amountOut"]) == (orders[1]["orderId"], "1.1", orders[1]["amountOut"])
    assert (row["clientOrderId"], row["endedAt"]) == ("'=dates1", orders[1]["updatedAt"])
    assert command.json("list", "--client-order-id", "=dates1", "--ended-before", since) == []
    [again] = command.json("list", "--client-order-id", "=dates1", "--ended-after", since, "--created-after", since)
    assert again["orderId"] == orders[1]["orderId"]
    empty = command("list", "--csv", "--created-before", "1960-01-01T00:00:00Z", "--all")
    assert (empty.returncode, empty.stdout.count("\n")) == (OK, 1)
    for words in (("--csv", "--json"), ("--all", "--limit", "5")):
        refused(command("list", *words), USAGE, "Choose one")


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20A"],
)
def test_no_text_of_a_client_is_a_formula(capsys: pytest.CaptureFixture[str], text: str) -> None:
    show_csv_header()
    reason = {"code": "x", "message": text}
    show_as_csv(placed_order(clientOrderId=text, tokenIn=text, reason=reason, amountIn="1.50", status="failed"))
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""))
    for name in ("clientOrderId", "tokenIn", "reasonMessage"):
        assert row[name] == f"'{text}"
    assert (row["amountIn"], row["endedAt"]) == ("1.50", placed_order()["updatedAt"])


def test_separators_and_quotes_stay_in_their_cell(capsys: pytest.CaptureFixture[str]) -> None:
    show_csv_header()
    show_as_csv(placed_order(clientOrderId='a,"b";c\nd'))
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""))
    assert row["clientOrderId"] == 'a,"b";c\nd'


# --- up and PORT ---------------------------------------------------------------------------------


def test_up_says_where_everything_is_and_port_moves_the_commands_too(bare: CommandLine) -> None:
    port = free_port()
    (bare.directory / ".env").write_text(f"PORT={port}\n")
    process = bare.start("up", DATA_DIR="mine")
    try:
        assert process.stderr is not None
        told = ""
        while "follow one" not in told:
            line = process.stderr.readline()
            assert line, told
            told += line
        assert str(bare.directory / "mine") in told
        assert httpx2.get(f"http://127.0.0.1:{port}/docs", trust_env=False).is_success
        assert f"http://127.0.0.1:{port}/docs" in told
        placing = next(line for line in told.splitlines() if "place an order" in line)
        line = placing.split("place an order")[1]
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=bare.directory,
            env=bare.environment,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        assert done.returncode == OK, done.stderr
        assert done.stdout.splitlines()[-1].split()[2] == "confirmed"
        assert bare(*SUBMIT, "1", "--json").returncode == OK
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=HANG_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == OK

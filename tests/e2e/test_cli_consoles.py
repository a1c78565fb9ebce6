"""Consoles that are not UTF-8, closed or full: they never decide whether an order was placed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.e2e.conftest import EMBEDDED, Engine, Engines
from tests.e2e.conversation import HANG_S, ended, order_of, place
from tests.e2e.test_cli import OK, SUBMIT, USAGE, CommandLine

NOT_WRITTEN = 1
CONSOLES = {
    "C": {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1:strict"},
    "cp437": {"PYTHONIOENCODING": "cp437"},
}
PLACED = (*SUBMIT, "1")


@pytest.fixture
def engine(engines: Engines) -> Engine:
    return engines.get(EMBEDDED, MOCK_DELAY_SCALE="0")


@pytest.mark.parametrize("console", CONSOLES.values(), ids=CONSOLES)
def test_a_console_that_is_not_utf_8_replaces_what_it_cannot_show(
    tmp_path: Path, engine: Engine, http: httpx2.Client, console: dict[str, str]
) -> None:
    command = CommandLine(tmp_path, ENGINE_URL=engine.url, **{"PYTHONUTF8": "0", **console})
    order_id = ended(http, place(http)["orderId"])["orderId"]
    for words in (PLACED, (*PLACED, "--wait"), ("get", order_id), ("watch", order_id), ("list",), ("list", "--csv")):
        run = command(*words)
        assert run.returncode == OK, run.stderr
        assert run.stdout
    assert "1 SOL -> " in command("get", order_id).stdout


def _redirected(engine: Engine, directory: Path, shell: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a shell that does something to its streams."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}
    return subprocess.run(
        ["bash", "-c", f'"$0" -m order_engine "$@" {shell}', sys.executable, *words],
        env={**kept, "ENGINE_URL": engine.url},
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


@pytest.mark.parametrize("shell", [">&-", ">/dev/full", "<&- >&-", "| true; exit ${PIPESTATUS[0]}"])
def test_an_order_is_placed_and_followed_whatever_becomes_of_the_output(
    tmp_path: Path, engine: Engine, http: httpx2.Client, shell: str
) -> None:
    for words in (PLACED, (*PLACED, "--json"), (*PLACED, "--wait")):
        run = _redirected(engine, tmp_path, shell, *words)
        assert (run.returncode, "Traceback" in run.stderr) == (OK, False), run.stderr
        if "PIPESTATUS" not in shell:
            # The reader of a pipe may have closed it before or after the line.
            order_id = run.stderr.split()[-1]
            assert order_of(http, order_id)["orderId"] == order_id


def test_an_order_is_placed_when_nothing_can_be_said_at_all(
    tmp_path: Path, engine: Engine, http: httpx2.Client
) -> None:
    for shell in (">&- 2>&-", ">/dev/full 2>/dev/full"):
        run = _redirected(engine, tmp_path, shell, *PLACED, "--client-order-id", f"mute{len(shell)}")
        assert (run.returncode, run.stdout, run.stderr) == (OK, "", "")
        assert order_of(http, f"mute{len(shell)}")["amountIn"] == "1"


def test_a_list_that_cannot_be_written_is_a_1_with_a_sentence(tmp_path: Path, engine: Engine) -> None:
    for shell in (">&-", ">/dev/full"):
        for words in (("list",), ("list", "--csv"), ("get", "nobody")):
            run = _redirected(engine, tmp_path, shell, *words)
            if words[0] == "list":
                assert (run.returncode, "cannot be written" in run.stderr) == (NOT_WRITTEN, True), run
            assert "Traceback" not in run.stderr


def test_help_and_wrong_commands_need_no_console_either(tmp_path: Path, engine: Engine) -> None:
    for shell in (">/dev/full", "2>/dev/full", ">&- 2>&-"):
        for words, code in ((("--help",), OK), (("--version",), OK), (("submit",), USAGE)):
            run = _redirected(engine, tmp_path, shell, *words)
            assert (run.returncode, "Traceback" in run.stderr) == (code, False), (shell, words, run.stderr)


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path, engine: Engine, http: httpx2.Client) -> None:
    place(http)
    run = _redirected(engine, tmp_path, "| head -1; exit ${PIPESTATUS[0]}", "list")
    assert (run.returncode, run.stderr.replace("More: order-engine list --cursor", "")[:1]) in ((OK, ""), (OK, " "))


def test_a_reader_of_all_orders_that_has_enough_is_no_error(
    tmp_path: Path, engine: Engine, http: httpx2.Client
) -> None:
    place(http)
    run = _redirected(engine, tmp_path, "| head -1; exit ${PIPESTATUS[0]}", "watch", "--all", "--after", "0")
    assert (run.returncode, "Traceback" in run.stderr, "never retrieved" in run.stderr) == (OK, False, False), run
    run = _redirected(engine, tmp_path, ">/dev/full", "watch", "--all", "--after", "0")
    assert (run.returncode, "Traceback" in run.stderr) == (NOT_WRITTEN, False), run


# --- the demo ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shell", "console"), [("", {"PYTHONIOENCODING": "ascii"}), (">/dev/full", {}), (">&-", {})], ids=str
)
def test_a_demo_ends_well_on_any_console(tmp_path: Path, shell: str, console: dict[str, str]) -> None:
    command = f'"$0" -m order_engine demo --once --orders 1 --port 0 {shell}'
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}
    run = subprocess.run(
        ["bash", "-c", command, sys.executable],
        env={**kept, "MOCK_DELAY_SCALE": "0", "DATA_DIR": str(tmp_path), "PYTHONUTF8": "0", **console},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert (run.returncode, "Traceback" in run.stderr) == (OK, False), run.stderr


def test_a_demo_that_is_stopped_while_its_orders_run_says_so(tmp_path: Path) -> None:
    command = CommandLine(tmp_path, DATA_DIR=str(tmp_path), MOCK_DELAY_SCALE="2", PYTHONUNBUFFERED="1")
    process = command.start("demo", "--port", "0")
    try:
        assert process.stdout is not None
        while "pending" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=HANG_S)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, "Traceback" in stderr, "The demo is stopped" in stderr) == (130, False, True)


def test_json_is_ascii_on_any_console(tmp_path: Path, engine: Engine, http: httpx2.Client) -> None:
    order = place(http, metadata={"ü": "→"})
    command = CommandLine(tmp_path, ENGINE_URL=engine.url, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert json.loads(command("get", order["orderId"], "--json").stdout)["metadata"] == {"ü": "→"}

"""The commands when replies are lost, or when a signal ends them: never a second order, never a lost key."""

import asyncio
import re
import shlex
import signal
from pathlib import Path

import pytest

from tests.e2e.conversation import HANG_S
from tests.e2e.test_cli import OK, REJECTED, SUBMIT, UNKNOWN, UNREACHABLE, CommandLine, Run
from tests.scripted import ACCEPTED, ORDER_ID, ScriptedServer, answer, hang, placed_order, problem, reset

pytestmark = pytest.mark.asyncio
REPEAT = re.compile(r"may have been placed; repeat with --idempotency-key (\S+)")


async def run(server: ScriptedServer, directory: Path, *words: str) -> Run:
    return await asyncio.to_thread(CommandLine(directory, ENGINE_URL=server.url), *words)


async def stopped(server: ScriptedServer, directory: Path, number: int, requests: int, *words: str) -> Run:
    """Run the command, and send it the signal after so many requests to the server."""
    process = CommandLine(directory, ENGINE_URL=server.url).start(*words)
    try:
        async with asyncio.timeout(HANG_S):
            while len(server.received) < requests:
                server.arrived.clear()
                await server.arrived.wait()
        process.send_signal(number)
        stdout, stderr = await asyncio.to_thread(process.communicate, timeout=HANG_S)
    finally:
        process.kill()
        process.communicate()
    assert "Traceback" not in stderr
    return Run(words, process.returncode, stdout, stderr)


async def test_a_lost_reply_is_no_second_order_and_the_key_is_told_at_once(tmp_path: Path) -> None:
    async with ScriptedServer([reset, ACCEPTED]) as server:
        done = await run(server, tmp_path, *SUBMIT, "1")
    assert (done.returncode, done.stdout.split()[0]) == (OK, ORDER_ID)
    [key] = {it.key for it in server.received}
    assert str(key) in done.stderr


@pytest.mark.parametrize("key", [None, "it's;mine"])
async def test_giving_up_is_a_7_whose_sentence_repeats_the_same_order(tmp_path: Path, key: str | None) -> None:
    given = [] if key is None else ["--idempotency-key", key]
    async with ScriptedServer([reset]) as server:
        done = await run(server, tmp_path, *SUBMIT, "1", "--retry-for", "0.2", *given)
        assert (done.returncode, done.stdout) == (UNKNOWN, "")
        told = REPEAT.search(done.stderr)
        assert told is not None, done.stderr
        await run(server, tmp_path, *SUBMIT, "1", "--retry-for", "0", "--idempotency-key", *shlex.split(told[1]))
    assert len({it.key for it in server.received}) == 1
    assert key is None or server.received[0].key == key


async def test_refusals_that_are_certain_and_those_that_are_not(tmp_path: Path) -> None:
    async with ScriptedServer([problem(422, "unknown_token")]) as server:
        assert (await run(server, tmp_path, *SUBMIT, "1")).returncode == REJECTED
        empty = await run(server, tmp_path, *SUBMIT, "1", "--idempotency-key", "")
        assert (empty.returncode, "Idempotency-Key" in empty.stderr) == (REJECTED, True)
        assert len(server.received) == 1
    async with ScriptedServer([reset, problem(422, "unknown_token")]) as server:
        unsure = await run(server, tmp_path, *SUBMIT, "1")
    assert (unsure.returncode, bool(REPEAT.search(unsure.stderr))) == (UNKNOWN, True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_a_signal_during_submit_tells_the_key(tmp_path: Path, number: int, code: int) -> None:
    async with ScriptedServer([hang]) as server:
        done = await stopped(server, tmp_path, number, 1, *SUBMIT, "1", "--wait")
    told = REPEAT.search(done.stderr)
    assert (done.returncode, done.stdout) == (code, "")
    assert told is not None
    assert told[1] == server.received[0].key


async def test_a_signal_while_the_end_is_waited_for_says_that_the_order_is_placed(tmp_path: Path) -> None:
    async with ScriptedServer([ACCEPTED, hang]) as server:
        done = await stopped(server, tmp_path, signal.SIGINT, 2, *SUBMIT, "1", "--wait")
    assert done.returncode == 130
    assert f"is placed and goes on; follow it with: order-engine watch {ORDER_ID}" in done.stderr


async def test_a_stream_that_is_refused_does_not_refuse_the_order(tmp_path: Path) -> None:
    async with ScriptedServer([ACCEPTED, problem(403, "forbidden")]) as server:
        done = await run(server, tmp_path, *SUBMIT, "1", "--wait")
    assert done.returncode == UNREACHABLE
    assert "is placed and goes on" in done.stderr


async def test_a_cancellation_is_repeated_and_a_signal_says_that_it_may_have_happened(tmp_path: Path) -> None:
    cancelled = answer(200, placed_order(status="cancelled", reason={"code": "c", "message": "Cancelled."}))
    async with ScriptedServer([reset, cancelled]) as server:
        done = await run(server, tmp_path, "cancel", ORDER_ID)
        assert (done.returncode, [it.method for it in server.received]) == (OK, ["DELETE"] * 2)
    async with ScriptedServer([hang]) as server:
        done = await stopped(server, tmp_path, signal.SIGINT, 1, "cancel", ORDER_ID)
    assert (done.returncode, "may have been cancelled" in done.stderr) == (130, True)


async def test_texts_of_others_do_not_move_the_cursor(tmp_path: Path) -> None:
    evil = {"code": "x", "message": "\x1b[2Jgone\r\n\x9b0m\u202e\u2028"}
    async with ScriptedServer([answer(200, placed_order(status="failed", reason=evil))]) as server:
        done = await run(server, tmp_path, "get", ORDER_ID)
    assert done.returncode == OK
    assert not {"\x1b", "\r", "\x9b", "\u202e", "\u2028"} & {*done.stdout}
    assert done.stdout.count("\n") == 1

"""Runs a command against an engine: errors become exit codes, and a signal prints the command's last sentence."""

import asyncio
import contextlib
import math
import os
import shlex
import signal
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Annotated, Any, Final

from cyclopts import Parameter

from order_engine.client import (
    EngineClient,
    EngineClientError,
    EngineRefusedError,
    OrderUnknownError,
    UnusableAddressError,
)
from order_engine.settings import load_client_settings
from order_engine.terminal import REJECTED, SIGNALLED, TIMED_OUT, UNKNOWN, UNREACHABLE, print_error, usage

_STDERR: Final = 2


def _seconds(_kind: Any, value: Any) -> None:
    if value is not None and not (0 <= value < math.inf):
        message = "must be 0 or more seconds"
        raise ValueError(message)


Seconds = Annotated[float, Parameter(validator=_seconds)]
RetryFor = Annotated[
    float | None,
    Parameter(
        name="--retry-for",
        validator=_seconds,
        show_default=False,
        help="How long to try again while the engine does not answer, in seconds; 0 tries once. "
        "Without it 60 s, but 20 s if no engine has answered yet, and 130 s at a rate limit.",
    ),
]


class Parting:
    """The last sentence of a command that is ended from outside, by a signal or a lost engine.

    `is_placed`: an order is placed, so the engine's later errors do not refuse it.
    """

    def __init__(self) -> None:
        """Start without a sentence."""
        self.sentence = ""
        self.is_placed = False


def may_be_placed(key: str) -> str:
    """Say how to find out safely whether an order was placed."""
    return f"The order may have been placed; repeat with --idempotency-key {shlex.quote(key)}"


def converse(
    talk_to: Callable[[EngineClient], Coroutine[Any, Any, int]],
    retry_for_s: float | None,
    parting: Parting | None = None,
    on_lost: Callable[[str], None] = print_error,
) -> int:
    """Talk to the engine that the settings name; returns the exit code."""
    settings = load_client_settings()
    last = parting or Parting()

    async def run() -> int:
        async with EngineClient(
            settings.engine, settings.engine_api_key.get_secret_value(), retry_for_s=retry_for_s, on_lost=on_lost
        ) as client:
            try:
                return await talk_to(client)
            except TimeoutError:
                print_error(f"The time is up. {last.sentence}".rstrip())
                return TIMED_OUT if client.has_answered else UNREACHABLE

    with says_when_stopped(last):
        try:
            return asyncio.run(run())
        except EngineClientError as error:
            return _end(error, last)


def exit_code_of(error: EngineClientError) -> int:
    """Print the error, and return its exit code."""
    if isinstance(error, UnusableAddressError):
        return usage(str(error))
    if isinstance(error, EngineRefusedError):
        print_error(f"Refused: {error}")
        return REJECTED
    if isinstance(error, OrderUnknownError):
        print_error(error.why)
        print_error(may_be_placed(error.idempotency_key or ""))
        return UNKNOWN
    print_error(str(error))
    return UNREACHABLE


def _end(error: EngineClientError, parting: Parting) -> int:
    code = exit_code_of(error)
    if parting.is_placed:
        print_error(parting.sentence)
        return UNREACHABLE
    return code


@contextlib.contextmanager
def says_when_stopped(parting: Parting) -> Iterator[None]:
    """End the process at once on Ctrl+C, SIGTERM and SIGHUP, with the parting sentence on stderr.

    The exit code is 128 plus the signal's number. A signal that is ignored, as under nohup, stays ignored.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        # Not through sys.stderr and without cleanup, because the signal may have interrupted any statement.
        with contextlib.suppress(OSError):
            if parting.sentence:
                os.write(_STDERR, f"\n{parting.sentence}\n".encode("ascii", "backslashreplace"))
        os._exit(SIGNALLED + number)

    numbers = [it for it in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(it) != signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

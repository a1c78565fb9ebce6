"""The terminal: data on stdout, sentences on stderr, and an exit code. An error of a stream gives no traceback."""

import codecs
import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

OK: Final = 0
ENDED: Final = 1
NOT_WRITTEN: Final = 1
USAGE: Final = 2
REJECTED: Final = 3
FAILED: Final = 4
TIMED_OUT: Final = 5
UNREACHABLE: Final = 6
UNKNOWN: Final = 7
# The number of the signal that ended the command is added: 130 is Ctrl+C.
SIGNALLED: Final = 128

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, one document a line.")]
Csv = Annotated[bool, Parameter(name="--csv", negative="", help="Print CSV with a header, amounts as exact text.")]
AllOrders = Annotated[bool, Parameter(name="--all", negative="", help="Every order.")]

_ERRORS: Final = "order-engine-console"
_PLAIN: Final = {"→": "->", "…": "...", "—": "-", "–": "-", "’": "'"}  # noqa: RUF001 - these are replaced
_STDERR: Final = 2
_ASIDE_S: Final = 0.5


class OutputLostError(Exception):
    """Stdout takes no more text: its reader is gone, its disk is full, or it is closed. Later lines are discarded."""

    def __init__(self, reason: str, *, is_reader_gone: bool) -> None:
        """`is_reader_gone`: as in `order-engine list | head -1`, which is not an error."""
        super().__init__(f"The output cannot be written ({reason}).")
        self.is_reader_gone = is_reader_gone


def prepare_console() -> None:
    """Make both streams take any text, and keep later files and sockets off their file descriptors."""
    for _ in range(_STDERR + 1):
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > _STDERR:
            os.close(descriptor)
            break
    codecs.register_error(_ERRORS, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def print_line(line: str) -> None:
    """Write data to stdout, at once. Raises OutputLostError."""
    print_text(f"{_without_controls(line)}\n")


def print_text(text: str) -> None:
    """Write data to stdout as it is, at once. Raises OutputLostError."""
    # Without a descriptor 1, Python has no stdout.
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - it stays open for later lines
        raise OutputLostError("it is closed", is_reader_gone=False)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        discard(sys.stdout)
        reason = getattr(error, "strerror", None) or "it is closed"
        raise OutputLostError(reason, is_reader_gone=isinstance(error, BrokenPipeError)) from error


def discard(stream: Any) -> None:
    """Throw away the stream's buffer and everything that is written to it from now on."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def print_error(line: str) -> None:
    """Write a sentence to stderr, if it can be written."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"{_without_controls(line)}\n")
            sys.stderr.flush()
    except (OSError, ValueError):
        discard(sys.stderr)


def print_aside(lines: Sequence[str]) -> None:
    """Write sentences to stderr, and wait at most 0.5 s, because a pipe without a reader would block for ever."""
    text = "".join(f"{_without_controls(line)}\n" for line in lines).encode("utf-8", "backslashreplace")

    def write() -> None:
        with contextlib.suppress(OSError):
            os.write(_STDERR, text)

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    writing.join(_ASIDE_S)


@contextlib.contextmanager
def output_is_secondary(done: str) -> Iterator[None]:
    """Continue if the output cannot be written; the sentence `done` then tells the result on stderr."""
    try:
        yield
    except OutputLostError as error:
        print_error(f"{error} {done}")


def usage(sentence: str) -> int:
    """Print the error of a wrong command; returns its exit code."""
    print_error(sentence)
    return USAGE


class SturdyOutput:
    """Stdout or stderr for a console that draws; it discards text that cannot be written."""

    def __init__(self, stream: Any) -> None:
        """`stream` is None where the descriptor was closed."""
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "ascii"

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream is not None and bool(self._stream.isatty())

    def fileno(self) -> int:
        """Return the stream's descriptor, for the terminal's width."""
        if self._stream is None:
            raise io.UnsupportedOperation
        return int(self._stream.fileno())

    def write(self, text: str) -> int:
        """Write the text, or discard it."""
        with self._or_discard():
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with self._or_discard():
            if self._stream is not None:
                self._stream.flush()

    @contextlib.contextmanager
    def _or_discard(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            discard(self._stream)


def _without_controls(line: str) -> str:
    """Return the line with escapes for control characters, because text from outside must not move the cursor."""
    return "".join(it if it.isprintable() else it.encode("unicode_escape").decode() for it in line)


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = (_PLAIN.get(it) or it.encode("ascii", "backslashreplace").decode() for it in text)
    return "".join(plain), error.end

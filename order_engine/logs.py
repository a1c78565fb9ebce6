"""Log lines for stderr: a separate thread writes them, so that no line delays or stops the engine."""

import atexit
import logging
import os
import queue
import threading
from typing import Any, Final, TextIO, cast

import structlog

from order_engine.settings import Settings

# If stderr's reader is slower than the engine, further lines are dropped; the engine never waits.
_MAX_WAITING_LINES: Final = 10_000
_FLUSH_S: Final = 0.5
_STDERR: Final = 2


class LogStream:
    """A text stream that never raises and never waits: a line that cannot be written is dropped, and counted.

    A full disk, a pipe whose reader closed it or stopped reading, or a closed stderr must not end a worker, keep a
    process from ending, or delay an order.
    """

    def __init__(self, descriptor: int) -> None:
        """`descriptor`: the open file for the lines, without Python's own buffer, which would be flushed at exit."""
        self._descriptor = descriptor
        self._lines: queue.Queue[str | threading.Event] = queue.Queue(_MAX_WAITING_LINES)
        self.dropped = 0
        threading.Thread(target=self._write_forever, name="log", daemon=True).start()

    def write(self, text: str) -> int:
        """Hand a line over; see the class."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self.dropped += 1
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread flushes each line."""

    def drain(self, timeout_s: float = _FLUSH_S) -> None:
        """Wait until the lines so far are written, but not for longer than `timeout_s`."""
        written = threading.Event()
        try:
            self._lines.put_nowait(written)
        except queue.Full:
            return
        written.wait(timeout_s)

    def _write_forever(self) -> None:
        while True:
            line = self._lines.get()
            if isinstance(line, threading.Event):
                line.set()
            else:
                self._write(line)

    def _write(self, line: str) -> None:
        lost = self.dropped
        told = f"{lost} log lines could not be written and are lost.\n" if lost else ""
        left = (told + line).encode("utf-8", "backslashreplace")
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            self.dropped += 1
        else:
            self.dropped -= lost


def configure_logging(settings: Settings) -> None:
    """Send log lines to stderr, in the shape and from the level that the settings ask for."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    stream = LogStream(_STDERR)
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        # Plain tracebacks: rich's print local variables, and take minutes for a deep recursion.
        else structlog.dev.ConsoleRenderer(
            colors=os.isatty(_STDERR),
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.EventRenamer("message") if settings.log_format == "json" else _as_is,
    ]
    if settings.log_format == "json":
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", stream)),
        cache_logger_on_first_use=True,
    )
    # Libraries' lines, which come through the standard library, have the same shape.
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    atexit.register(stream.drain)


def _as_is(_logger: Any, _name: str, event: Any) -> Any:
    return event

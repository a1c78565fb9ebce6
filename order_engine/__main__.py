"""`order-engine` and `python -m order_engine` are the command line."""

import os
import signal
import sys
from types import FrameType
from typing import Final

_BY_SIGTERM: Final = 128 + signal.SIGTERM


def main() -> None:
    """Run the command line; Ctrl+C ends it quietly, also while it is still being read from disk."""
    # The first process of a container (PID 1) ignores a signal that nobody handles, and loading takes a second.
    signal.signal(signal.SIGTERM, _end)
    _open_standard_streams()
    try:
        from order_engine.cli import main as run_command_line  # noqa: PLC0415 - this is what Ctrl+C may interrupt

        run_command_line()
    except KeyboardInterrupt:
        sys.exit(130)


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream was closed; else the next file, a database, would take its place."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Takes the lowest free number: this one.
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r"))


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(_BY_SIGTERM)


if __name__ == "__main__":
    main()

"""`order-engine` and `python -m order_engine` are the command line."""

import signal
import sys
from types import FrameType
from typing import Final

_BY_SIGTERM: Final = 128 + signal.SIGTERM


def main() -> None:
    """Run the command line; Ctrl+C ends it without a traceback, also while its modules are still loading."""
    # As PID 1 of a container, the process ignores a signal without a handler, and loading takes a second.
    signal.signal(signal.SIGTERM, _end)
    try:
        from order_engine.cli import main as run_command_line  # noqa: PLC0415 - Ctrl+C may interrupt this import

        run_command_line()
    except KeyboardInterrupt:
        sys.exit(130)


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(_BY_SIGTERM)


if __name__ == "__main__":
    main()

"""`order-engine` and `python -m order_engine` are the command line."""

import sys


def main() -> None:
    """Run the command line; Ctrl+C ends it quietly, also while it is still being read from disk."""
    try:
        from order_engine.cli import main as run_command_line  # noqa: PLC0415 - this is what Ctrl+C may interrupt

        run_command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

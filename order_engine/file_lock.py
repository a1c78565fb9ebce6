"""One process per file: a lock file next to it, and permissions for its owner only."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from order_engine.settings import SettingsError


def lock_file(stack: contextlib.AsyncExitStack, path: Path) -> None:
    """Keep a second engine off the file until the stack closes; raises SettingsError.

    Two engines on one file would not see each other's events, because each has its own bus. The file
    and its directory are created for their owner only, under any umask.
    """
    try:
        _make_directory(path.parent)
        lock = stack.enter_context(_open_private(path.with_name(f"{path.name}.lock")))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Do this before SQLite opens the file: closing a file drops the locks of its process. SQLite gives
        # its other files the same mode.
        _open_private(path).close()
    except BlockingIOError as error:
        message = f"Another order-engine is running on {path}; stop it, or set DATA_DIR to another directory."
        raise SettingsError(message) from error
    except OSError as error:
        message = f"The directory {path.parent} cannot be used ({error.strerror}); set DATA_DIR to another directory."
        raise SettingsError(message) from error


def make_private(path: Path) -> None:
    """Create the file, if there is none, for its owner only; raises SettingsError."""
    try:
        _make_directory(path.parent)
        if not path.exists():
            _open_private(path).close()
    except OSError as error:
        message = f"The directory {path.parent} cannot be used ({error.strerror}); set DATA_DIR to another directory."
        raise SettingsError(message) from error


def _make_directory(path: Path) -> None:
    for directory in (*reversed(path.parents), path):
        directory.mkdir(mode=0o700, exist_ok=True)


def _open_private(path: Path) -> BinaryIO:
    """Open or create a file that only its owner may read, under any umask."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "r+b")

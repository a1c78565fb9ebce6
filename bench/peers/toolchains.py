"""Installs and builds a peer's code: once for each lock file, outside of the repository.

A toolchain has three methods: `missing()` returns why it cannot be used here, or None; `prepare()` installs and builds
the code if it is missing and returns its directory; `command()` returns the command that runs a role of the peer.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

if os.name == "posix":
    import fcntl

HERE = Path(__file__).parent
LEAST_NODE = 20
_READY = ".ready"


class Toolchain(Protocol):
    """Installs, builds and runs one peer's code."""

    def missing(self) -> str | None: ...

    def prepare(self) -> Path: ...

    def command(self, home: Path, role: str, port: int) -> list[str]: ...


def cache() -> Path:
    """Return the directory of installed and built code; it may be removed at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "order-engine" / "peers"


@dataclass(frozen=True)
class NodeToolchain:
    """A TypeScript package: `npm ci` for each lock file, `tsc` for each state of its sources."""

    source: Path

    def missing(self) -> str | None:
        if shutil.which("npm") is None or (node := shutil.which("node")) is None:
            return "no Node.js"
        said = subprocess.run([node, "--version"], check=False, capture_output=True, text=True).stdout.strip()
        if not said.startswith("v") or int(said[1:].split(".")[0]) < LEAST_NODE:
            return f"Node.js {said or 'does not run'}, {LEAST_NODE} is needed"
        return None

    def prepare(self) -> Path:
        packaged = [self.source / name for name in ("package.json", "package-lock.json", ".npmrc")]
        installed = cache() / f"{self.source.name}-{_digest(packaged)}"

        def install() -> None:
            for path in packaged:
                shutil.copy(path, installed)
            _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], installed)

        _once(installed, install)
        sources = [self.source / "tsconfig.json", *sorted((self.source / "src").glob("*.ts"))]
        # Beside node_modules: Node and tsc look for packages in every parent directory.
        built = installed / f"build-{_digest(sources)}"

        def build() -> None:
            shutil.copy(self.source / "tsconfig.json", built)
            shutil.copytree(self.source / "src", built / "src", dirs_exist_ok=True)
            _run([str(installed / "node_modules" / ".bin" / "tsc"), "-p", "."], built)

        _once(built, build)
        return built

    def command(self, home: Path, role: str, port: int) -> list[str]:  # noqa: ARG002 - it is in PORT
        return ["node", str(home / "dist" / f"{role}.js")]


@dataclass(frozen=True)
class PythonToolchain:
    """A directory of Python modules: a virtual environment for each lock file; the modules run where they are."""

    source: Path

    def missing(self) -> str | None:
        return None

    def prepare(self) -> Path:
        lock = self.source / "requirements.txt"
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        environment = cache() / f"{self.source.name}-{version}-{_digest([lock])}"
        python = environment / "bin" / "python"

        def install() -> None:
            _run([sys.executable, "-m", "venv", str(environment)], environment)
            uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
            if uv is not None:
                _run(
                    [uv, "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(lock)], environment
                )
            else:
                _run([str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)], environment)

        _once(environment, install)
        return environment

    def command(self, home: Path, role: str, port: int) -> list[str]:
        python = str(home / "bin" / "python")
        if role != "api":
            return [python, str(self.source / f"{role}.py")]
        options = ("--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "warning")
        return [python, "-m", "uvicorn", "--app-dir", str(self.source), "api:app", *options]


def _digest(paths: list[Path]) -> str:
    """Return a short digest of the files' names and contents."""
    sha = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        sha.update(f"{path.name} {len(content)}\n".encode())
        sha.update(content)
    return sha.hexdigest()[:16]


def _once(directory: Path, make: Callable[[], None]) -> None:
    """Make the directory unless it is finished; of several processes one makes it and the others wait."""
    if (directory / _READY).exists():
        return
    with _locked(directory.parent / f"{directory.name}.lock"):
        if (directory / _READY).exists():
            return
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        make()
        (directory / _READY).touch()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if os.name == "posix":
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: list[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")

"""py-spy during a measurement: where each of this engine's processes spends its time."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def profiler() -> str:
    """Return the path of py-spy; exits with an error if it is missing."""
    found = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if found is None:
        sys.exit("--profile needs py-spy: pip install py-spy")
    return found


@contextmanager
def profiled(pids: Mapping[str, int], directory: Path | None) -> Iterator[None]:
    """Write a flame graph of each process for as long as the context lasts; without a directory, none."""
    recording = []
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        for name, pid in pids.items():
            command = [profiler(), "record", "--rate", "250", "--output", directory / f"{name}.svg", "--pid", str(pid)]
            recording.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    try:
        yield
    finally:
        for process in recording:
            process.send_signal(signal.SIGINT)
        for process in recording:
            process.wait()

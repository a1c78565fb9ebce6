"""Runs schemathesis, with all of its checks, against an engine."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2

from tests.fuzz.unsayable import UNCALLED, UNCHECKED

ROOT: Final = Path(__file__).parent.parent.parent
_START: Final = "from schemathesis.cli import schemathesis; schemathesis()"
_GENERATED: Final = re.compile(r"Test cases:\s+(\d+) generated")
_OPERATIONS: Final = re.compile(r"Tested: (\d+)")


@dataclass
class Found:
    """The result of runs: the number of cases, and how often each rule of UNSAYABLE refused one."""

    cases: int = 0
    operations: int = 0
    unsayable: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def make_admin(url: str) -> str:
    """Make a key with every scope, while the engine has none; returns it."""
    body = {"account": "default", "scopes": ["read", "trade", "admin"]}
    made = httpx2.post(f"{url}/v1/keys", json=body, trust_env=False).raise_for_status()
    key: str = made.json()["key"]
    return key


def fuzz(url: str, key: str, directory: Path, examples: int, seed: int, timeout_s: float) -> Found:
    """Send generated requests to every operation, `examples` fuzzed ones to each; returns the result."""
    found = directory / "found.json"
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}
    hooks = {"SCHEMATHESIS_HOOKS": "tests.fuzz.checks", "FUZZ_FOUND": str(found), "PYTHONPATH": str(ROOT)}
    command = [
        *(
            sys.executable,
            "-c",
            _START,
            "run",
            f"{url}/openapi.json",
            "--no-color",
            "--continue-on-failure",
            "--output-sanitize",
            "false",
        ),
        *("--header", f"Authorization: Bearer {key}"),
        *("--checks", "all", "--exclude-checks", ",".join(UNCHECKED), "--seed", str(seed)),
        *("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", str(examples)),
        *(word for path in UNCALLED for word in ("--exclude-path", path)),
    ]
    run = subprocess.run(
        command, env=kept | hooks, cwd=directory, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    cases, operations = (pattern.search(run.stdout) for pattern in (_GENERATED, _OPERATIONS))
    if cases is None or operations is None:
        raise RuntimeError(run.stdout + run.stderr)
    failures = [f"seed {seed}\n{run.stdout}"] if run.returncode else []
    return Found(int(cases[1]), int(operations[1]), Counter(json.loads(found.read_text())), failures)

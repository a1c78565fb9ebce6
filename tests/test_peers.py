"""The benchmark's peers are pinned, name no package index, and say why they cannot run."""

import json
from pathlib import Path

import pytest

from bench.peers.peer import PEERS
from bench.peers.toolchains import HERE


def test_the_lock_of_the_node_packages_names_no_registry() -> None:
    packages = json.loads((HERE / "fastify" / "package-lock.json").read_text())["packages"]
    installed = {name: package for name, package in packages.items() if name}
    assert all("integrity" in package for package in installed.values())
    assert [name for name, package in installed.items() if "resolved" in package] == []


def test_the_lock_of_the_python_packages_has_hashes_and_names_no_index() -> None:
    lines = (HERE / "python_queue" / "requirements.txt").read_text().splitlines()
    pins = [number for number, line in enumerate(lines) if "==" in line and not line.startswith((" ", "#"))]
    assert pins
    assert all("--hash=sha256:" in lines[number + 1] for number in pins)
    assert not [line for line in lines if "://" in line]


def test_without_node_a_peer_says_why_it_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    reasons = {name: peer.available() for name, peer in PEERS.items()}
    assert reasons.pop("python-queue") is None
    assert set(reasons.values()) == {"no Node.js"}


def test_an_old_node_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("node", "npm"):
        (tmp_path / name).write_text("#!/bin/sh\necho v18.20.4\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert PEERS["fastify"].available() == "Node.js v18.20.4, 20 is needed"

"""The files of the engine: only the user that runs it may read them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from order_engine.settings import load_settings
from order_engine.wiring import migrate, open_chain_app


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in [directory, *directory.rglob("*")]}


@pytest.mark.asyncio
@pytest.mark.usefixtures("umask")
async def test_a_data_directory_and_its_files_are_the_owners_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings = load_settings(data_dir=data / "demo")
    await migrate(settings)
    async with open_chain_app(settings):
        found = modes(data)
    assert {"order-engine.sqlite3", "paper-chain.sqlite3", "paper-chain.sqlite3-wal"} <= found.keys()
    directories = {"data", "demo"}
    assert {found.pop(name) for name in directories} == {0o700}
    assert set(found.values()) == {0o600}


@pytest.mark.asyncio
async def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    await migrate(settings)
    (tmp_path / "order-engine.sqlite3").chmod(0o644)
    await migrate(settings)
    assert (tmp_path / "order-engine.sqlite3").stat().st_mode & 0o777 == 0o600

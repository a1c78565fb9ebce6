"""Former tracebacks of the command line: each is now a sentence, or nothing."""

from pathlib import Path

import pytest

from tests.e2e.conversation import HANG_S
from tests.e2e.test_cli import OK, USAGE, CommandLine, refused
from tests.servers import PostgresServer, RedisServer


@pytest.fixture
def bare(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path, MOCK_DELAY_SCALE="0")


def test_a_data_dir_that_is_no_directory_is_a_clear_sentence(bare: CommandLine) -> None:
    (bare.directory / "file").write_text("")
    for place_ in ("file", "file/below"):
        refused(bare("up", PORT="0", DATA_DIR=place_), USAGE, "DATA_DIR", place_)


def test_an_option_that_nothing_knows_is_a_clear_sentence(
    bare: CommandLine, postgres: PostgresServer, redis: RedisServer
) -> None:
    url = f"{postgres.url}?colour=blue"
    refused(bare("migrate", DATABASE_URL=url, REDIS_URL=redis.url), USAGE, "DATABASE_URL", "colour")


def test_a_ctrl_c_while_the_command_is_read_from_disk_is_quiet(bare: CommandLine) -> None:
    (bare.directory / "cyclopts.py").write_text("raise KeyboardInterrupt")
    refused(bare("list"), 130)


def test_a_demo_whose_reader_goes_away_ends_well(bare: CommandLine) -> None:
    process = bare.start("demo", "--once", "--port", "0")
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
        process.wait(HANG_S)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert (process.returncode, told) == (OK, "")

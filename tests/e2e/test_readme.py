"""The commands of the README and of docs/operation.md, as a newcomer would run them."""

import asyncio
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import PostgresServer, RedisServer, free_port
from tests.stack import embedded_stack

ROOT = Path(__file__).parent.parent.parent


def _blocks(document: str, language: str) -> list[str]:
    """Return the blocks of a document in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


SHELL = _blocks("README.md", "sh")
PYTHON = _blocks("README.md", "python")
OPERATION = _blocks("docs/operation.md", "sh")
HANG_S = 120

# Replaces curl on a machine without it: it knows only the options that the README's commands use.
CURL = """#!{python}
import sys, urllib.request
words, headers, data, url = sys.argv[1:], {{}}, None, None
while words:
    word = words.pop(0)
    if word == "-H":
        name, value = words.pop(0).split(": ", 1)
        headers[name] = value
    elif word == "-d":
        data = words.pop(0).encode()
    elif word == "--retry":
        words.pop(0)
    elif word not in ("-s", "--retry-connrefused"):
        url = word
with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as answer:
    sys.stdout.write(answer.read().decode())
"""


def _environment(directory: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    if shutil.which("curl") is None:
        program = directory / "curl"
        program.write_text(CURL.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        kept["PATH"] = f"{directory}{os.pathsep}{kept['PATH']}"
    return {**kept, "DATA_DIR": str(directory / "data"), **more}


def test_the_documents_have_the_commands_that_are_run_here() -> None:
    assert SHELL[0] == "make demo\n"
    assert SHELL[1] == "make test\n"
    assert SHELL[2] == "make setup\n.venv/bin/order-engine up\n"
    assert len(SHELL) == 5
    assert len(PYTHON) == 1
    assert OPERATION[0].startswith("docker run ")
    assert len(OPERATION) == 1


def test_make_demo_ends_with_five_confirmed_orders(tmp_path: Path) -> None:
    command = ["make", "demo", "ARGS=--once"]
    environment = _environment(tmp_path, PORT=str(free_port()))
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("confirmed  got") == 5
    assert "5 of 5 orders confirmed." in done.stdout


def test_make_demo_stays_up_and_says_where_to_look_next(tmp_path: Path) -> None:
    environment = _environment(tmp_path, PORT=str(free_port()), MOCK_DELAY_SCALE="0")
    with subprocess.Popen(
        ["make", "demo"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as demo:
        try:
            assert demo.stdout is not None
            lines = []
            while not lines or "follow one" not in lines[-1]:
                lines.append(demo.stdout.readline())
                assert lines[-1], "".join(lines)
            url = re.search(r"http://\S+?(?=/docs)", "".join(lines))
            assert url is not None
            told = next(line for line in lines if " submit market " in line)
            words = told.split("place an order")[1]
            done = subprocess.run(
                ["bash", "-c", words], cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False
            )
            assert done.returncode == 0, done.stderr
            os.killpg(demo.pid, signal.SIGINT)
            demo.wait(HANG_S)
        finally:
            if demo.poll() is None:
                os.killpg(demo.pid, signal.SIGKILL)


@pytest.mark.parametrize("block", [*SHELL[3:5], *PYTHON])
def test_what_the_readme_says_to_do_with_a_running_engine_works(block: str, tmp_path: Path) -> None:
    with embedded_stack(tmp_path, MOCK_DELAY_SCALE="0.1") as stack:
        up = stack.spawn("up")
        text = block.replace("127.0.0.1:3000", f"127.0.0.1:{up.port}")
        command = [sys.executable, "-c", text] if "import asyncio" in text else ["bash", "-euc", text]
        environment = _environment(tmp_path, ENGINE_URL=up.url)
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False
        )
        assert done.returncode == 0, done.stderr
        assert re.search("confirmed|pending", done.stdout)


def test_the_block_for_several_machines_works_on_servers_that_are_there(
    tmp_path: Path, postgres: PostgresServer, redis: RedisServer
) -> None:
    database_url = asyncio.run(postgres.create_database())
    ours = {"DATABASE_URL": database_url, "REDIS_URL": redis.url, "CHAIN_URL": f"http://127.0.0.1:{free_port()}"}
    lines = [line for line in OPERATION[0].splitlines() if not line.startswith("docker run ")]
    named = {line.split("=")[0].removeprefix("export ") for line in lines if line.startswith("export ")}
    assert named == ours.keys()
    block = "\n".join(line for line in lines if not line.startswith("export "))
    environment = _environment(
        tmp_path, **ours, PORT=str(free_port()), MOCK_DELAY_SCALE="0.1", REDIS_KEY_PREFIX=f"readme-{tmp_path.name}"
    )
    output = tmp_path / "output"
    with output.open("w") as file:
        shell = subprocess.Popen(
            ["bash", "-euc", block], cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        assert shell.wait(HANG_S) == 0, output.read_text()
        assert re.search(r"confirmed .* got \S+ on ", output.read_text())
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
    asyncio.run(postgres.drop_database(database_url))

"""The commands about the chain: `chain` itself, and the attempts that it has not proven yet."""

import asyncio
import json
import signal
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from tests.e2e.conftest import Engine
from tests.e2e.conversation import HANG_S, place, reached
from tests.e2e.test_cli import OK, USAGE, CommandLine, bare, refused, slow
from tests.servers import free_port

__all__ = ["bare", "slow"]


def test_several_machines_need_one_chain(bare: CommandLine) -> None:
    for role in ("api", "worker", "up"):
        run = bare(role, DATABASE_URL="postgres://localhost:1/orders", REDIS_URL="redis://localhost:1/0")
        refused(run, USAGE, "CHAIN_URL must be set", "order-engine chain")


def test_a_chain_listens_where_chain_url_says_and_its_ledger_has_one_owner(bare: CommandLine) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    chain = bare.start("chain", CHAIN_URL=url)
    try:
        asyncio.run(answers(f"{url}/health"))
        refused(bare("chain", CHAIN_URL=url), USAGE, "CHAIN_URL", "cannot be listened on")
        refused(bare("chain", CHAIN_URL=f"http://127.0.0.1:{free_port()}"), USAGE, "Another order-engine is running")
        request = {"jsonrpc": "2.0", "id": 1, "method": "getHealth"}
        assert httpx2.post(url, json=request, trust_env=False).json()["result"] == "ok"
        chain.send_signal(signal.SIGTERM)
        _, stderr = chain.communicate(timeout=HANG_S)
    finally:
        chain.kill()
        chain.communicate()
    assert (chain.returncode, "Traceback" in stderr) == (OK, False)


def test_a_chain_serves_http_alone_and_port_0_is_any_free_one(bare: CommandLine) -> None:
    refused(bare("chain", CHAIN_URL="https://127.0.0.1:8899"), USAGE, "CHAIN_URL", "http:// only")
    chain = bare.start("chain", CHAIN_URL="http://127.0.0.1:0", LOG_FORMAT="json")
    try:
        assert chain.stderr is not None
        address = json.loads(chain.stderr.readline())["address"]
        assert urlsplit(address).port not in {0, 80}
        asyncio.run(answers(f"{address}/health"))
    finally:
        chain.kill()
        chain.communicate()


async def answers(url: str) -> None:
    """Return when something answers there."""
    async with asyncio.timeout(HANG_S), httpx2.AsyncClient(trust_env=False) as client:
        while True:
            try:
                if (await client.get(url)).is_success:
                    return
            except httpx2.TransportError:
                await asyncio.sleep(0.05)


def test_attempts_are_those_of_one_order_or_all_that_are_in_doubt(
    tmp_path: Path, slow: tuple[Engine, httpx2.Client]
) -> None:
    engine, http = slow
    command = CommandLine(tmp_path, ENGINE_URL=engine.url)
    refused(command("attempts"), USAGE, "--in-doubt")
    refused(command("attempts", "an-id", "--in-doubt"), USAGE, "--in-doubt")
    signed = place(http)["orderId"]
    reached(http, signed, "submitted")
    [attempt] = command.json("attempts", signed)
    assert (attempt["outcome"], attempt["evidence"]) == (None, None)
    shown = [it for it in command.json("attempts", "--in-doubt") if it["orderId"] == signed]
    assert [it["txSignature"] for it in shown] == [attempt["txSignature"]]
    assert shown[0]["blocksToExpiry"] > 100
    run = command("attempts", "--in-doubt")
    assert "blocks to expiry" in run.stdout
    assert "finalized block height" in run.stderr

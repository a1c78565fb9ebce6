"""Chain: the client of Solana's JSON-RPC, against the paper chain in process and over HTTP."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from solders.keypair import Keypair
from solders.signature import Signature

from order_engine.chain.client import SolanaChain
from order_engine.chain.rpc import HttpTransport
from order_engine.domain.errors import ChainUnavailable, ForeignFeePayer, VenueFailed
from order_engine.paper.faults import ChainFaults
from order_engine.paper.network import SLOT_MS
from order_engine.paper.server import build_chain_app
from order_engine.ports.chain import (
    MAX_SIGNATURES_IN_A_CALL,
    SLIPPAGE_ERROR,
    Commitment,
    SwapResult,
    UnsignedTransaction,
)
from order_engine.serve import address_of, listen, serving
from tests.unit.chains import LONG_AFTER_MS, ChainWorld, Genesis, message_of, open_chain_world, sign
from tests.unit.samples import SOL, USDC

pytestmark = pytest.mark.asyncio


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve an application on a free port and return its address."""
    with listen("127.0.0.1", 0) as listener:
        async with serving(app, listener):
            yield address_of(listener)


@pytest.fixture
def faults() -> ChainFaults:
    return ChainFaults()


@pytest_asyncio.fixture(params=["in process", "http"])
async def world(request: pytest.FixtureRequest, faults: ChainFaults) -> AsyncIterator[ChainWorld]:
    """A chain and its client; the client knows only the node's answers."""
    async with open_chain_world(faults=faults) as opened:
        if request.param == "in process":
            yield opened
            return
        async with served(build_chain_app(opened.node)) as url:
            opened.chain = SolanaChain(HttpTransport(url), opened.clock, Genesis().keep)
            yield opened
            await opened.chain.close()


# --- signing -------------------------------------------------------------------------------------


async def test_a_signature_is_known_before_anything_is_sent(world: ChainWorld) -> None:
    signed = await world.signed()
    assert str(Signature.from_string(signed.signature)) == signed.signature
    assert await world.status(signed.signature) is None
    await world.send(signed.raw)
    assert await world.status(signed.signature) is not None


async def test_a_signature_is_of_the_message_and_the_blockhash(world: ChainWorld) -> None:
    one, again, other = await world.signed(), await world.signed(), await world.signed("order 2")
    assert one == again
    assert one.signature != other.signature
    world.clock.ms += LONG_AFTER_MS
    assert (await world.signed()).signature != one.signature


async def test_a_blockhash_is_good_for_150_blocks_and_is_used_for_a_second(world: ChainWorld) -> None:
    world.clock.ms += 10 * SLOT_MS
    first = await world.chain.latest_blockhash()
    point = await world.chain.finalized_point()
    assert first.last_valid_block_height > point.block_height + 150
    world.clock.ms += 999
    assert await world.chain.latest_blockhash() == first
    world.clock.ms += 1
    assert (await world.chain.latest_blockhash()).last_valid_block_height > first.last_valid_block_height


async def test_a_route_that_another_wallet_pays_for_is_refused(world: ChainWorld) -> None:
    blockhash = await world.chain.latest_blockhash()
    with pytest.raises(ForeignFeePayer):
        await sign(UnsignedTransaction(message_of("order 1", Keypair()), ()), blockhash)


async def test_both_kinds_of_message_are_signed_and_land(world: ChainWorld) -> None:
    blockhash = await world.chain.latest_blockhash()
    for is_legacy in (False, True):
        message = message_of(f"order {is_legacy}", is_legacy=is_legacy)
        signed = await sign(UnsignedTransaction(message, ()), blockhash)
        await world.send(signed.raw)
        assert await world.status(signed.signature) is not None
    with pytest.raises((VenueFailed, ValueError)):
        await sign(UnsignedTransaction(b"\xff" * 10, ()), blockhash)


# --- the outcome of a transaction ----------------------------------------------------------------


async def test_a_swap_that_landed_tells_what_it_gave(world: ChainWorld) -> None:
    for memo, token in (("order 1", USDC), ("native order", SOL)):
        signed = await world.signed(memo)
        await world.send(signed.raw)
        status = await world.status(signed.signature)
        assert status is not None
        assert status.error is None
        assert status.commitment is Commitment.CONFIRMED
        [entry] = await world.ledger.find([signed.signature])
        assert await world.swap_result(signed.signature, token) == SwapResult(entry.amount_out, None)


async def test_a_swap_that_reverted_tells_why(world: ChainWorld) -> None:
    signed = await world.signed("refused order")
    await world.send(signed.raw)
    status = await world.status(signed.signature)
    assert status is not None
    assert json.loads(status.error or "") == {"InstructionError": [0, {"Custom": 6001}]}
    result = await world.swap_result(signed.signature, USDC)
    assert result is not None
    assert result.amount_out is None
    assert SLIPPAGE_ERROR in (result.error or "")


async def test_what_did_not_land_has_no_result(world: ChainWorld) -> None:
    assert await world.swap_result((await world.signed()).signature, USDC) is None


async def test_many_travel_together_and_each_gets_its_own_answer(world: ChainWorld) -> None:
    signed = [await world.signed(f"order {number}") for number in range(MAX_SIGNATURES_IN_A_CALL)]
    sent = signed[:200]
    bad = asyncio.ensure_future(world.send(b"nonsense"))
    await asyncio.gather(*(world.send(it.raw) for it in sent))
    with pytest.raises(ChainUnavailable):
        await bad
    answer = await world.chain.signature_statuses([it.signature for it in signed])
    assert {*answer.statuses} == {it.signature for it in sent}
    results = await asyncio.gather(*(world.swap_result(it.signature, USDC) for it in signed))
    assert [it is not None for it in results] == [True] * 200 + [False] * 56


async def test_more_than_a_call_may_ask_for_is_refused(world: ChainWorld) -> None:
    with pytest.raises(ChainUnavailable, match="Too many inputs"):
        await world.chain.signature_statuses(["signature"] * (MAX_SIGNATURES_IN_A_CALL + 1))


async def test_the_history_knows_what_the_cache_has_forgotten(world: ChainWorld) -> None:
    signed = await world.signed()
    await world.send(signed.raw)
    world.clock.ms += LONG_AFTER_MS
    status = await world.status(signed.signature)
    assert status is not None
    assert status.commitment is Commitment.FINALIZED
    request = {"jsonrpc": "2.0", "id": 1, "method": "getSignatureStatuses", "params": [[signed.signature]]}
    assert json.loads(await world.node.answer(json.dumps(request).encode()))["result"]["value"] == [None]


# --- nodes that fail -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["error", "rate_limit"])
async def test_a_node_that_fails_tells_nothing(world: ChainWorld, faults: ChainFaults, fault: str) -> None:
    signed = await world.signed()
    setattr(faults, fault, 1.0)
    for asked in (
        world.send(signed.raw),
        world.chain.finalized_point(),
        world.chain.signature_statuses([signed.signature]),
        world.swap_result(signed.signature, USDC),
    ):
        with pytest.raises(ChainUnavailable):
            await asked
    setattr(faults, fault, 0.0)
    await world.send(signed.raw)
    assert await world.status(signed.signature) is not None


async def test_a_lost_reply_says_nothing_about_what_was_done(
    world: ChainWorld, faults: ChainFaults, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("chain.rpc", "paper.local"):
        monkeypatch.setattr(f"order_engine.{module}._TIMEOUT_S", 0.2)
    signed, other = await world.signed(), await world.signed("order 2")
    faults.lost_reply = 1.0
    with pytest.raises(ChainUnavailable):
        await world.send(signed.raw)
    faults.lost_reply, faults.timeout = 0.0, 1.0
    with pytest.raises(ChainUnavailable):
        await world.send(other.raw)
    faults.timeout = 0.0
    assert await world.status(signed.signature) is not None
    assert await world.status(other.signature) is None


async def test_a_node_that_lags_says_so_in_its_context_slot(world: ChainWorld, faults: ChainFaults) -> None:
    world.clock.ms += LONG_AFTER_MS
    signed = await world.signed()
    faults.lag = 1.0
    answer = await world.chain.signature_statuses([])
    assert world.slot_now() - 250 < answer.context_slot < world.slot_now()
    await world.send(signed.raw)
    assert await world.status(signed.signature) is None


# --- the answers, as other clients of Solana read them -------------------------------------------


async def test_the_node_answers_as_solanas_do() -> None:
    async with open_chain_world() as world, served(build_chain_app(world.node)) as url:
        world.clock.ms += 400 * SLOT_MS
        signed = await world.signed()
        raw = base64.b64encode(signed.raw).decode()
        async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:

            async def ask(method: str, *params: Any) -> Any:
                request = {"jsonrpc": "2.0", "id": "x", "method": method, "params": [*params]}
                answer = (await client.post("/", json=request)).json()
                assert (answer["jsonrpc"], answer["id"]) == ("2.0", "x")
                return answer.get("result", answer.get("error"))

            confirmed = {"encoding": "base64", "preflightCommitment": "confirmed"}
            assert await ask("sendTransaction", raw, confirmed) == signed.signature
            again = await ask("sendTransaction", raw, {"encoding": "base64"})
            assert (again["code"], again["data"]["err"]) == (-32002, "AlreadyProcessed")
            quiet = {"encoding": "base64", "skipPreflight": True}
            assert await ask("sendTransaction", raw, quiet) == signed.signature
            info = await ask("getEpochInfo", {"commitment": "finalized"})
            assert info["blockHeight"] == await ask("getBlockHeight") < info["absoluteSlot"] == await ask("getSlot")
            latest = await ask("getLatestBlockhash", {"commitment": "processed"})
            assert latest["value"]["lastValidBlockHeight"] > info["blockHeight"] + 150
            for commitment, is_valid in (("processed", True), ("finalized", False)):
                asked = await ask("isBlockhashValid", latest["value"]["blockhash"], {"commitment": commitment})
                assert asked["value"] is is_valid
            assert (await ask("isBlockhashValid", str(world.network.blockhash_of(1))))["value"] is False
            transaction = await ask(
                "getTransaction", signed.signature, {"commitment": "confirmed", "encoding": "base64"}
            )
            assert transaction["transaction"] == [raw, "base64"]
            assert transaction["meta"]["err"] is None
            assert await ask("getHealth") == "ok"
            batch = [{"jsonrpc": "2.0", "id": it, "method": "getSlot"} for it in range(3)]
            assert [it["id"] for it in (await client.post("/", json=batch)).json()] == [0, 1, 2]
            assert (await client.get("/health")).json() == {"status": "ok"}

"""The paper chain's JSON-RPC, request by request: it refuses the same requests as Solana's nodes, with their codes."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from solders.hash import Hash
from solders.instruction import CompiledInstruction
from solders.message import from_bytes_versioned
from solders.transaction import VersionedTransaction

from order_engine.paper.market import PaperMarket
from order_engine.paper.network import FIRST_SLOT
from order_engine.paper.server import build_chain_app
from order_engine.ports.chain import Commitment
from tests.contracts.test_chains import served
from tests.unit.chains import WALLET, ChainWorld, message_of, open_chain_world

pytestmark = pytest.mark.asyncio

SIGNATURE = "1" * 64
BLOCKHASH = "1" * 32
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
QUIET = {"encoding": "base64", "skipPreflight": True}


@pytest_asyncio.fixture
async def world() -> AsyncIterator[ChainWorld]:
    async with open_chain_world() as opened:
        yield opened


async def ask(world: ChainWorld, method: str, *params: Any) -> Any:
    """Return the result, or the error."""
    request = {"jsonrpc": "2.0", "id": 7, "method": method, "params": [*params]}
    answer = json.loads(await world.node.answer(json.dumps(request).encode()))
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", 7)
    return answer.get("result", answer.get("error"))


async def code_of(world: ChainWorld, method: str, *params: Any) -> int:
    return int((await ask(world, method, *params))["code"])


def in_base58(raw: bytes) -> str:
    number, text = int.from_bytes(raw), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + text


def in_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# --- requests ------------------------------------------------------------------------------------

UNREADABLE: dict[str, tuple[bytes, int]] = {
    "half": (b"{", -32700),
    "nothing": (b"", -32700),
    "bad UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"get\xff"}', -32700),
    "deep": (b"[" * 40_000, -32700),
    "an empty batch": (b"[]", -32600),
    "a number": (b"7", -32600),
    "no method": (b'{"jsonrpc":"2.0","id":1}', -32600),
    "a method that is a number": (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600),
    "no version": (b'{"id":1,"method":"getSlot"}', -32600),
    "another version": (b'{"jsonrpc":"1.0","id":1,"method":"getSlot"}', -32600),
    "an id that is an object": (b'{"jsonrpc":"2.0","id":{},"method":"getSlot"}', -32600),
    "an id past every number": (b'{"jsonrpc":"2.0","id":99999999999999999999,"method":"getSlot"}', -32600),
    "no such method": (b'{"jsonrpc":"2.0","id":1,"method":"getNothing"}', -32601),
    "parameters by name": (b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":{"commitment":"final"}}', -32602),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_what_is_no_request_is_refused_with_its_code(world: ChainWorld, name: str) -> None:
    body, code = UNREADABLE[name]
    answer = json.loads(await world.node.answer(body))
    assert answer["error"]["code"] == code


async def test_a_notification_gets_no_answer(world: ChainWorld) -> None:
    signed = await world.signed()
    send = {"jsonrpc": "2.0", "method": "sendTransaction", "params": [in_base64(signed.raw), QUIET]}
    slot = {"jsonrpc": "2.0", "method": "getSlot"}
    assert await world.node.answer(json.dumps(send).encode()) == b""
    assert await world.node.answer(json.dumps([slot, slot]).encode()) == b""
    assert await world.status(signed.signature) is None
    mixed = json.loads(
        await world.node.answer(json.dumps([slot, {**slot, "id": "a"}, 7, {**slot, "id": None}]).encode())
    )
    assert [(it["id"], "result" in it) for it in mixed] == [("a", True), (None, False), (None, True)]


WRONG: list[tuple[str, list[Any]]] = [
    ("getSignatureStatuses", []),
    ("getSignatureStatuses", ["x"]),
    ("getSignatureStatuses", [[1]]),
    ("getSignatureStatuses", [["zzz0"]]),
    ("getSignatureStatuses", [[SIGNATURE, "x"]]),
    ("getSignatureStatuses", [[SIGNATURE], 7]),
    ("getSignatureStatuses", [[SIGNATURE], {"searchTransactionHistory": 1}]),
    ("getTransaction", []),
    ("getTransaction", ["x", {"encoding": "base64"}]),
    ("getTransaction", [SIGNATURE]),
    ("getTransaction", [SIGNATURE, {"encoding": "jsonParsed"}]),
    ("getTransaction", [SIGNATURE, {"encoding": 7}]),
    ("getTransaction", [SIGNATURE, {"encoding": "base64", "commitment": "processed"}]),
    ("isBlockhashValid", []),
    ("isBlockhashValid", ["zzz0"]),
    ("isBlockhashValid", [7]),
    ("isBlockhashValid", [BLOCKHASH, {"commitment": "certain"}]),
    ("getEpochInfo", [{"commitment": "certain"}]),
    ("getEpochInfo", [{"commitment": ["finalized"]}]),
    ("getSlot", [{"minContextSlot": "1"}]),
    ("getSlot", [{"minContextSlot": -1}]),
    ("sendTransaction", []),
    ("sendTransaction", [7]),
    ("sendTransaction", ["0OIl"]),
    ("sendTransaction", ["é", {"encoding": "base64"}]),
    ("sendTransaction", ["AAAA", {"encoding": "base64"}]),
    ("sendTransaction", ["A" * 1_648, {"encoding": "base64"}]),
    ("sendTransaction", ["z" * 40_000]),
    ("sendTransaction", ["AAAA", {"encoding": "json"}]),
    ("sendTransaction", ["AAAA", {"encoding": {}}]),
]


@pytest.mark.parametrize(("method", "params"), WRONG)
async def test_parameters_that_cannot_be_are_refused(world: ChainWorld, method: str, params: list[Any]) -> None:
    assert await code_of(world, method, *params) == -32602


@pytest.mark.parametrize("option", [{"preflightCommitment": "bogus"}, {"skipPreflight": "yes"}])
async def test_options_of_a_transaction_that_cannot_be_are_refused(world: ChainWorld, option: dict[str, Any]) -> None:
    signed = await world.signed()
    assert await code_of(world, "sendTransaction", in_base64(signed.raw), {**QUIET, **option}) == -32602
    assert await world.status(signed.signature) is None


async def test_null_stands_for_what_is_not_named(world: ChainWorld) -> None:
    finalized = FIRST_SLOT - 32
    nulls = {"commitment": None, "minContextSlot": None}
    for params in ([], [None], [{}], [nulls]):
        assert await ask(world, "getSlot", *params) == finalized
    signed = await world.signed()
    text = {"encoding": None, "skipPreflight": True, "preflightCommitment": None}
    assert await ask(world, "sendTransaction", in_base58(signed.raw), text) == signed.signature


# --- slots ---------------------------------------------------------------------------------------


async def test_a_node_that_has_not_come_far_enough_says_how_far_it_is(world: ChainWorld) -> None:
    signed = await world.signed()
    for commitment in Commitment:
        slot = world.network.slot_at(world.network.now_ms(), commitment)
        there, not_yet = ({"commitment": commitment, "minContextSlot": it} for it in (slot, slot + 1))
        for method in ("getSlot", "getBlockHeight", "getEpochInfo", "getLatestBlockhash"):
            assert "contextSlot" not in str(await ask(world, method, there))
            error = await ask(world, method, not_yet)
            assert (error["code"], error["data"]) == (-32016, {"contextSlot": slot})
        error = await ask(world, "isBlockhashValid", BLOCKHASH, not_yet)
        assert (error["code"], error["data"]) == (-32016, {"contextSlot": slot})
    error = await ask(world, "sendTransaction", in_base64(signed.raw), {**QUIET, "minContextSlot": 10**6})
    assert (error["code"], error["data"]) == (-32016, {"contextSlot": FIRST_SLOT})
    assert await ask(world, "getFirstAvailableBlock") == 0


async def test_a_new_chains_blockhash_is_valid_at_once(world: ChainWorld) -> None:
    for commitment in Commitment:
        at = {"commitment": commitment}
        blockhash = (await ask(world, "getLatestBlockhash", at))["value"]["blockhash"]
        answer = await ask(world, "isBlockhashValid", blockhash, at)
        assert answer["value"] is True
        assert answer["context"]["slot"] == await ask(world, "getSlot", at)
    message = from_bytes_versioned(message_of("order 1"))
    finalized = Hash.from_string((await ask(world, "getLatestBlockhash"))["value"]["blockhash"])
    message = type(message)(
        message.header, message.account_keys, finalized, message.instructions, message.address_table_lookups
    )
    transaction = VersionedTransaction(message, [WALLET.keypair])
    sent = await ask(world, "sendTransaction", in_base58(bytes(transaction)))
    assert sent == str(transaction.signatures[0])
    assert await world.status(sent) is not None


# --- transactions --------------------------------------------------------------------------------


@pytest.mark.parametrize(("encode", "name"), [(in_base58, "base58"), (in_base64, "base64")])
async def test_transactions_travel_in_both_encodings(
    world: ChainWorld, encode: Callable[[bytes], str], name: str
) -> None:
    signed = await world.signed()
    text = encode(signed.raw)
    assert await ask(world, "sendTransaction", text, {"encoding": name, "skipPreflight": True}) == signed.signature
    told = await ask(world, "getTransaction", signed.signature, {"encoding": name, "commitment": "confirmed"})
    assert told["transaction"] == [text, name]


async def test_preflight_refuses_what_will_not_execute_and_without_it_everything_is_taken(world: ChainWorld) -> None:
    forged = await world.signed("forged order")
    forged_raw = forged.raw.replace(b"forged", b"signed")
    refused = await world.signed("refused order")
    checked = {"encoding": "base64", "preflightCommitment": "processed"}
    assert await code_of(world, "sendTransaction", in_base64(forged_raw), checked) == -32003
    error = await ask(world, "sendTransaction", in_base64(refused.raw), checked)
    assert (error["code"], error["data"]["err"]) == (-32002, {"InstructionError": [0, {"Custom": 6001}]})
    error = await ask(world, "sendTransaction", in_base64(refused.raw), {"encoding": "base64"})
    assert (error["code"], error["data"]["err"]) == (-32002, "BlockhashNotFound"), "as of the finalized block"
    assert await ask(world, "sendTransaction", in_base64(forged_raw), QUIET) == forged.signature
    assert await world.status(forged.signature) is None


INSTRUCTIONS = [
    b"\xff",
    b"{}",
    b'{"memo":"1","attempt":1,"venue":"nowhere","amount_in":1,%s}',
    b'{"memo":"1","attempt":1,"venue":"raydium","amount_in":1e30,%s}',
]
PAIR = b"""
    "token_in": "SOL", "token_in_decimals": 9, "token_out": "USDC", "token_out_mint": "EPj", "token_out_decimals": 6
"""


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
async def test_an_instruction_that_no_program_can_read_harms_nobody(instruction: bytes) -> None:
    instruction = instruction.replace(b"%s", PAIR)
    async with open_chain_world() as world:
        world.network._program = PaperMarket(1, {"SOL": "150", "USDC": "1"}).execute
        signed = await world.signed()
        message = from_bytes_versioned(message_of("?"))
        compiled = message.instructions[0]
        swap = CompiledInstruction(compiled.program_id_index, instruction, bytes(compiled.accounts))
        blockhash = Hash.from_string((await world.chain.latest_blockhash()).blockhash)
        message = type(message)(message.header, message.account_keys, blockhash, [swap], [])
        transaction = VersionedTransaction(message, [WALLET.keypair])
        signature, text = str(transaction.signatures[0]), in_base64(bytes(transaction))
        checked = {"encoding": "base64", "preflightCommitment": "processed"}
        error = await ask(world, "sendTransaction", text, checked)
        assert (error["code"], error["data"]["err"]) == (-32002, {"InstructionError": [0, "InvalidInstructionData"]})
        assert await ask(world, "sendTransaction", text, QUIET) == signature
        assert await world.status(signature) is None
        assert signed.signature != signature


# --- over HTTP -----------------------------------------------------------------------------------


async def test_a_body_that_is_too_long_is_refused_however_it_comes(world: ChainWorld) -> None:
    request = b'{"jsonrpc":"2.0","id":1,"method":"getHealth"}'

    async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(body), 10_000):
            yield body[at : at + 10_000]

    async with served(build_chain_app(world.node)) as url, httpx2.AsyncClient(trust_env=False) as client:
        for most, status in ((50 * 1024, 200), (50 * 1024 + 1, 413), (10**6, 413)):
            body = request.ljust(most)
            assert (await client.post(url, content=body)).status_code == status
            assert (await client.post(url, content=in_chunks(body))).status_code == status


async def test_what_is_no_text_and_what_needs_no_answer_are_answered_over_http_too(world: ChainWorld) -> None:
    async with served(build_chain_app(world.node)) as url, httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.post(url, content=b'{"jsonrpc":"2.0","method":"getSlot"}')
        assert (answer.status_code, answer.content) == (200, b"")
        answer = await client.post(url, content=b"\xff")
        assert (answer.status_code, answer.json()["error"]["code"]) == (200, -32700)

"""Chain: its client against nodes that lie, break or hang. An answer that it does not believe counts as unknown."""

import asyncio
import base64
import itertools
import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from order_engine.chain.client import SolanaChain
from order_engine.chain.rpc import HttpTransport
from order_engine.domain.errors import ChainUnavailable, WrongCluster
from order_engine.paper.local import LocalTransport
from tests.contracts.test_chains import served
from tests.unit.chains import ChainWorld, Genesis, open_chain_world, send, swap_result
from tests.unit.samples import USDC

pytestmark = pytest.mark.asyncio

ANOTHER = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"  # The genesis hash of mainnet.

ANSWERS = {
    "an error page": (502, b"<html>bad gateway</html>"),
    "no JSON": (200, b"<html>welcome</html>"),
    "nothing": (200, b""),
    "null": (200, b"null"),
    "an empty object": (200, b"{}"),
    "an error": (200, b'{"jsonrpc":"2.0","id":%d,"error":{"code":-32603,"message":"Internal error"}}'),
    "no result": (200, b'{"jsonrpc":"2.0","id":%d,"result":null}'),
    "another shape": (200, b'{"jsonrpc":"2.0","id":%d,"result":{"value":[7],"context":{"slot":"9"}}}'),
    "too few": (200, b'{"jsonrpc":"2.0","id":%d,"result":{"value":[],"context":{"slot":9}}}'),
    "a redirect": (302, b""),
    "text that is no UTF-8": (
        200,
        b'{"jsonrpc":"2.0","id":%d,"error":{"message":"' + b"x" * 170 + "é".encode() * 30 + b'\xff"}}',
    ),
    "endless nesting": (200, b'{"jsonrpc":"2.0","id":%d,"result":' + b"[" * 100_000),
    "another id": (200, b'{"jsonrpc":"2.0","id":0,"result":"x"}'),
    "a result and an error": (200, b'{"jsonrpc":"2.0","id":%d,"result":"x","error":{"code":1}}'),
    "numbers beyond all bounds": (
        200,
        b'{"id":%d,"result":{"absoluteSlot":1e30,"blockHeight":9999999999999999999999}}',
    ),
    "an array": (200, b"[1, 2]"),
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_an_answer_that_is_not_solanas_is_no_answer(answer: str) -> None:
    status, template = ANSWERS[answer]

    async def reply(request: Request) -> Response:
        asked = json.loads(await request.body())
        body = template.replace(b"%d", str(asked["id"] if isinstance(asked, dict) else 0).encode())
        return Response(body, status, {"location": "http://127.0.0.1:1/"} if status == 302 else None)

    async with open_chain_world() as world, served(Starlette(routes=[Route("/", reply, methods=["POST"])])) as url:
        chain = SolanaChain(HttpTransport(url), world.clock, Genesis().keep)
        asked: list[Any] = [chain.finalized_point(), chain.latest_blockhash(), chain.signature_statuses(["a"])]
        if answer != "no result":
            asked.append(swap_result(chain, "a", USDC))
        for it in asked:
            with pytest.raises(ChainUnavailable):
                await it
        both = await asyncio.gather(send(chain, b"1"), send(chain, b"2"), return_exceptions=True)
        assert [type(it) for it in both] == [ChainUnavailable, ChainUnavailable]
        await chain.close()


class Lies:
    """A Transport to an honest node, in which `results` replace the answers to some methods."""

    def __init__(self, world: ChainWorld, **results: Any) -> None:
        self._node = LocalTransport(world.node, world.network)
        self.results = results
        self.asked: list[list[str]] = []

    async def post(self, body: bytes) -> bytes:
        requests, answers = json.loads(body), json.loads(await self._node.post(body))
        self.asked.append([it["method"] for it in requests] if isinstance(requests, list) else [requests["method"]])
        for request, answer in zip(
            requests if isinstance(requests, list) else [requests],
            answers if isinstance(answers, list) else [answers],
            strict=True,
        ):
            if (change := self.results.get(request["method"])) is not None:
                answer["result"] = change(answer["result"])
        return json.dumps(answers).encode()

    async def close(self) -> None:
        pass


def lied_to(world: ChainWorld, **results: Any) -> tuple[Lies, SolanaChain]:
    transport = Lies(world, **results)
    return transport, SolanaChain(transport, world.clock, Genesis().keep)


@pytest.mark.parametrize(
    "point",
    [(10**12, 1100), (10**12, 10**12 + 1, 10**30), (0, 1000), (-1, 1000)],
    ids=str,
)
async def test_a_height_that_cannot_be_so_is_not_believed(point: tuple[int, ...]) -> None:
    async with open_chain_world() as world:
        height, slot = point[0], point[-1]
        _, chain = lied_to(world, getEpochInfo=lambda it: it | {"blockHeight": height, "absoluteSlot": slot})
        with pytest.raises(ChainUnavailable):
            await chain.finalized_point()


async def test_a_blockhash_before_the_finalized_slot_is_not_signed_with() -> None:
    """Beside it, a height that is 100 too low would look possible at the signing, and the truth impossible later."""

    def lag(answer: dict[str, Any]) -> dict[str, Any]:
        height = answer["value"]["lastValidBlockHeight"] - 130
        return {
            "context": {"slot": answer["context"]["slot"] - 130},
            "value": {**answer["value"], "lastValidBlockHeight": height},
        }

    async with open_chain_world() as world:
        world.clock.ms += 400 * 400
        _, chain = lied_to(
            world,
            getLatestBlockhash=lag,
            getEpochInfo=lambda it: it | {"blockHeight": it["blockHeight"] - 90},
        )
        with pytest.raises(ChainUnavailable, match="older than its finalized slot"):
            await chain.latest_blockhash()


@pytest.mark.parametrize(
    "change",
    [
        {"lastValidBlockHeight": 0},
        {"lastValidBlockHeight": 10**15},
        {"blockhash": "zzz0"},
        {"blockhash": ""},
    ],
    ids=str,
)
async def test_a_blockhash_that_cannot_be_so_is_not_signed_with(change: dict[str, Any]) -> None:
    async with open_chain_world() as world:
        _, chain = lied_to(world, getLatestBlockhash=lambda it: it | {"value": it["value"] | change})
        with pytest.raises(ChainUnavailable):
            await chain.latest_blockhash()


@pytest.mark.parametrize(
    "change",
    [
        {"getEpochInfo": lambda it: it | {"blockHeight": it["absoluteSlot"]}},
        {"getEpochInfo": lambda it: it | {"blockHeight": it["blockHeight"] + 50}},
        {"getEpochInfo": lambda it: it | {"blockHeight": it["blockHeight"] - 20}},
        {"getLatestBlockhash": lambda it: it | {"context": {"slot": it["context"]["slot"] - 40}}},
    ],
)
async def test_nothing_is_signed_from_a_height_and_a_blockhash_that_contradict_each_other(change: Any) -> None:
    async with open_chain_world() as world:
        _, chain = lied_to(world, **change)
        with pytest.raises(ChainUnavailable, match=r"contradict|too few blocks|higher than its slot|older than"):
            await chain.latest_blockhash()


async def test_the_answer_about_another_transaction_is_not_believed() -> None:
    async with open_chain_world() as world:
        signed = [await world.signed(memo) for memo in ("order 1", "order 2")]
        for it in signed:
            await world.send(it.raw)
        other = base64.b64encode(signed[1].raw).decode()
        _, chain = lied_to(world, getTransaction=lambda it: it | {"transaction": [other, "base64"]})
        world.clock.ms += 2_000
        with pytest.raises(ChainUnavailable, match="another transaction"):
            await swap_result(chain, signed[0].signature, USDC)
        assert await swap_result(chain, signed[1].signature, USDC) is not None


async def test_another_cluster_proves_nothing_about_this_one() -> None:
    async with open_chain_world() as world:
        transport, chain = lied_to(world)
        await chain.finalized_point()
        transport.results["getGenesisHash"] = lambda _hash: ANOTHER
        with pytest.raises(WrongCluster, match=ANOTHER):
            await chain.finalized_point()
        with pytest.raises(WrongCluster):
            await chain.latest_blockhash()
        transport.results.clear()
        assert (await chain.finalized_point()).block_height > 0


@pytest.mark.parametrize("change", [{"err": False}, {"confirmationStatus": None}, {"slot": 10**9}], ids=str)
async def test_a_status_that_cannot_be_read_spoils_no_other(change: dict[str, Any]) -> None:
    async with open_chain_world() as world:
        signed = [await world.signed(memo) for memo in ("order 1", "order 2", "order 3")]
        for it in signed[:2]:
            await world.send(it.raw)

        def spoil(answer: Any) -> Any:
            answer["value"][0] |= change
            return answer

        _, chain = lied_to(world, getSignatureStatuses=spoil)
        answer = await chain.signature_statuses([it.signature for it in signed])
        assert ({*answer.statuses}, {*answer.unclear}) == ({signed[1].signature}, {signed[0].signature})


async def test_all_who_wait_for_a_blockhash_ask_once() -> None:
    async with open_chain_world() as world:
        transport, chain = lied_to(world)
        await asyncio.gather(*(chain.latest_blockhash() for _ in range(50)))
        assert transport.asked == [["getGenesisHash", "getEpochInfo", "getLatestBlockhash"]]


async def test_a_batch_is_no_longer_than_nodes_take() -> None:
    sizes: list[int] = []
    raw = b"x" * 1232

    class Counting(Lies):
        async def post(self, body: bytes) -> bytes:
            sizes.append(len(body))
            raise ChainUnavailable("never mind")

    async with open_chain_world() as world:
        chain = SolanaChain(Counting(world), world.clock, Genesis().keep)
        await chain.send_many([raw] * 100)
    assert max(sizes) < 50 * 1024
    assert len(sizes) == 4


async def test_answers_that_belong_together_come_from_one_node_or_not_at_all() -> None:
    """Two separate requests may reach two nodes, one of them on a losing fork; so the client asks in one batch."""
    async with open_chain_world() as world:

        class Single(Lies):
            async def post(self, body: bytes) -> bytes:
                if body.startswith(b"["):
                    return b'{"jsonrpc":"2.0","error":{"code":-32600,"message":"no batches"},"id":null}'
                return await super().post(body)

        transport = Single(world)
        chain = SolanaChain(transport, world.clock, Genesis().keep)
        for asked in (chain.finalized_point(), chain.latest_blockhash(), chain.signature_statuses(["a"])):
            with pytest.raises(ChainUnavailable):
                await asked
        assert transport.asked == []


async def test_a_node_that_does_not_say_how_far_back_it_knows_may_still_find() -> None:
    async with open_chain_world() as world:
        signed = await world.signed()
        await world.send(signed.raw)
        _, chain = lied_to(world, getFirstAvailableBlock=lambda _slot: "unknown")
        answer = await chain.signature_statuses([signed.signature])
        assert ({*answer.statuses}, answer.history_from_slot) == ({signed.signature}, None)


async def test_what_is_told_of_a_node_names_no_key() -> None:
    async def nonsense(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no HTTP\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with open_chain_world() as world, server:
        for url in (f"http://127.0.0.1:{port}/?api-key=SECRET", "http://[::1/SECRET", "http://127.0.0.1:9/SECRET"):
            chain = SolanaChain(HttpTransport(url), world.clock, Genesis().keep)
            with pytest.raises(ChainUnavailable) as told:
                await chain.finalized_point()
            assert "SECRET" not in str(told.value)
            await chain.close()


async def test_closing_gives_up_what_hangs() -> None:
    asked = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with open_chain_world() as world:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        chain = SolanaChain(HttpTransport(url), world.clock, Genesis().keep)
        sending = asyncio.ensure_future(send(chain, b"x"))
        await asked.wait()
        async with asyncio.timeout(2):
            await chain.close()
        with pytest.raises(ChainUnavailable):
            await sending
    server.close()


async def test_a_chain_that_is_not_there_is_unavailable() -> None:
    async with open_chain_world() as world:
        chain = SolanaChain(HttpTransport("http://127.0.0.1:9"), world.clock, Genesis().keep)
        with pytest.raises(ChainUnavailable):
            await chain.latest_blockhash()
        await chain.close()


async def test_a_node_that_limits_us_is_left_alone_for_as_long_as_it_says() -> None:
    times: list[float] = []

    async def reply(_request: Request) -> Response:
        times.append(asyncio.get_running_loop().time())
        return Response(b"", 429, {"Retry-After": "1"})

    async with open_chain_world() as world, served(Starlette(routes=[Route("/", reply, methods=["POST"])])) as url:
        chain = SolanaChain(HttpTransport(url), world.clock, Genesis().keep)
        for _ in range(3):
            with pytest.raises(ChainUnavailable, match="429"):
                await chain.finalized_point()
        await chain.close()
    assert all(later - earlier >= 0.99 for earlier, later in itertools.pairwise(times))

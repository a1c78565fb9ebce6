"""`EngineClient` places one order with one key, even if replies are lost."""

import asyncio
import copy
import pickle
import socket
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from order_engine.client import (
    EngineClient,
    EngineRefusedError,
    EngineUnreachableError,
    OrderUnknownError,
)
from tests.scripted import (
    ACCEPTED,
    ORDER_ID,
    ScriptedServer,
    Step,
    answer,
    close,
    endless,
    hang,
    placed_order,
    problem,
    raw,
    reset,
)
from tests.servers import free_port
from tests.stack import market_order

HTML = b"<html><body>Sign in to the network</body></html>"
PATIENT_S = 30.0
GIVES_UP_S = 0.3

LOST: dict[str, Step] = {
    "reset": reset,
    "closed": close,
    "no answer": hang,
    "half a body": answer(202, placed_order(), cut=40),
    "a body of no bytes": answer(202, placed_order(), cut=0),
    "half a head": raw(b"HTTP/1.1 202 Acc"),
    "cut without a length": raw(b"HTTP/1.1 202 A\r\nContent-Type: application/json\r\n\r\n{'orderId': '01"),
    "cut chunks": raw(
        b"HTTP/1.1 202 A\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{}"
    ),
    "broken gzip": answer(202, b"not gzip", Content_Encoding="gzip"),
    "not HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a 202 of somebody else": answer(202, {"ok": True}),
    "a 202 that is a list": answer(202, b"[]"),
    "a 200 page": answer(200, HTML, "text/html"),
    "a 200 page that says JSON": answer(200, HTML),
    "an answer without an end": endless,
    "no content": answer(204, b""),
    "a redirect": answer(302, HTML, "text/html", Location="http://127.0.0.1:1/"),
    "a redirect that keeps the method": answer(308, b"", Location="http://127.0.0.1:1/"),
    "a page that is not found": answer(404, HTML, "text/html"),
    "a proxy that forbids": answer(403, HTML, "text/html"),
    "JSON of a proxy": answer(400, {"message": "no healthy upstream"}),
    "502": answer(502, HTML, "text/html"),
    "503 of a proxy": answer(503, b"no healthy upstream", "text/plain"),
    "503 of the engine": problem(503, "store_unavailable", Retry_After="0"),
    "504": answer(504, HTML, "text/html"),
    "500 of the engine": problem(500, "internal_error"),
}
# A redirect is not followed: nothing listens at its target.


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
async def test_a_lost_reply_is_asked_for_again_with_the_same_key_and_body(
    fault: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("order_engine.client.patience._TRY_S", 1.0)  # A hang ends soon.
    told: list[str] = []
    async with (
        ScriptedServer([fault, fault, ACCEPTED]) as server,
        EngineClient(server.url, retry_for_s=PATIENT_S, on_lost=told.append) as client,
    ):
        order = await client.submit(market_order())
    assert order["orderId"] == ORDER_ID
    assert len({it.key for it in server.received}) == 1
    assert len({it.body for it in server.received}) == 1
    assert len(server.received) == 3
    assert len(told) == 1


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
async def test_giving_up_says_that_the_order_may_have_been_placed_and_carries_the_key(fault: Step) -> None:
    async with ScriptedServer([fault]) as server, EngineClient(server.url, retry_for_s=GIVES_UP_S) as client:
        with pytest.raises(OrderUnknownError, match="may have been placed") as caught:
            await client.submit(market_order())
    assert {it.key for it in server.received} == {caught.value.idempotency_key}
    assert caught.value.idempotency_key in str(caught.value)
    again = copy.copy(pickle.loads(pickle.dumps(caught.value)))  # noqa: S301 - it is ours
    assert (str(again), again.idempotency_key) == (str(caught.value), caught.value.idempotency_key)


async def test_the_key_that_was_given_is_the_one_that_is_sent_and_told() -> None:
    async with ScriptedServer([reset]) as server, EngineClient(server.url, retry_for_s=0) as client:
        with pytest.raises(OrderUnknownError) as caught:
            await client.submit(market_order(), "mine")
    assert ([it.key for it in server.received], caught.value.idempotency_key) == (["mine"], "mine")


@pytest.mark.parametrize("key", ["", " ", "ü", "a\nb", "a b", "x" * 256, "\udcff"])
async def test_a_key_that_cannot_be_sent_is_refused_and_not_replaced(key: str) -> None:
    async with ScriptedServer([ACCEPTED]) as server, EngineClient(server.url) as client:
        with pytest.raises(EngineRefusedError, match="Idempotency-Key"):
            await client.submit(market_order(), key)
    assert server.received == []


async def test_what_was_never_sent_was_not_placed() -> None:
    async with ScriptedServer([ACCEPTED]) as server:
        addresses = [
            f"http://127.0.0.1:{free_port()}",  # refused
            server.url.replace("http:", "https:"),  # no TLS there
            "http://no-such-host.invalid",
            f"http://127.0.0.1:{free_port()}.",
        ]
        for url in addresses[:3]:
            async with EngineClient(url, retry_for_s=GIVES_UP_S) as client:
                with pytest.raises(EngineUnreachableError, match="was not placed") as caught:
                    await client.submit(market_order(), "kept")
            assert caught.value.idempotency_key == "kept"
    assert server.received == []


async def test_an_address_that_swallows_packets_was_sent_nothing() -> None:
    # A full backlog: the handshake does not end.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)  # noqa: FBT003 - the socket's own interface
            filler.connect_ex(("127.0.0.1", port))
        try:
            async with EngineClient(f"http://127.0.0.1:{port}", retry_for_s=0.5) as client:
                with pytest.raises(EngineUnreachableError, match="was not placed"):
                    await client.submit(market_order())
        finally:
            for filler in fillers:
                filler.close()


async def test_a_restart_is_ridden_out() -> None:
    port, refused = free_port(), asyncio.Event()
    async with EngineClient(f"http://127.0.0.1:{port}", on_lost=lambda _: refused.set()) as client:
        submitted = asyncio.create_task(client.submit(market_order()))
        await refused.wait()
        async with ScriptedServer([ACCEPTED], port):
            assert (await submitted)["orderId"] == ORDER_ID


@pytest.mark.parametrize("code", ["invalid_amount", "unknown_token", "idempotency_conflict"])
async def test_a_refusal_is_certain_and_is_not_asked_again(code: str) -> None:
    async with ScriptedServer([problem(422, code)]) as server, EngineClient(server.url) as client:
        with pytest.raises(EngineRefusedError, match=code) as caught:
            await client.submit(market_order())
    assert len(server.received) == 1
    assert caught.value.problem["code"] == code
    assert caught.value.idempotency_key == server.received[0].key


async def test_a_refusal_after_a_lost_reply_does_not_say_that_nothing_was_placed() -> None:
    async with ScriptedServer([reset, problem(422, "unknown_token")]) as server, EngineClient(server.url) as client:
        with pytest.raises(OrderUnknownError, match="unknown_token") as caught:
            await client.submit(market_order())
    assert caught.value.idempotency_key == server.received[0].key


# --- 429 and Retry-After -------------------------------------------------------------------------


async def test_a_limit_is_waited_for_as_long_as_it_asks() -> None:
    script = [problem(429, "rate_limited", Retry_After="1"), ACCEPTED]
    async with ScriptedServer(script) as server, EngineClient(server.url, retry_for_s=PATIENT_S) as client:
        began_s = asyncio.get_running_loop().time()
        await client.submit(market_order())
        assert asyncio.get_running_loop().time() - began_s >= 1
    assert len({it.key for it in server.received}) == 1


async def test_a_limit_that_lasts_longer_than_the_bound_is_a_certain_refusal_at_once() -> None:
    async with (
        ScriptedServer([problem(429, "rate_limited", Retry_After="3600")]) as server,
        EngineClient(server.url) as client,
    ):
        with pytest.raises(EngineRefusedError, match="rate_limited"):
            await client.submit(market_order())
        with pytest.raises(EngineRefusedError, match="rate_limited"):
            await client.list_orders()
    assert len(server.received) == 2


async def test_a_limit_after_a_lost_reply_leaves_the_order_unknown() -> None:
    script = [reset, problem(429, "rate_limited", Retry_After="3600")]
    async with ScriptedServer(script) as server, EngineClient(server.url) as client:
        with pytest.raises(OrderUnknownError, match="rate_limited"):
            await client.submit(market_order())


@pytest.mark.parametrize(
    "asked",
    ["nonsense", "-5", "1e9", "", "99999999999999999999", "0", format_datetime(datetime(1970, 1, 1, tzinfo=UTC))],
)
async def test_a_retry_after_that_says_nothing_useful_does_not_hold_up_the_client(asked: str) -> None:
    script = [answer(503, HTML, "text/html", Retry_After=asked), ACCEPTED]
    async with ScriptedServer(script) as server, EngineClient(server.url, retry_for_s=1) as client:
        assert (await client.submit(market_order()))["orderId"] == ORDER_ID


async def test_a_retry_after_may_be_a_date() -> None:
    from order_engine.client.answers import Answer  # noqa: PLC0415 - the one test that looks inside

    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    asked = Answer(429, {"retry-after": soon}, b"").retry_after_s()
    assert asked is not None
    assert 50 < asked <= 60


# --- the other calls, and a caller that is cut off -----------------------------------------------


@pytest.mark.parametrize("name", [*LOST])
async def test_reads_and_cancellations_ride_out_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("order_engine.client.patience._TRY_S", 0.3)
    good = answer(200, {**placed_order(), "orders": [], "nextCursor": None, "attempts": []})
    async with ScriptedServer([LOST[name], good]) as server, EngineClient(server.url, retry_for_s=PATIENT_S) as client:
        assert (await client.get(ORDER_ID))["orderId"] == ORDER_ID
    for call in ("cancel", "list_orders", "attempts_in_doubt"):
        async with ScriptedServer([LOST[name], good]) as server, EngineClient(server.url) as client:
            arguments = {"cancel": (ORDER_ID,), "attempts_in_doubt": (1,)}.get(call, ())
            assert await getattr(client, call)(*arguments)
        assert len(server.received) == 2


async def test_a_cancellation_whose_answer_is_lost_says_that_its_outcome_is_unknown() -> None:
    async with ScriptedServer([reset]) as server, EngineClient(server.url, retry_for_s=0) as client:
        with pytest.raises(EngineUnreachableError, match="not known"):
            await client.cancel(ORDER_ID)
        with pytest.raises(EngineUnreachableError) as caught:
            await client.get(ORDER_ID)
    assert "not known" not in str(caught.value)


async def test_a_submit_that_is_cancelled_leaves_its_key_in_the_traceback() -> None:
    async with ScriptedServer([hang]) as server, EngineClient(server.url) as client:
        task = asyncio.create_task(client.submit(market_order()))
        await server.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    key = server.received[0].key
    assert key is not None
    assert key in "".join(traceback.format_exception(caught.value))


async def test_a_time_out_around_a_submit_leaves_its_key_in_the_traceback() -> None:
    async with ScriptedServer([hang]) as server, EngineClient(server.url) as client:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.5):
                await client.submit(market_order())
    assert (server.received[0].key or "?") in "".join(traceback.format_exception(caught.value))


async def test_a_bound_that_is_no_number_of_seconds_is_refused() -> None:
    for bound in (-1, float("nan")):
        with pytest.raises(ValueError, match="retry_for_s"):
            EngineClient("http://127.0.0.1:3000", retry_for_s=bound)


pytestmark = pytest.mark.asyncio

"""A WebSocket client's frames, of every kind and in every way, against the budget."""

import asyncio
import json
import logging
from contextlib import AsyncExitStack

import pytest
import structlog.testing

from order_engine.api.limits import Limits
from tests.raw_server import UPGRADE, Echo, answers_in, close_code_in, connected, exchange, frame, served

pytestmark = pytest.mark.asyncio

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FLOODS = {
    "pings": frame(PING),
    "long pings": frame(PING, b"x" * 125),
    "pongs": frame(PONG),
    "empty text": frame(TEXT),
    "empty binary": frame(BINARY),
    "text": frame(TEXT, b"hello"),
    "fragments": frame(CONTINUATION, fin=False),
}
OPENS = {"fragments": frame(TEXT, fin=False)}


async def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(UPGRADE)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.parametrize("piece", [1_000_000, 50], ids=["at once", "in pieces"])
async def test_a_flood_of_frames_is_closed_with_1008(kind: str, piece: int) -> None:
    sent = OPENS.get(kind, b"") + FLOODS[kind] * 2_000
    async with served(Echo()) as port, connected(port) as (reader, writer):
        await opened(reader, writer)
        for place in range(0, len(sent), piece):
            writer.write(sent[place : place + piece])
            await asyncio.sleep(0)
        received = await reader.read()
    assert close_code_in(received) == 1008
    assert len(received) < 64 * 1024


async def test_bytes_one_by_one_cost_more_than_their_number() -> None:
    async with served(Echo(), kib_per_window=4) as port, connected(port) as (reader, writer):
        await opened(reader, writer)
        for byte in frame(BINARY, b"x" * 3_000):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
            if reader.at_eof() or reader._buffer:  # type: ignore[attr-defined]
                break
        assert close_code_in(await reader.read()) == 1008


async def test_a_message_that_is_too_large_is_closed_with_1009() -> None:
    async with served(Echo()) as port, connected(port) as (reader, writer):
        await opened(reader, writer)
        writer.write(b"\x82\xff" + (1 << 40).to_bytes(8, "big") + bytes(4))
        assert close_code_in(await reader.read()) == 1009


async def test_a_client_within_its_budget_is_answered() -> None:
    async with served(Echo()) as port, connected(port) as (reader, writer):
        await opened(reader, writer)
        for number in range(60):
            writer.write(frame(PING, b"a") + frame(PONG) + frame(TEXT, str(number).encode()))
            assert await reader.readexactly(3) == b"\x8a\x01a"
            size = 2 + len(str(number))
            assert (await reader.readexactly(size))[2:] == str(number).encode()
        writer.write(frame(CLOSE, (1000).to_bytes(2, "big")) * 1_000)
        assert close_code_in(await reader.read()) == 1000


async def test_a_first_message_in_many_packets_is_heard() -> None:
    whole = frame(TEXT, b"x" * 16_000)
    async with served(Echo()) as port, connected(port) as (reader, writer):
        await opened(reader, writer)
        for place in range(0, len(whole), 500):
            writer.write(whole[place : place + 500])
            await asyncio.sleep(0.001)
        assert (await reader.readexactly(16_004))[4:] == b"x" * 16_000


async def test_a_frame_right_behind_the_handshake_is_heard_after_it() -> None:
    async with served(Echo()) as port, connected(port) as (reader, writer):
        writer.write(UPGRADE + frame(PING, b"a") + frame(TEXT, b"early"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(3 + 7) == b"\x8a\x01a\x81\x05early"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 7"), 426),
        ((b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), 400),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
        ((b"Host: x", b"Host: x\r\nA: %b" % (b"x" * 9_000)), 431),
    ],
)
async def test_a_handshake_that_is_none_is_a_problem(change: tuple[bytes, bytes], status: int) -> None:
    async with served(Echo()) as port:
        asked = UPGRADE.replace(b"Host", b"X-Request-Id: mine\r\nHost").replace(*change)
        (answer,) = answers_in(await exchange(port, asked))
    assert (answer.status, answer.json()["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["requestId"] == "mine"


async def test_text_that_is_not_utf_8_is_closed_with_1007_and_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with structlog.testing.capture_logs() as told:
        async with served(Echo()) as port:
            for sent in (frame(TEXT, b"\xff"), frame(CLOSE, b"\x03\xe8\xff"), frame(11), b"\x81\x00", frame(0)):
                async with connected(port) as (reader, writer):
                    await opened(reader, writer)
                    writer.write(sent)
                    code = close_code_in(await reader.read())
                assert code == (1007 if b"\xff" in sent else 1002)
            await exchange(port, b"\r\nnonsense\r\n\r\n")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert all(line["event"] == "clients at fault" for line in told)
    assert len(told) <= 1


async def test_a_ping_flood_that_reads_nothing_is_not_read() -> None:
    """Without a budget, the server stops reading while its answers wait."""
    async with served(Echo(), frames_per_window=0, kib_per_window=0) as port, connected(port) as (reader, writer):
        await opened(reader, writer)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        written = 0
        while writer.transport.get_write_buffer_size() < 1_000_000 and written < 100_000_000:
            writer.write(frame(PING, b"x" * 125) * 1_000)
            written += 131_000
            await asyncio.sleep(0.001)
        assert written < 100_000_000


async def test_an_open_websocket_hears_that_the_process_stops() -> None:
    async with AsyncExitStack() as server:
        port = await server.enter_async_context(served(Echo()))
        async with connected(port) as (reader, writer):
            await opened(reader, writer)
            await server.aclose()
            assert close_code_in(await reader.read()) in (1001, 1012)


# --- connections ---------------------------------------------------------------------------------

GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("limits", [{"connections": 3}, {"connections_per_address": 3}])
async def test_connections_beyond_the_limit_are_503_until_one_ends(limits: dict[str, int]) -> None:
    async with served(Echo(), **limits) as port:
        async with connected(port) as first, connected(port) as second, connected(port) as third:
            await opened(*first)
            await opened(*second)
            third[1].write(GET.replace(b"close", b"keep-alive"))
            assert await third[0].readuntil(b"}")
            for asked in (GET, UPGRADE):
                (answer,) = answers_in(await exchange(port, asked))
                assert (answer.status, answer.json()["code"]) == (503, "too_many_connections")
                assert answer.headers["retry-after"]
                assert json.loads(answer.body)["retryable"] is True
        while b"HTTP/1.1 200" not in await exchange(port, GET):
            await asyncio.sleep(0.01)


async def test_far_too_many_connections_are_closed_at_once() -> None:
    async with served(Echo(), connections=1) as port:
        socks = [await asyncio.open_connection("127.0.0.1", port) for _ in range(400)]
        ended = [asyncio.create_task(reader.read()) for reader, _ in socks]
        while sum(task.done() for task in ended) < 100:
            await asyncio.sleep(0.01)
        for _, writer in socks:
            writer.transport.abort()
        await asyncio.gather(*ended, return_exceptions=True)


async def test_clients_of_a_trusted_proxy_are_counted_one_by_one() -> None:
    def client(scope: object) -> str | None:
        headers = dict(scope["headers"])  # type: ignore[index]
        return headers.get(b"x-forwarded-for", b"").decode() or None

    limits = Limits(connections_per_address=2, is_trusted_proxy=lambda it: it == "127.0.0.1", forwarded_client=client)
    asked = UPGRADE.replace(b"Host: x", b"Host: x\r\nX-Forwarded-For: 10.0.0.1")
    async with served(Echo(), **{name: getattr(limits, name) for name in limits.__struct_fields__}) as port:
        async with connected(port) as first, connected(port) as second:
            for reader, writer in (first, second):
                writer.write(asked)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            (answer,) = answers_in(await exchange(port, asked))
            assert (answer.status, answer.json()["code"]) == (503, "too_many_connections")
            (answer,) = answers_in(await exchange(port, GET.replace(b"Host", b"X-Forwarded-For: 10.0.0.2\r\nHost")))
            assert answer.status == 200
        while b"HTTP/1.1 200" not in await exchange(port, GET.replace(b"Host", b"X-Forwarded-For: 10.0.0.1\r\nHost")):
            await asyncio.sleep(0.01)

"""No error of the client shows the URL's user, password or path, or the API key."""

import contextlib
import traceback
from collections.abc import Awaitable, Callable

import pytest

from order_engine.client import EngineClient, EngineClientError
from tests.scripted import ScriptedServer, Step, answer, problem, raw, reset
from tests.servers import free_port
from tests.stack import market_order

pytestmark = pytest.mark.asyncio
SECRETS = ("hidden-user", "hidden-password", "hidden-path", "hidden-key")


async def _watch(client: EngineClient) -> None:
    async for _ in client.watch("order"):
        pass


async def _stream(client: EngineClient) -> None:
    async for _ in client.stream("cursor"):
        pass


CALLS: dict[str, Callable[[EngineClient], Awaitable[object]]] = {
    "submit": lambda client: client.submit(market_order()),
    "get": lambda client: client.get("order"),
    "cancel": lambda client: client.cancel("order"),
    "list": lambda client: client.list_orders(),
    "attempts": lambda client: client.attempts_in_doubt(1),
    "watch": _watch,
    "stream": _stream,
}
ANSWERS: dict[str, Step] = {
    "reset": reset,
    "refused": problem(422, "invalid"),
    "unavailable": problem(503, "unavailable"),
    "redirect": answer(302, b"", Location="/elsewhere"),
    "page": answer(200, b"<html>", "text/html"),
    "not HTTP": raw(b"SSH-2.0-OpenSSH\r\n"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("step", ANSWERS.values(), ids=ANSWERS)
async def test_no_secret_is_in_an_error(call: Callable[[EngineClient], Awaitable[object]], step: Step) -> None:
    async with ScriptedServer([step]) as server:
        port = server.url.rsplit(":", 1)[1]
        for scheme, place in (("http", port), ("http", str(free_port())), ("https", port)):
            user = f"{scheme}://hidden-user:hidden-password@127.0.0.1:{place}/hidden-path"
            await _check(user, None, call)
            await _check(f"{scheme}://127.0.0.1:{place}/hidden-path", "hidden-key", call)


async def _check(url: str, key: str | None, call: Callable[[EngineClient], Awaitable[object]]) -> None:
    told: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(EngineClient(url, key, retry_for_s=0.01, on_lost=told.append))
        with pytest.raises(EngineClientError) as caught:
            await call(client)
    text = f"{caught.value} {caught.value!r} {client!r} {told} {''.join(traceback.format_exception(caught.value))}"
    assert not [secret for secret in SECRETS if secret in text]


async def test_the_user_of_the_url_and_the_key_are_sent() -> None:
    async with ScriptedServer([problem(422, "invalid")]) as server:
        for url, key in ((server.url.replace("//", "//me:pass@"), None), (server.url, "k3y")):
            async with EngineClient(url, key) as client:
                for call in (client.get, _watch_one(client)):
                    with pytest.raises(EngineClientError):
                        await call("order")
    sent = [it.headers["authorization"] for it in server.received]
    assert sent == ["Basic bWU6cGFzcw=="] * 2 + ["Bearer k3y"] * 2


def _watch_one(client: EngineClient) -> Callable[[str], Awaitable[None]]:
    async def watch(order_id: str) -> None:
        async for _ in client.watch(order_id):
            pass

    return watch

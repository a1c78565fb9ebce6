"""Clients like a careful trader's program: they ask again with the same key, and come back to a stream."""

import asyncio
import contextlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp

from order_engine.domain.lifecycle import TERMINAL
from tests.faults.load import History
from tests.stack import market_order

_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 1.5
_TRY_S: Final = 5.0
_LOST: Final = (aiohttp.ClientError, OSError, TimeoutError)


class Crowd:
    """Places orders, watches some of them, and remembers every answer and event."""

    def __init__(self, urls: Sequence[str], seed: int) -> None:
        """`urls`: API processes that serve the same orders."""
        self._urls = urls
        self._random = random.Random(seed)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._watching: set[asyncio.Task[None]] = set()
        self.accepted: dict[str, str] = {}  # order ids by idempotency key
        self.streams: dict[str, History] = {}
        self.refusals: Counter[str] = Counter()
        self.reconnects = 0
        self.wrong: list[str] = []

    async def close(self) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self._session.close()

    async def place(self, orders: int, streams: int, seconds: float, is_over: asyncio.Event) -> None:
        """Place `orders` orders evenly over `seconds`, and continue at that pace until `is_over` is set.

        Every nth of the first `orders` is watched from the moment it is accepted.
        """
        every = max(1, orders // streams)
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def place_one(number: int) -> None:
            order_id = await self._submit(f"key-{number}", number)
            if number % every == 0 and number // every < streams:
                self._watch(order_id)
            if number % 10 == 0 and await self._submit(f"key-{number}", number) != order_id:
                self.wrong.append(f"key-{number} has two orders")

        async with asyncio.TaskGroup() as placing:
            for number in itertools.count():
                if number >= orders and is_over.is_set():
                    break
                await asyncio.sleep(began + seconds * number / orders - loop.time())
                placing.create_task(place_one(number))

    async def until_told(self) -> None:
        """Return when every stream has had its order's last event."""
        await asyncio.gather(*self._watching)

    async def _submit(self, key: str, number: int) -> str:
        """Post until an answer is 2xx, each time to another process, always with the same key."""
        body = market_order(str(1 + number % 7), slippageBps=1000)
        pause_s = _PAUSE_S
        while True:
            self._random.shuffle(order := list(self._urls))
            for url in order:
                try:
                    async with self._session.post(
                        f"{url}/v1/orders",
                        json=body,
                        headers={"Idempotency-Key": key},
                        timeout=aiohttp.ClientTimeout(total=_TRY_S),
                    ) as response:
                        if response.status < 300:
                            self.accepted[key] = (await response.json())["orderId"]
                            return self.accepted[key]
                        self.refusals[str(response.status)] += 1
                        if response.status not in (429, 503):
                            self.wrong.append(f"{key}: {response.status} {await response.text()}")
                except _LOST as error:
                    self.refusals[type(error).__name__] += 1
            await asyncio.sleep(pause_s := min(2 * pause_s, _LONGEST_PAUSE_S))

    # --- streams ---

    def _watch(self, order_id: str) -> None:
        self.streams[order_id] = []
        follow = self._over_websocket if len(self.streams) % 2 else self._over_sse
        task = asyncio.create_task(self._until_the_end(order_id, follow))
        self._watching.add(task)

    async def _until_the_end(self, order_id: str, follow: Callable[[str, str, int], Any]) -> None:
        """Follow the order from the last event that arrived, at a random process, until its terminal one."""
        told = self.streams[order_id]
        while not told or told[-1][1] not in TERMINAL:
            url = self._random.choice(self._urls)
            with contextlib.suppress(*_LOST):
                await follow(url, order_id, told[-1][0] if told else 0)
            self.reconnects += 1
            await asyncio.sleep(_PAUSE_S)

    async def _over_websocket(self, url: str, order_id: str, after: int) -> None:
        path = f"{url}/v1/orders/{order_id}/stream?after={after}"
        async with self._session.ws_connect(path, timeout=aiohttp.ClientWSTimeout(ws_close=_TRY_S)) as socket:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self._note(order_id, json.loads(message.data))

    async def _over_sse(self, url: str, order_id: str, after: int) -> None:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_TRY_S)
        path = f"{url}/v1/orders/{order_id}/stream"
        async with self._session.get(path, headers=headers, timeout=timeout) as response:
            if response.status != 200:
                return
            async for line in response.content:
                if line.startswith(b"data: "):
                    self._note(order_id, json.loads(line[6:]))

    def _note(self, order_id: str, event: dict[str, Any]) -> None:
        self.streams[order_id].append((event["seq"], event["status"]))


def check_streams(streams: dict[str, History], histories: dict[str, History]) -> None:
    """Every stream got its order's history, each event once and in order."""
    wrong = {order_id: (told, histories[order_id]) for order_id, told in streams.items() if told != histories[order_id]}
    assert not wrong, wrong

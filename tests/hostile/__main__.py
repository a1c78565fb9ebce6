"""`make hostile`: how much time and memory clients that misuse the server cost the others."""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx2
import msgspec
import psutil

from tests.hostile.attack import ALL_AT_ONCE, KINDS, attacking
from tests.stack import EngineProcess, embedded_stack, market_order

_RATE_PER_S: Final = 20
_PAST_ORDERS: Final = 3_000
_MIB: Final = 1024 * 1024


class Figures(msgspec.Struct):
    """One phase: percent of a core that the engine took and waited for, milliseconds, and MiB of memory."""

    name: str
    cpu: float
    wait: float
    post_p50: float
    post_p99: float
    confirmed_p50: float
    confirmed_p99: float
    before: float
    peak: float
    after: float

    def line(self) -> str:
        """Return a row of the table."""
        times = f"{self.post_p50:8.1f} {self.post_p99:8.1f} {self.confirmed_p50:8.0f} {self.confirmed_p99:8.0f}"
        memory = f"{self.before:8.1f} {self.peak:8.1f} {self.after:8.1f}"
        return f"{self.name:16} {self.cpu:6.0f} {self.wait:6.0f} {times} {memory}"


HEAD: Final = (
    f"{'':16} {'CPU %':>6} {'wait %':>6} {'POST p50':>8} {'p99 ms':>8} {'conf p50':>8} {'p99 ms':>8} "
    f"{'MiB':>8} {'peak':>8} {'after':>8}"
)


def processor_s(process: psutil.Process) -> tuple[float, float]:
    """Return how long the process ran, and how long it was ready to run and waited for a processor."""
    waited_ns = 0
    for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            waited_ns += int(path.read_text().split()[1])
    return sum(process.cpu_times()[:2]), waited_ns / 1e9


async def measure(engine: EngineProcess, name: str, seconds: float) -> Figures:
    """Place orders at a steady rate, and measure their times and the engine's memory."""
    process = psutil.Process(engine.pid)
    before = peak = process.memory_info().rss
    (used_s, waited_s), wall_s = processor_s(process), time.perf_counter()
    posts: list[float] = []
    orders: list[str] = []
    async with httpx2.AsyncClient(base_url=engine.url, timeout=60.0, trust_env=False) as client:

        async def post() -> None:
            began = time.perf_counter()
            response = await client.post("/v1/orders", json=market_order())
            posts.append((time.perf_counter() - began) * 1000)
            orders.append(response.raise_for_status().json()["orderId"])

        with attacking(name, engine.port):
            async with asyncio.TaskGroup() as group:
                began = time.perf_counter()
                for number in range(int(seconds * _RATE_PER_S)):
                    await asyncio.sleep(began + number / _RATE_PER_S - time.perf_counter())
                    group.create_task(post())
                    peak = max(peak, process.memory_info().rss)
        (used_until_s, waited_until_s), wall_s = processor_s(process), time.perf_counter() - wall_s
        lives = [await confirmed_ms(client, order_id) for order_id in orders]
    after = process.memory_info().rss
    cpu, wait = 100 * (used_until_s - used_s) / wall_s, 100 * (waited_until_s - waited_s) / wall_s
    return Figures(name, cpu, wait, *quantiles(posts), *quantiles(lives), before / _MIB, peak / _MIB, after / _MIB)


def quantiles(values: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    return statistics.median(values), statistics.quantiles(values, n=100)[98]


async def confirmed_ms(client: httpx2.AsyncClient, order_id: str) -> float:
    """Return how long the order took, by the engine's own history."""
    while True:
        events = (await client.get(f"/v1/orders/{order_id}/events")).raise_for_status().json()["events"]
        if events[-1]["status"] in ("confirmed", "failed"):
            return float(events[-1]["elapsedMs"])
        await asyncio.sleep(0.05)


async def fill(engine: EngineProcess) -> None:
    """Place 3,000 orders, so that the log has a past."""
    left = iter(range(_PAST_ORDERS))
    async with httpx2.AsyncClient(base_url=engine.url, timeout=60.0, trust_env=False) as client:

        async def post_some() -> None:
            for _ in left:
                (await client.post("/v1/orders", json=market_order())).raise_for_status()

        await asyncio.gather(*(post_some() for _ in range(16)))
        while (await client.get("/v1/orders", params={"status": "pending", "limit": 1})).json()["orders"]:
            await asyncio.sleep(0.2)
        await asyncio.sleep(3.0)


async def main(kinds: list[str], seconds: float) -> None:
    """Print a line for each kind of attack."""
    with (
        tempfile.TemporaryDirectory(prefix="order-engine-hostile-") as name,
        embedded_stack(Path(name), MOCK_DELAY_SCALE="0", LOG_FORMAT="json") as stack,
    ):
        engine = stack.spawn("up")
        await fill(engine)
        print(HEAD)
        for kind in ("undisturbed", *kinds, "undisturbed"):
            print((await measure(engine, kind, seconds)).line(), flush=True)
            await asyncio.sleep(1.0)
        lines = engine.log_text().splitlines()
    print(f"\n{len(lines)} lines in the log, the last one: {lines[-1]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"{', '.join(KINDS)} or '{ALL_AT_ONCE}'")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each attack lasts")
    options = parser.parse_args()
    asyncio.run(main(options.kinds or [*KINDS, ALL_AT_ONCE], options.seconds))

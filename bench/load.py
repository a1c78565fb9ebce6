"""The load generator: keep-alive connections that post orders as fast as they are answered."""

import asyncio
import json
import sys
import time
from typing import Any

BODY = json.dumps(
    {"type": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": "1", "slippageBps": 100}
).encode()


async def post_all(host: str, port: int, count: int, connections: int) -> dict[str, Any]:
    """Post `count` orders over `connections` sockets; returns the times and what was not accepted."""
    request = (
        b"POST /v1/orders HTTP/1.1\r\nHost: %b:%d\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (host.encode(), port, len(BODY))
    ) + BODY
    left = count
    latencies: list[float] = []
    refused = 0

    async def connection() -> None:
        nonlocal left, refused
        reader, writer = await asyncio.open_connection(host, port)
        while left > 0:
            left -= 1
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - began)
            if not head.startswith(b"HTTP/1.1 202"):
                refused += 1
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(connections)))
    took = time.perf_counter() - began
    latencies.sort()
    return {
        "took_s": took,
        "refused": refused,
        "post_p50_ms": 1000 * latencies[len(latencies) // 2],
        "post_p99_ms": 1000 * latencies[len(latencies) * 99 // 100],
    }


if __name__ == "__main__":
    import uvloop

    _, host, port, count, connections = sys.argv
    print(json.dumps(uvloop.run(post_all(host, int(port), int(count), int(connections)))))

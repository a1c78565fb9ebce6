"""The load generator: keep-alive connections that post orders as fast as they are answered."""

import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

BODY = json.dumps(
    {"type": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": "1", "slippageBps": 100}
).encode()


async def post_all(url: str, count: int, connections: int, body: bytes) -> dict[str, Any]:
    """Post `count` orders over `connections` sockets; returns the times and what was not accepted."""
    address = urlsplit(url)
    request = (
        b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (address.path.encode(), address.netloc.encode(), len(body))
    ) + body
    left = count
    latencies: list[float] = []
    refused = 0

    async def connection() -> None:
        nonlocal left, refused
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
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

    _, url, count, connections, *body = sys.argv
    posting = post_all(url, int(count), int(connections), body[0].encode() if body else BODY)
    print(json.dumps(uvloop.run(posting)))

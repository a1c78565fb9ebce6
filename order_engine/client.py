"""Talks to a running engine over its HTTP API; what the command line is made of."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

TERMINAL: Final = frozenset({"confirmed", "failed", "cancelled"})
_TIMEOUT_S: Final = 30.0
_MOST_RECONNECTS: Final = 20
_NORMAL: Final = 1000


class EngineUnreachableError(Exception):
    """The engine did not answer."""


class EngineRefusedError(Exception):
    """The engine refused; `problem` is its RFC 9457 document."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        """Keep the whole document."""
        super().__init__(str(problem.get("detail", problem)))
        self.problem = problem


def _problem_of(body: bytes | bytearray | None) -> dict[str, Any]:
    try:
        problem: dict[str, Any] = json.loads(bytes(body or b""))
    except ValueError:
        return {"detail": "What answers there is not an order-engine."}
    return problem


def _path(order_id: str) -> str:
    if "/" in order_id:
        raise EngineRefusedError({"detail": f"There is no order {order_id!r}."})
    return f"/v1/orders/{quote(order_id, safe='')}"


class EngineClient:
    """One engine, by its URL. Use as an async context manager."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """`url` such as http://127.0.0.1:3000."""
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._headers = headers
        self._http = httpx2.AsyncClient(base_url=self._url, headers=headers, timeout=_TIMEOUT_S, trust_env=False)

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def submit(self, order: Mapping[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """Place an order; returns the order resource."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return await self._call("POST", "/v1/orders", json=order, headers=headers)

    async def get(self, order_id: str) -> dict[str, Any]:
        """Return the order resource."""
        return await self._call("GET", _path(order_id))

    async def cancel(self, order_id: str) -> dict[str, Any]:
        """Cancel the order; returns the order resource."""
        return await self._call("DELETE", _path(order_id))

    async def list_orders(self, **filters: Any) -> dict[str, Any]:
        """Return a page of orders and its `nextCursor`."""
        asked = {name: value for name, value in filters.items() if value is not None}
        return await self._call("GET", "/v1/orders", params=asked)

    async def watch(self, order_id: str, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """Yield the order's events, past first, up to the terminal one; survives lost connections."""
        seq = after
        was_connected = False
        for tries in range(_MOST_RECONNECTS):
            address = f"{self._url.replace('http', 'ws', 1)}{_path(order_id)}/stream?after={seq}"
            try:
                async with connect(address, additional_headers=self._headers, proxy=None) as websocket:
                    was_connected = True
                    with contextlib.suppress(ConnectionClosed):
                        async for text in websocket:
                            event = json.loads(text)
                            seq = event["seq"]
                            yield event
                            if event["status"] in TERMINAL:
                                return
                    if websocket.close_code == _NORMAL:
                        return
            except InvalidStatus as error:
                raise EngineRefusedError(_problem_of(error.response.body)) from error
            except (OSError, WebSocketException) as error:
                if not was_connected or tries == _MOST_RECONNECTS - 1:
                    raise EngineUnreachableError(self._unreachable(error)) from error
            await asyncio.sleep(min(2.0, 0.1 * 2**tries))

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = await self._http.request(method, path, **options)
        except httpx2.TransportError as error:
            raise EngineUnreachableError(self._unreachable(error)) from error
        if response.is_error:
            raise EngineRefusedError(_problem_of(response.content))
        body: dict[str, Any] = response.json()
        return body

    def _unreachable(self, error: Exception) -> str:
        return (
            f"No engine answers at {self._url} ({str(error) or type(error).__name__}). "
            "Start one with `order-engine up`, or name another in ENGINE_URL."
        )

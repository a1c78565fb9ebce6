"""Talks to a running engine over its HTTP API; what the command line is made of."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

TERMINAL: Final = frozenset({"confirmed", "failed", "cancelled"})
_TIMEOUT_S: Final = 30.0
_MOST_RECONNECTS: Final = 20
_NORMAL: Final = 1000
# Why a stream ends that may be opened again: going away, lost, a bug, restarting, try again later.
_PASSING: Final = frozenset({1001, 1006, 1011, 1012, 1013})
_UNAVAILABLE: Final = 503
_RETRY_PAUSES_S: Final = (0.5, 1.0, 2.0)


class EngineUnreachableError(Exception):
    """The engine did not answer, or again and again that it cannot now."""


class EngineRefusedError(Exception):
    """The engine refused; `problem` is its RFC 9457 document."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        """Keep the whole document."""
        super().__init__(str(problem.get("detail", problem)))
        self.problem = problem


def _problem_of(body: bytes | bytearray | None) -> dict[str, Any]:
    try:
        problem = json.loads(bytes(body or b""))
    except ValueError:
        problem = None
    return problem if isinstance(problem, dict) else {"detail": "What answers there is not an order-engine."}


def _why_closed(websocket: ClientConnection) -> str:
    """Return why a stream broke off that may be opened again; raises EngineRefusedError for any other."""
    why = f"The stream broke off ({websocket.close_code} {websocket.close_reason}".rstrip() + ")."
    if websocket.close_code not in _PASSING:
        raise EngineRefusedError({"detail": why})
    return why


def _unheard(_sentence: str) -> None:
    """Say nothing: whoever watches need not care."""


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
        # Without a key, trying again could place a second order.
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
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

    async def attempts_in_doubt(self, limit: int) -> dict[str, Any]:
        """Return the attempts whose outcome is not proven yet, and the finalized block height."""
        return await self._call("GET", "/v1/attempts", params={"inDoubt": "true", "limit": limit})

    async def watch(
        self, order_id: str, after: int = 0, on_lost: Callable[[str], None] = _unheard
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the order's events, past first, up to the terminal one; survives lost connections.

        `on_lost` is told in a sentence why the stream is opened again.
        """
        seq, tries, was_connected = after, 0, False
        while True:
            address = f"{self._url.replace('http', 'ws', 1)}{_path(order_id)}/stream?after={seq}"
            try:
                async with connect(address, additional_headers=self._headers, proxy=None) as websocket:
                    was_connected = True
                    with contextlib.suppress(ConnectionClosed):
                        async for text in websocket:
                            event = json.loads(text)
                            seq, tries = event["seq"], 0
                            yield event
                            if event["status"] in TERMINAL:
                                return
                if websocket.close_code == _NORMAL:
                    return
                why = _why_closed(websocket)
            except InvalidStatus as error:
                problem = _problem_of(error.response.body)
                if error.response.status_code != _UNAVAILABLE:
                    raise EngineRefusedError(problem) from error
                why = self._unavailable(problem)
            except (OSError, WebSocketException) as error:
                why = self._unreachable(error)
                if not was_connected:
                    raise EngineUnreachableError(why) from error
            tries += 1
            if tries == _MOST_RECONNECTS:
                raise EngineUnreachableError(why)
            on_lost(f"{why} Reconnecting after seq {seq}.")
            await asyncio.sleep(min(2.0, 0.1 * 2**tries))

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        for pause_s in (*_RETRY_PAUSES_S, None):
            try:
                response = await self._http.request(method, path, **options)
            except httpx2.TransportError as error:
                raise EngineUnreachableError(self._unreachable(error)) from error
            if response.status_code != _UNAVAILABLE:
                break
            if pause_s is None:
                raise EngineUnreachableError(self._unavailable(_problem_of(response.content)))
            await asyncio.sleep(pause_s)
        if response.is_error:
            raise EngineRefusedError(_problem_of(response.content))
        body: dict[str, Any] = response.json()
        return body

    def _unavailable(self, problem: Mapping[str, Any]) -> str:
        return f"The engine at {self._url} cannot answer now: {problem.get('detail', problem)}"

    def _unreachable(self, error: Exception) -> str:
        return (
            f"No engine answers at {self._url} ({str(error) or type(error).__name__}). "
            "Start one with `order-engine up`, or name another in ENGINE_URL."
        )

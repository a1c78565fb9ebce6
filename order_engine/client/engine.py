"""The client: every call is safe to repeat, and is repeated until its time limit."""

import contextlib
import json
import re
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from order_engine.client.calls import Calls, Fate, GaveUpError, Request
from order_engine.client.errors import (
    EngineClientError,
    EngineRefusedError,
    EngineUnreachableError,
    OrderUnknownError,
    UnusableAddressError,
)
from order_engine.client.following import Following
from order_engine.client.patience import Patience
from order_engine.engine_address import AddressError, authorization, parse_engine_address

TERMINAL: Final = frozenset({"confirmed", "failed", "cancelled"})
_UNAVAILABLE: Final = 503
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_MAY_BE_CANCELLED: Final = "Whether the order is cancelled is not known; cancel it again, or look at it."


def new_idempotency_key() -> str:
    """Return a key that no other order has."""
    return str(uuid.uuid4())


class EngineClient:
    """One engine, by its URL. Use as an async context manager.

    A call is repeated over lost connections, restarts, time-outs, 429 and 5xx until `retry_for_s` is up;
    one try takes at most 10 s. Raises the errors of `order_engine.client.errors` and no others.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        retry_for_s: float | None = None,
        on_lost: Callable[[str], None] | None = None,
    ) -> None:
        """`url` such as http://127.0.0.1:3000; `on_lost` is told in a sentence why something is tried again.

        `retry_for_s`: 0 tries once. Without it 60 s, but 20 s until an engine has answered once, and 130 s
        while the engine answers 429.
        """
        try:
            address = parse_engine_address(url)
        except AddressError as error:
            raise UnusableAddressError(f"The engine's URL {error}.") from None
        try:
            credentials = authorization(address, api_key or "")
        except AddressError as error:
            raise UnusableAddressError(f"The API key {error}.") from None
        headers = {"Authorization": credentials} if credentials else {}
        self._patience = patience = Patience(retry_for_s)
        tell = on_lost or (lambda _sentence: None)
        self._calls = Calls(address.http, address.shown, headers, patience, tell)
        self._following = Following(address.websocket, address.shown, headers, patience, tell)

    @property
    def has_answered(self) -> bool:
        """Whether an engine has answered this client once."""
        return self._patience.is_engine_there

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
        await self._calls.close()

    async def submit(self, order: Mapping[str, Any], idempotency_key: str | None = None) -> dict[str, Any]:
        """Place an order; returns the order resource.

        Every try carries the same key, so that a lost answer does not place a second order. Without
        `idempotency_key` a new one is made; every error has it as `idempotency_key`. Raises
        EngineRefusedError and EngineUnreachableError only when no order was placed, else OrderUnknownError;
        TypeError and ValueError for an order that is not JSON.
        """
        key = new_idempotency_key() if idempotency_key is None else idempotency_key
        if not _KEY.fullmatch(key):
            raise EngineRefusedError({"detail": "Idempotency-Key must be 1-255 visible ASCII characters."})
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        content = json.dumps(dict(order), allow_nan=False).encode()
        fate = Fate()
        try:
            return await self._calls.call(
                Request("POST", "/v1/orders", "orderId", headers=headers, content=content), fate
            )
        except EngineRefusedError as error:
            error.idempotency_key = key
            if fate.may_be_done:
                raise OrderUnknownError(f"A later try was refused: {error}", key) from error
            raise
        except GaveUpError as error:
            raise _unplaced(error, fate, key) from error
        except BaseException as error:
            if fate.may_be_done:
                # Cancelled or interrupted: a traceback shows it, also one of the TimeoutError that follows.
                error.add_note(f"The order may have been placed; repeat it with idempotency_key={key!r}.")
            raise

    async def get(self, order_id: str) -> dict[str, Any]:
        """Return the order resource."""
        return await self._answer_to(Request("GET", _path(order_id), "orderId"))

    async def cancel(self, order_id: str) -> dict[str, Any]:
        """Cancel the order; returns the order resource. A cancelled order is returned as it is."""
        return await self._answer_to(Request("DELETE", _path(order_id), "orderId"), _MAY_BE_CANCELLED)

    async def list_orders(self, **filters: Any) -> dict[str, Any]:
        """Return a page of orders, newest first, and its `nextCursor`, which is None on the last page."""
        asked = {name: value for name, value in filters.items() if value is not None}
        return await self._answer_to(Request("GET", "/v1/orders", "orders", asked))

    async def list_all(self, **filters: Any) -> AsyncGenerator[dict[str, Any]]:
        """Yield every page of orders, newest first."""
        cursor = filters.pop("cursor", None)
        while True:
            page = await self.list_orders(**filters, cursor=cursor)
            yield page
            cursor = page["nextCursor"]
            if cursor is None:
                return

    async def attempts_in_doubt(self, limit: int) -> dict[str, Any]:
        """Return the attempts whose outcome is not proven yet, and the finalized block height."""
        return await self._answer_to(Request("GET", "/v1/attempts", "attempts", {"inDoubt": "true", "limit": limit}))

    async def readiness(self) -> dict[str, Any]:
        """Return the engine's health: `status`, the `reasons` why it is not ready, and each part's state."""
        return await self._answer_to(Request("GET", "/ready", "dependencies", also=(_UNAVAILABLE,)))

    async def watch(self, order_id: str, after: int = 0) -> AsyncGenerator[dict[str, Any], None]:
        """Yield each event of the order once, past events first, up to the terminal one; survives lost connections."""
        path, seq = _path(order_id), after
        events = self._following.documents(
            "seq", lambda: f"{path}/stream?after={seq}", lambda: f"after seq {seq}", has_end=True
        )
        async with contextlib.aclosing(events):
            async for event in events:
                if event["seq"] <= seq:
                    continue
                seq = event["seq"]
                yield event
                if event["status"] in TERMINAL:
                    return

    async def stream(self, after: str | None = None) -> AsyncGenerator[dict[str, Any], None]:
        """Yield pages `{"cursor": …, "events": […]}` of all orders' events; it does not end.

        From now on, or from the cursor of a page that was seen before ("0": from the first event ever).
        Survives lost connections; each event comes once. To go on in another process, keep the cursor of
        the last page whose events are dealt with. Raises EngineRefusedError for a cursor of another log.
        """
        cursor = after

        def path() -> str:
            return "/v1/stream" if cursor is None else f"/v1/stream?after={quote(cursor, safe='')}"

        pages = self._following.documents(
            "cursor", path, lambda: "now" if cursor is None else f"after cursor {cursor}", has_end=False
        )
        async with contextlib.aclosing(pages):
            async for page in pages:
                is_new = bool(page["events"]) or page["cursor"] != cursor
                cursor = page["cursor"]
                if is_new:
                    yield page

    async def _answer_to(self, request: Request, if_unknown: str = "") -> dict[str, Any]:
        fate = Fate()
        try:
            return await self._calls.call(request, fate)
        except GaveUpError as error:
            if error.problem is not None and not fate.may_be_done:
                raise EngineRefusedError(error.problem) from error
            sentence = f"{error} {if_unknown}" if fate.may_be_done else str(error)
            raise EngineUnreachableError(sentence.rstrip()) from error


def _unplaced(error: GaveUpError, fate: Fate, key: str) -> EngineClientError:
    """Return the error for an order without an answer: either it was not placed, or it may have been."""
    if fate.may_be_done:
        return OrderUnknownError(str(error), key)
    unplaced: EngineClientError
    if error.problem is not None:
        unplaced = EngineRefusedError(error.problem)
    else:
        unplaced = EngineUnreachableError(f"The order was not placed. {error}")
    unplaced.idempotency_key = key
    return unplaced


def _path(order_id: str) -> str:
    # No order can have these names, because a path with one of them is another resource's.
    if order_id in ("", ".", ".."):
        raise EngineRefusedError({"detail": f"There is no order {order_id!r}."})
    try:
        return f"/v1/orders/{quote(order_id, safe='')}"
    except UnicodeEncodeError:
        # The command line had bytes that are not text.
        raise EngineRefusedError({"detail": f"There is no order {order_id!r}."}) from None

"""Finds the caller of a request by API key or ticket. Keys are remembered for 3 s."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from order_engine.domain.access import (
    KEY_PREFIX,
    SECRET_BYTES,
    TICKET_PREFIX,
    ApiKey,
    Caller,
    Scope,
    digest_of,
    write_secret,
)
from order_engine.domain.errors import Unauthorized
from order_engine.domain.order import EpochMs
from order_engine.ports.access import AccessStore, Actor
from order_engine.ports.clock import Clock

# Together with a look at the database a revoked key is dead within 5 s.
_REMEMBERED_S: Final = 3.0
_MAX_REMEMBERED: Final = 10_000
_REFRESH_EVERY_S: Final = 2.0
_USES_KEPT_EVERY_S: Final = 60.0
TICKET_LIVES_MS: Final = 30_000


class Callers:
    """The callers of this process. `is_open`: the engine has no API keys, so it serves this machine alone."""

    def __init__(
        self,
        store: AccessStore,
        clock: Clock,
        now_s: Callable[[], float],
        new_key_id: Callable[[], str],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """`now_s`: a monotonic clock; `random_bytes`: from a source for secrets."""
        self._store = store
        self._clock = clock
        self._now_s = now_s
        self._new_key_id = new_key_id
        self._random_bytes = random_bytes
        self.is_open = False
        # By digest: the key or None, and when it was read; the one that was read first stands first.
        self._known: OrderedDict[bytes, tuple[ApiKey | None, float]] = OrderedDict()
        self._reading: dict[bytes, asyncio.Task[ApiKey | None]] = {}
        self._used: dict[str, EpochMs] = {}
        self._uses_kept_s = now_s()
        # Callers with an open stream, each with the future that ends its streams.
        self._watched: dict[str, asyncio.Future[None]] = {}

    async def identify(self, secret: str) -> Caller:
        """Return the caller with this API key. Raises Unauthorized, StoreUnavailable."""
        digest = digest_of(secret, KEY_PREFIX)
        if digest is None:
            raise Unauthorized("This is not an API key of an order-engine: one begins with oe_ and ends in a checksum.")
        known = self._known.get(digest)
        if known is None or self._now_s() - known[1] > _REMEMBERED_S:
            key = await self._read(digest)
        else:
            key = known[0]
        if key is None:
            raise Unauthorized("This engine does not know the API key.")
        now_ms = self._clock.now_ms()
        if (trouble := key.why_dead(now_ms)) is not None:
            raise Unauthorized(f"The API key cannot be used: {trouble}.")
        self._used[key.key_id] = now_ms
        return key.caller

    async def redeem(self, ticket: str) -> Caller:
        """Return the caller of a ticket, which is used up then. Raises Unauthorized, StoreUnavailable."""
        digest = digest_of(ticket, TICKET_PREFIX)
        caller = None if digest is None else await self._store.redeem_ticket(digest)
        if caller is None:
            raise Unauthorized("The ticket is unknown, used already or older than 30 s; ask for another one.")
        return caller

    async def make_ticket(self, caller: Caller) -> tuple[str, EpochMs]:
        """Return a new ticket for the caller, and when it ends. Raises StoreUnavailable."""
        ticket = write_secret(TICKET_PREFIX, self._random_bytes(SECRET_BYTES))
        digest = digest_of(ticket, TICKET_PREFIX)
        assert digest is not None  # noqa: S101 - it was just written
        await self._store.add_ticket(digest, caller, TICKET_LIVES_MS)
        return ticket, EpochMs(self._clock.now_ms() + TICKET_LIVES_MS)

    async def make_key(
        self, account: str, scopes: frozenset[Scope], label: str, expires_in_ms: int | None, actor: Actor
    ) -> tuple[str, ApiKey]:
        """Keep a new key; return its text, which is not kept, and the key. Raises StoreUnavailable."""
        secret = write_secret(KEY_PREFIX, self._random_bytes(SECRET_BYTES))
        digest = digest_of(secret, KEY_PREFIX)
        assert digest is not None  # noqa: S101 - it was just written
        now_ms = self._clock.now_ms()
        expires_at_ms = None if expires_in_ms is None else EpochMs(now_ms + expires_in_ms)
        key = ApiKey(self._new_key_id(), account, scopes, label, now_ms, expires_at_ms)
        await self._store.create_key(key, digest, actor)
        self.is_open = False
        self._known.pop(digest, None)
        return secret, key

    async def revoke(self, key_id: str, actor: Actor) -> ApiKey | None:
        """Revoke a key, at once in this process; None if there is none. Raises StoreUnavailable."""
        revoked = await self._store.revoke_key(key_id, actor)
        self._known.clear()
        self._end_streams({key_id})
        return revoked

    def death_of(self, caller: Caller) -> "asyncio.Future[None] | None":
        """Return a future that is done when the caller's key is dead; None for a caller without a key."""
        if caller.key_id is None:
            return None
        found = self._watched.get(caller.key_id)
        if found is None:
            found = self._watched[caller.key_id] = asyncio.get_running_loop().create_future()
        return found

    async def refresh(self) -> float:
        """Look whether there are keys, and which are dead; returns the pause in s. Raises StoreUnavailable."""
        self.is_open = not await self._store.has_keys()
        if self._watched:
            self._end_streams(await self._store.dead_keys([*self._watched]))
        if self._used and self._now_s() - self._uses_kept_s >= _USES_KEPT_EVERY_S:
            used, self._used = self._used, {}
            self._uses_kept_s = self._now_s()
            await self._store.note_used(used)
        return _REFRESH_EVERY_S

    def _end_streams(self, key_ids: set[str]) -> None:
        for key_id in key_ids:
            death = self._watched.pop(key_id, None)
            if death is not None and not death.done():
                death.set_result(None)

    async def _read(self, digest: bytes) -> ApiKey | None:
        """Read a key; requests that need the same one share one read."""
        reading = self._reading.get(digest)
        if reading is None:
            reading = self._reading[digest] = asyncio.create_task(self._store.find_key(digest))
            reading.add_done_callback(lambda done: self._remember(digest, done))
        return await asyncio.shield(reading)

    def _remember(self, digest: bytes, done: "asyncio.Task[ApiKey | None]") -> None:
        del self._reading[digest]
        if done.cancelled() or done.exception() is not None:
            return
        self._known.pop(digest, None)
        self._known[digest] = (done.result(), self._now_s())
        if len(self._known) > _MAX_REMEMBERED:
            self._known.popitem(last=False)

"""Buses and limiters of one engine or of several."""

import secrets
from uuid import uuid4

from order_engine.bus.redis import RedisBus
from order_engine.bus.redis_link import RedisNames
from order_engine.clock import SystemClock
from order_engine.counters import Counters
from order_engine.ports.store import EngineIdentity

PREFIX = "test"


def new_identity() -> EngineIdentity:
    """The identity of a new engine."""
    return EngineIdentity(str(uuid4()), secrets.token_bytes(32))


def names_of(identity: EngineIdentity, prefix: str = PREFIX) -> RedisNames:
    """The keys and channels of an engine."""
    return RedisNames(prefix, identity)


async def start_bus(url: str, identity: EngineIdentity | None = None, prefix: str = PREFIX) -> RedisBus:
    """Start a bus of this engine, or of a new engine."""
    bus = RedisBus(url, prefix, SystemClock(), Counters())
    bus.identify(identity or new_identity())
    await bus.start()
    return bus


async def close(bus: RedisBus) -> None:
    """Send the waiting ids and events, and disconnect."""
    bus.stop()
    await bus.run()

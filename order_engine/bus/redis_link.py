"""Redis as the bus reaches it: the client, the names of this engine's keys, and why Redis refuses."""

from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, MasterDownError, ReadOnlyError, RedisError

from order_engine import observe
from order_engine.ports.store import EngineIdentity

TIMEOUT_S: Final = 2.0
RECONNECT_S: Final = 0.25
LOST: Final = (RedisError, OSError, TimeoutError)
# Events are published on channels by their account and their order's id; a process listens to those with a
# subscription. So an account that is watched costs little when other accounts are busy.
GROUPS: Final = 16
SHARDS_OF_GROUP: Final = 64
SHARDS: Final = GROUPS * SHARDS_OF_GROUP
# After one of these errors, another server may be the right one, or a new connection may be accepted.
_WRONG_SERVER: Final = (ReadOnlyError, MasterDownError, BusyLoadingError, AuthenticationError)
_MAX_REASON: Final = 300


class RedisNames:
    """The keys and channels of one engine: no other engine uses them, also not on the same Redis."""

    def __init__(self, prefix: str, identity: EngineIdentity) -> None:
        """Begin each name with the prefix and the id that the database keeps.

        Publish and subscribe ignores the database number, so two engines on one Redis would otherwise share channels.
        """
        root = f"{prefix}:{identity.engine_id}"
        self.ready = f"{root}:ready"
        self.rate = f"{root}:rate"
        self.channels = [f"{root}:events:{shard}" for shard in range(SHARDS)]
        # Nothing is published on this channel; its subscription is confirmed on every connection that works.
        self.alive = f"{root}:alive"


class Trouble:
    """The reason that Redis does not work now; logs one line when an outage begins, and one when it ends."""

    def __init__(self) -> None:
        """Begin without any."""
        self._reasons: dict[str, str] = {}

    @property
    def reason(self) -> str | None:
        """The first reason of this outage; None without an outage."""
        return next(iter(self._reasons.values()), None)

    def note(self, part: str, error: BaseException) -> None:
        """Remember why a part of the bus (`send`, `take`, `listen`, `count`) failed."""
        is_first = not self._reasons
        self._reasons.setdefault(part, describe(error))
        if is_first:
            observe.bus_lost(self._reasons[part])

    def is_noted(self, part: str) -> bool:
        """Return whether this part failed and has not worked since."""
        return part in self._reasons

    def clear(self, part: str) -> bool:
        """Forget the reason of a part that works again; returns whether there was one."""
        was_noted = self._reasons.pop(part, None) is not None
        if was_noted and not self._reasons:
            observe.bus_recovered()
        return was_noted


def describe(error: BaseException) -> str:
    """Return Redis's own words with its code before them, such as "READONLY You can't write against ..."."""
    text = " ".join(str(error).split()) or type(error).__name__
    code = getattr(error, "status_code", None)
    return (text if code is None or text.startswith(code) else f"{code} {text}")[:_MAX_REASON]


async def leave_wrong_server(client: Redis, error: BaseException) -> None:
    """End the idle connections if the error says that writes belong elsewhere now, as after a failover."""
    if isinstance(error, _WRONG_SERVER):
        await client.connection_pool.disconnect(inuse_connections=False)


def connect(url: str) -> Redis:
    """Return a client that does not retry, because a retry would hide the loss from the caller."""
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    }
    client: Redis = Redis.from_url(url, **options)
    return client

"""Named points in an order's path at which a process can be made to kill itself, set from outside.

A process that the zygote starts with KILL_AT="before the signature is recorded:3" kills itself with
SIGKILL the third time it gets there, after it has noted the point in the file of KILL_MARKS.
"""

import asyncio
import functools
import importlib
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

Test = Callable[[Any], bool]


class Point(NamedTuple):
    """A method, before or after which the process dies; `is_meant` selects some of its calls."""

    target: str
    is_meant: Test = lambda _argument: True
    # How a process gets there: "SIGTERM" if ordinary work does not reach the point.
    needs: str = "work"


_STORE: Final = "order_engine.store.postgres.store:PostgresStore"
_CHAIN: Final = "order_engine.chain.client:SolanaChain"
_BUS: Final = "order_engine.bus.redis:RedisBus"


def _query(name: str) -> Point:
    return Point(f"{_STORE}._fetch", lambda query: query == name)


def _writes(kind: str) -> Point:
    def is_meant(writes: Any) -> bool:
        signed, proven = any(it.signed for it in writes), any(it.proven for it in writes)
        return {"signed": signed, "proven": proven, "other": not signed and not proven}[kind]

    return Point(f"{_STORE}._write_folded", is_meant)


WORKER: Final[Mapping[str, Point]] = {
    "announced orders are popped": Point(f"{_BUS}.pop"),
    "announced orders are claimed": _query("claim"),
    "due orders are claimed": _query("claim_due"),
    "dead workers are looked for": _query("dead_workers"),
    "poison orders are looked for": _query("claim_poison"),
    "leases of dead workers are ended": _query("expire_leases"),
    "the genesis hash is kept": _query("pin_cluster"),
    "the order is run": Point("order_engine.engine.executor:Executor.run"),
    "a venue is asked": Point("order_engine.paper.venue:PaperVenue.quote"),
    "the route is recorded": _writes("other"),
    "the swap is built": Point("order_engine.paper.venue:PaperVenue.build"),
    "the blockhash is read": Point(f"{_CHAIN}.latest_blockhash"),
    "the transaction is signed": Point("order_engine.chain.assembly:SolanaAssembly.signed"),
    "the signature is recorded": _writes("signed"),
    "the transaction is sent": Point(f"{_CHAIN}.send_many"),
    "the send is on the wire": Point(
        "order_engine.chain.rpc:HttpTransport.post", lambda body: b"sendTransaction" in body
    ),
    "the finalized height is read": Point(f"{_CHAIN}.finalized_point"),
    "the statuses are read": Point(f"{_CHAIN}.signature_statuses"),
    "the swap's result is read": Point(f"{_CHAIN}.swap_results"),
    "the outcome is proven": Point("order_engine.engine.settlement:Settlement.prove"),
    "the proof is recorded": _writes("proven"),
    "events are published": Point(f"{_BUS}._send_batch"),
    "leases are renewed": _query("renew"),
    "orders are released": Point(f"{_STORE}.release", needs="SIGTERM"),
}
API: Final[Mapping[str, Point]] = {
    "the order is submitted": Point("order_engine.engine.intake:Intake.submit_order"),
    "orders are accepted": _query("accept"),
    "first answers are found": _query("find_by_keys"),
    "new orders are announced": Point(f"{_BUS}._send_batch"),
    "histories are read": _query("history"),
}
CHAIN: Final[Mapping[str, Point]] = {
    "the transaction is received": Point("order_engine.paper.network:PaperNetwork.receive"),
    "swaps are appended to the ledger": Point("order_engine.paper.ledger:SqliteLedger.append"),
    "swaps are looked up": Point("order_engine.paper.ledger:SqliteLedger.find"),
}
BY_ROLE: Final = {"worker": WORKER, "api": API, "chain": CHAIN}


def names(role: str) -> list[str]:
    """Every point of a role, before and after each call."""
    return [f"{when} {name}" for name in BY_ROLE[role] for when in ("before", "after")]


def point_of(role: str, name: str) -> Point:
    """Return the point of this name."""
    return BY_ROLE[role][name.partition(" ")[2]]


def arm(role: str, kill_at: str, marks: str) -> None:
    """Wrap the point's call in this process; `kill_at` is the point's name, a colon and a count."""
    name, _, nth = kill_at.rpartition(":")
    point = point_of(role, name)
    left = int(nth)

    def reached() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            _mark(marks, name)
            os.kill(os.getpid(), signal.SIGKILL)

    module, _, path = point.target.partition(":")
    owner_name, method = path.split(".")
    owner = getattr(importlib.import_module(module), owner_name)
    setattr(owner, method, _wrapped(getattr(owner, method), point, reached, is_before=name.startswith("before ")))


def _mark(marks: str, name: str) -> None:
    file = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{name}\n".encode())
    os.close(file)


def _wrapped(call: Any, point: Point, reached: Callable[[], None], *, is_before: bool) -> Any:
    def is_meant(arguments: tuple[Any, ...]) -> bool:
        return point.is_meant(arguments[1] if len(arguments) > 1 else None)

    if asyncio.iscoroutinefunction(call):

        @functools.wraps(call)
        async def wrapped(*arguments: Any, **named: Any) -> Any:
            if is_before and is_meant(arguments):
                reached()
            result = await call(*arguments, **named)
            if not is_before and is_meant(arguments):
                reached()
            return result

        return wrapped

    @functools.wraps(call)
    def wrapped_plain(*arguments: Any, **named: Any) -> Any:
        if is_before and is_meant(arguments):
            reached()
        result = call(*arguments, **named)
        if not is_before and is_meant(arguments):
            reached()
        return result

    return wrapped_plain


# --- a poison order: each worker that works on it dies -------------------------------------------


def poison(amount_in: str) -> None:
    """Kill this process when a venue is asked for a quote over that many base units."""
    from order_engine.paper.venue import PaperVenue  # noqa: PLC0415 - only a process that is to be killed needs it

    quote = PaperVenue.quote

    async def poisoned(self: PaperVenue, request: Any) -> Any:
        if request.amount_in == int(amount_in):
            os.kill(os.getpid(), signal.SIGKILL)
        return await quote(self, request)

    PaperVenue.quote = poisoned  # type: ignore[method-assign]

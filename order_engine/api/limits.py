"""How much one client may ask of a process: connections, frames and bytes. Pure counting; the time is passed in."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from order_engine import observe
from order_engine.counters import Faults

MAX_CONNECTIONS: Final = 10_000
MAX_CONNECTIONS_PER_ADDRESS: Final = 2_000
MAX_FRAMES_PER_WINDOW: Final = 200
MAX_KIB_PER_WINDOW: Final = 128
WINDOW_S: Final = 10.0
# A read costs the process as much as this many bytes, even if it brings only one.
_READ_COST_BYTES: Final = 64
# A client's next handshake waits this long for each close for too many frames in the last 10 s, and at most 10 s.
_DELAY_PER_OFFENCE_S: Final = 0.05
_MAX_DELAY_S: Final = 10.0
_MAX_OFFENDERS: Final = 10_000
# Connections beyond the limit that may wait for their 503; further ones are closed at once.
_MAX_REFUSED_AT_ONCE: Final = 256


def _trusts_no_proxy(_address: str) -> bool:
    return False


def _no_forwarded_client(_scope: Mapping[str, Any]) -> str | None:
    return None


class Limits(msgspec.Struct, frozen=True):
    """The limits of one server; 0 switches one off.

    A connection of a trusted proxy carries the requests of many clients. So it counts for no
    address; each of its requests counts for the client that `forwarded_client` reads from the
    request's ASGI scope, for as long as the request lasts.
    """

    connections: int = MAX_CONNECTIONS
    connections_per_address: int = MAX_CONNECTIONS_PER_ADDRESS
    frames_per_window: int = MAX_FRAMES_PER_WINDOW
    kib_per_window: int = MAX_KIB_PER_WINDOW
    is_trusted_proxy: Callable[[str], bool] = _trusts_no_proxy
    forwarded_client: Callable[[Mapping[str, Any]], str | None] = _no_forwarded_client


class Refusal(msgspec.Struct, frozen=True):
    """Why a connection is refused: the stable code and the sentence."""

    code: str
    detail: str


class Seats:
    """The open connections of a process, in all and by address."""

    def __init__(self, limits: Limits, faults: Faults | None = None) -> None:
        """Start without any connection; `faults` of the clients are counted there."""
        self.limits = limits
        self.faults = faults or Faults()
        self._taken = 0
        self._refused = 0
        self._by_address: Counter[str] = Counter()
        self.offenders = Offenders()

    def take(self, address: str) -> "Seat":
        """Count a new connection; the seat says whether it is refused."""
        refusal = None
        if self.limits.connections and self._taken - self._refused >= self.limits.connections:
            message = f"This process already serves {self.limits.connections} connections."
            refusal = Refusal("too_many_connections", message)
        counted = None if self.limits.is_trusted_proxy(address) else address
        refusal = refusal or self._refusal_of(counted)
        is_hopeless = refusal is not None and self._refused >= _MAX_REFUSED_AT_ONCE
        self._taken += 1
        if refusal is not None:
            self._refused += 1
            counted = None
        elif counted is not None:
            self._by_address[counted] += 1
        return Seat(self, counted, refusal, is_hopeless=is_hopeless)

    def leave(self, seat: "Seat") -> None:
        """Use Seat.leave."""
        self._taken -= 1
        self._refused -= seat.refusal is not None
        if seat.address is not None:
            self._forget(seat.address)

    def begin_request(self, address: str) -> Refusal | None:
        """Count a request that a proxy passes on for this address; call `end_request` later unless it is refused."""
        refusal = self._refusal_of(address)
        if refusal is None:
            self._by_address[address] += 1
        return refusal

    def end_request(self, address: str) -> None:
        """Uncount the request."""
        self._forget(address)

    def _refusal_of(self, address: str | None) -> Refusal | None:
        most = self.limits.connections_per_address
        if address is None or not most or self._by_address[address] < most:
            return None
        return Refusal("too_many_connections", f"The address {address} already has {most} connections.")

    def _forget(self, address: str) -> None:
        self._by_address[address] -= 1
        if self._by_address[address] <= 0:
            del self._by_address[address]


class Seat:
    """One connection's place. `refusal`: it gets a 503. `is_hopeless`: it is closed without an answer."""

    def __init__(self, seats: Seats, address: str | None, refusal: Refusal | None, *, is_hopeless: bool) -> None:
        """Use Seats.take."""
        self._seats = seats
        self._is_taken = True
        self.address = address
        self.refusal = refusal
        self.is_hopeless = is_hopeless

    def leave(self) -> None:
        """Free the place; the second call does nothing."""
        if self._is_taken:
            self._is_taken = False
            self._seats.leave(self)


class Visit:
    """A WebSocket's place among the connections, and the address that it counts for."""

    def __init__(self, seats: Seats, seat: Seat, forwarded: str | None, address: str) -> None:
        """`forwarded`: the client that a trusted proxy named, which is counted already."""
        self._seats = seats
        self._seat = seat
        self._forwarded = forwarded
        self.address = address
        self.budget = Budget(seats.limits)

    def delay_s(self, now_s: float) -> float:
        """Return how long the handshake waits."""
        return self._seats.offenders.delay_s(self.address, now_s)

    def offend(self, now_s: float) -> None:
        """The client broke a rule of the protocol, or the budget."""
        self._seats.offenders.add(self.address, now_s)

    def blame(self, kind: str, now_s: float) -> None:
        """Count a fault of the client for the log."""
        observe.client_at_fault(self._seats.faults, kind, self.address, now_s)

    def end(self) -> None:
        """Free the place."""
        self._seat.leave()
        if self._forwarded is not None:
            self._seats.end_request(self._forwarded)
            self._forwarded = None


class Offenders:
    """Addresses whose WebSockets were closed for too many frames: their next handshakes are delayed."""

    def __init__(self) -> None:
        """Start without any."""
        self._offences: Counter[str] = Counter()
        self._ends_at = 0.0

    def add(self, address: str, now_s: float) -> None:
        """Count an offence."""
        self._forget_old(now_s)
        if address in self._offences or len(self._offences) < _MAX_OFFENDERS:
            self._offences[address] += 1

    def delay_s(self, address: str, now_s: float) -> float:
        """Return how long the next handshake of this address waits."""
        self._forget_old(now_s)
        return min(_DELAY_PER_OFFENCE_S * self._offences[address], _MAX_DELAY_S)

    def _forget_old(self, now_s: float) -> None:
        """Halve all counts every 10 s, so that a client that stops is soon forgotten."""
        if now_s >= self._ends_at:
            windows = int((now_s - self._ends_at) // WINDOW_S) + 1
            self._ends_at = now_s + WINDOW_S
            halved = {address: count >> windows for address, count in self._offences.items()}
            self._offences = Counter({address: count for address, count in halved.items() if count})


class Budget:
    """Frames and bytes that one WebSocket client may send in each window of 10 s."""

    def __init__(self, limits: Limits) -> None:
        """The first window begins with the first read."""
        self._most_frames = limits.frames_per_window
        self._most_bytes = limits.kib_per_window * 1024
        self._ends_at = 0.0
        self._frames = self._bytes = 0

    def take_read(self, size: int, now_s: float) -> bool:
        """Count the bytes that one read brought; returns whether they are within the budget."""
        if now_s >= self._ends_at:
            self._ends_at = now_s + WINDOW_S
            self._frames = self._bytes = 0
        self._bytes += max(size, _READ_COST_BYTES)
        return not self._most_bytes or self._bytes <= self._most_bytes

    def take_frame(self) -> bool:
        """Count a frame of the last read; returns whether it is within the budget."""
        self._frames += 1
        return not self._most_frames or self._frames <= self._most_frames

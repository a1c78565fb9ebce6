"""Proof that a message on Redis comes from this engine: other programs can publish, but do not know the secret."""

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from order_engine.domain.events import OrderEvent
from order_engine.ports.clock import Clock

_PROOF_BYTES: Final = 16
_TIME_BYTES: Final = 8
_MAX_SEEN: Final = 20_000
# Longer than the difference between the clocks of an engine's machines, and shorter than a restore of a backup.
MAX_AGE_MS: Final = 30_000

_decoder = msgspec.json.Decoder(list[OrderEvent])


class Seal:
    """Seals batches of events for a channel, and opens those that were sealed with the same secret.

    A replayed message is harmless. A stream passes an event on only if its seq is the next one, and an
    event that was committed never changes, so the log says the same. A restored backup is the exception:
    the log then lacks events that were published before. So a message older than 30 s is rejected, and the same message
    is accepted only once, so that many replays do not cause reads of the log.
    """

    def __init__(self, secret: bytes, clock: Clock) -> None:
        """`secret` is kept in the database and nowhere else."""
        self._secret = secret
        self._clock = clock
        # The last proofs that were accepted, oldest first.
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def close(self, channel: str, events: Sequence[OrderEvent]) -> bytes:
        """Return the message: its proof, when it was sent, and the events."""
        sealed = self._clock.now_ms().to_bytes(_TIME_BYTES, "big") + msgspec.json.encode(events)
        return self._proof(channel.encode(), sealed) + sealed

    def open(self, channel: bytes, message: bytes) -> list[OrderEvent] | None:
        """Return the events; [] if they are proven, but old or of another release; None if forged or replayed."""
        proof, sealed = message[:_PROOF_BYTES], message[_PROOF_BYTES:]
        if not hmac.compare_digest(proof, self._proof(channel, sealed)) or proof in self._seen:
            return None
        self._seen[proof] = None
        if len(self._seen) > _MAX_SEEN:
            self._seen.popitem(last=False)
        sent_ms = int.from_bytes(sealed[:_TIME_BYTES], "big")
        if abs(self._clock.now_ms() - sent_ms) > MAX_AGE_MS:
            return []
        try:
            return _decoder.decode(sealed[_TIME_BYTES:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return []

    def _proof(self, channel: bytes, sealed: bytes) -> bytes:
        hashed = hashlib.blake2b(key=self._secret, digest_size=_PROOF_BYTES)
        # The length separates the channel's name from the message.
        hashed.update(len(channel).to_bytes(2, "big") + channel)
        hashed.update(sealed)
        return hashed.digest()

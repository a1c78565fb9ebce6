"""Points of the chain (a block height and its slot), and which of them can be true together.

A node can lie about any number: a public gateway answered the slot where the block height belongs
for weeks. Three facts hold on every Solana cluster, whatever a node says:

- A slot has at most one block. So between two points the height grows by no more than the slot,
  and it never falls.
- Slots take time: 400 ms each on today's clusters.
- A transaction can land in 150 blocks, so it is dead after 150 slots and those that were skipped.
"""

from typing import Final

import msgspec

# Twice as fast as today's clusters, so that a faster cluster is still believed.
_FASTEST_SLOT_MS: Final = 200
# Finality can stand still and then catch up at once, and a node can lag when we sign.
_CATCH_UP_SLOTS: Final = 512
# Out of some 180 slots in which a transaction can land, so many can be skipped before a false height
# could make it look expired too early.
_SKIPPED_SLOTS: Final = 32


class ChainPoint(msgspec.Struct, frozen=True):
    """A block height and the slot of that block, as a node told them in one answer."""

    block_height: int
    slot: int

    def agrees_with(self, other: "ChainPoint") -> bool:
        """Return whether both can be points of one chain: the later slot is higher, by one block a slot at most."""
        earlier, later = sorted((self, other), key=lambda point: point.slot)
        return 0 <= later.block_height - earlier.block_height <= later.slot - earlier.slot


def latest_possible_slot(earlier_slot: int, elapsed_ms: int) -> int:
    """Return the slot that no cluster can have passed `elapsed_ms` after `earlier_slot` was finalized."""
    return earlier_slot + _CATCH_UP_SLOTS + max(0, elapsed_ms) // _FASTEST_SLOT_MS


def is_past_expiry(signed: ChainPoint, last_valid_block_height: int, finalized: ChainPoint) -> bool:
    """Return whether a transaction can no longer land, given a finalized point that agrees with `signed`.

    `signed` was finalized when the transaction was signed. The height alone decides on an honest node.
    The slots guard against a height that is false by a little: blocks that were still to come when we
    signed have taken at least as many slots.
    """
    blocks_left = last_valid_block_height - signed.block_height
    slots_gone = finalized.slot - signed.slot
    return finalized.block_height > last_valid_block_height and slots_gone > blocks_left + _SKIPPED_SLOTS


class PointMemory:
    """Remembers what was believed since a transaction was signed, and refuses points that cannot follow from it."""

    def __init__(self, signed: ChainPoint) -> None:
        """`signed`: the finalized point that was kept with the transaction."""
        self._signed = signed
        self._latest = signed

    def why_impossible(self, point: ChainPoint, elapsed_ms: int) -> str | None:
        """Return in words why the point cannot be true, or None and remember it.

        `elapsed_ms`: the time since the transaction was signed.
        """
        told = f"block height {point.block_height} at slot {point.slot}"
        for known in (self._signed, self._latest):
            if not point.agrees_with(known):
                return f"{told} contradicts block height {known.block_height} at slot {known.slot}"
        if point.slot > latest_possible_slot(self._signed.slot, elapsed_ms):
            return f"{told} is further than a cluster gets in {elapsed_ms} ms from slot {self._signed.slot}"
        if point.slot > self._latest.slot:
            self._latest = point
        return None

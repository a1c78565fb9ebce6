"""Points of the chain (a block height and its slot), and which of them can be true together.

A node can give any number wrongly: for weeks, a public gateway returned the slot as the block height.
Three facts hold on every Solana cluster, even if a node contradicts them:

- A slot has at most one block. So between two points the height grows by no more than the slot,
  and it never falls.
- Slots take time: 400 ms each on today's clusters.
- A transaction can land in 150 blocks, so it is dead after 150 slots and those that were skipped.
"""

from typing import Final

import msgspec

# Half of today's 400 ms, so that the answers of a faster cluster are still believed.
_FASTEST_SLOT_MS: Final = 200
# 32 slots for late clocks and answers. If the node lagged when we signed, true points are believed later.
_LATE_SLOTS: Final = 32
# Agave's MAX_PROCESSING_AGE: the newest blockhash is good for 150 blocks from its own.
MAX_AGE_BLOCKS: Final = 150
# A transaction can land in about 180 slots. Up to 32 of them can be skipped before a false height could make
# it look expired too early.
_SKIPPED_SLOTS: Final = 32
# 73 s. On today's clusters (400 ms a slot) finality proves no expiry earlier, so this wait costs nothing. It
# keeps us from signing again while the first transaction can still land, if all answers of a node are ahead.
_EARLIEST_EXPIRY_MS: Final = (MAX_AGE_BLOCKS + _SKIPPED_SLOTS) * 400


class ChainPoint(msgspec.Struct, frozen=True):
    """A block height and the slot of that block, as a node told them in one answer."""

    block_height: int
    slot: int

    def agrees_with(self, other: "ChainPoint") -> bool:
        """Return whether both can be points of one chain: the later slot is higher, by one block a slot at most."""
        earlier, later = sorted((self, other), key=lambda point: point.slot)
        return 0 <= later.block_height - earlier.block_height <= later.slot - earlier.slot


def latest_possible_slot(blockhash_slot: int, elapsed_ms: int) -> int:
    """Return the highest slot that a cluster can reach `elapsed_ms` after the blockhash of a slot was the newest."""
    return blockhash_slot + _LATE_SLOTS + max(0, elapsed_ms) // _FASTEST_SLOT_MS


def is_past_expiry(blockhash_slot: int, last_valid_block_height: int, finalized: ChainPoint, elapsed_ms: int) -> bool:
    """Return whether a transaction that was signed `elapsed_ms` ago can no longer land, given a possible point.

    `blockhash_slot`: the slot of the transaction's blockhash. The height alone decides on an honest node.
    The slots guard against a height that is false: 150 blocks take at least as many slots. The time guards
    against a point that is ahead as a whole.
    """
    if elapsed_ms < _EARLIEST_EXPIRY_MS:
        return False
    slots_gone = finalized.slot - blockhash_slot
    return finalized.block_height > last_valid_block_height and slots_gone > MAX_AGE_BLOCKS + _SKIPPED_SLOTS


def why_impossible(signed: ChainPoint, blockhash_slot: int, point: ChainPoint, elapsed_ms: int) -> str | None:
    """Return in words why a point cannot be true, or None.

    `signed` was finalized, and `blockhash_slot` was the slot of the newest blockhash, when a transaction was
    signed `elapsed_ms` ago. Later points are not compared with each other, because one height that was too
    low would make the true heights look impossible.
    """
    told = f"block height {point.block_height} at slot {point.slot}"
    if not point.agrees_with(signed):
        return f"{told} contradicts block height {signed.block_height} at slot {signed.slot}"
    if point.slot > latest_possible_slot(blockhash_slot, elapsed_ms):
        return f"{told} is further than a cluster gets in {elapsed_ms} ms from slot {blockhash_slot}"
    return None

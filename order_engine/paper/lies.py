"""False block heights that real nodes and gateways have returned; the engine must not believe them."""

import random
from enum import StrEnum
from typing import Final

import msgspec

_MAX_FORK_BLOCKS: Final = 16
_JUMPS: Final = (1_000, 1_000_000)


class LieKind(StrEnum):
    """The number that the node returns as the block height."""

    SLOT = "slot"
    """The slot, as a public gateway answered for weeks."""
    OTHER_FORK = "other fork"
    """The height of a fork with fewer skipped slots: a little too high."""
    JUMP = "jump"
    """A height far ahead; half of the time its slot is as far ahead."""
    CONSTANT = "constant"
    """The height at which the answers froze."""


class HeightLie(msgspec.Struct, frozen=True):
    """One false height, returned for a while. `blocks`: how far ahead it is, or the constant itself."""

    kind: LieKind
    blocks: int
    is_slot_moved: bool

    def height(self, slot: int, true_height: int) -> int:
        """Return the height that is told for a slot."""
        match self.kind:
            case LieKind.SLOT:
                return slot
            case LieKind.CONSTANT:
                return self.blocks
            case LieKind.OTHER_FORK | LieKind.JUMP:
                return true_height + self.blocks

    def slot(self, true_slot: int) -> int:
        """Return the slot that is told beside the height."""
        return true_slot + self.blocks if self.is_slot_moved else true_slot


def draw_lie(rng: random.Random, true_height: int) -> HeightLie:
    """Return a lie that begins at a height."""
    kind = rng.choice([*LieKind])
    if kind is LieKind.JUMP:
        return HeightLie(kind, rng.randint(*_JUMPS), rng.random() < 0.5)  # noqa: PLR2004 - half of them
    blocks = true_height if kind is LieKind.CONSTANT else rng.randint(1, _MAX_FORK_BLOCKS)
    return HeightLie(kind, blocks, is_slot_moved=False)


def is_told_by_all(lie: HeightLie) -> bool:
    """Return whether all methods of an address may tell the lie at the same time.

    With a jump or a constant in every method an attempt could be signed from numbers that never
    become true again; it would stay in doubt for ever, which is safe and proves nothing here.
    """
    return lie.kind in (LieKind.SLOT, LieKind.OTHER_FORK)

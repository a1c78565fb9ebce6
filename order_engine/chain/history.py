"""The memos of our wallet's transactions on the chain, newest first: the orders that they were signed for."""

import re
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from msgspec.json import Decoder

from order_engine.chain.rpc import JsonRpc, Request
from order_engine.ports.chain import LandedMemo

_PAGE: Final = 1_000
# The format of memos in a node's answer: `[length] text`, several of them separated by `; `.
_MEMO: Final = re.compile(r"\[\d+\] ([^;]+)")


class _Signature(msgspec.Struct, rename="camel"):
    signature: str
    slot: int
    err: str | dict[str, Any] | None
    memo: str | None = None
    block_time: int | None = None


_SIGNATURES: Final = Decoder(list[_Signature])


class WalletHistory:
    """The executed swaps of one wallet, from the history that a node keeps."""

    def __init__(self, rpc: JsonRpc, public_key: str) -> None:
        """`public_key`: the wallet's address, base58."""
        self._rpc = rpc
        self._public_key = public_key

    async def landed_memos(self, since_ms: int) -> AsyncIterator[LandedMemo]:
        """Yield the memos of transactions that executed since a time, newest first; raises ChainUnavailable."""
        before: str | None = None
        while True:
            options = {"limit": _PAGE, "commitment": "confirmed"} | ({"before": before} if before else {})
            request = Request("getSignaturesForAddress", [self._public_key, options], _SIGNATURES)
            [found] = await self._rpc.ask_together([request])
            for it in found:
                if it.block_time is not None and it.block_time * 1000 < since_ms:
                    return
                if it.err is None:
                    for memo in _MEMO.findall(it.memo or ""):
                        yield LandedMemo(memo.strip(), it.signature, it.slot)
            if not found:
                return
            before = found[-1].signature

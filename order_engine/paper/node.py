"""The paper chain as it is seen: JSON-RPC with Solana's methods and shapes, over nodes that lag and fail.

Shapes as in Solana's RPC documentation (getSignatureStatuses, getEpochInfo, getLatestBlockhash,
getBlockHeight, getSlot, getTransaction, sendTransaction, isBlockhashValid, getFirstAvailableBlock,
getHealth, getVersion, getGenesisHash). A request names a method and positional parameters; an array
of requests is a batch.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from solders.hash import Hash
from solders.transaction import VersionedTransaction

from order_engine.domain.errors import ChainUnavailable
from order_engine.paper import node_rpc
from order_engine.paper.faults import ChainFaults
from order_engine.paper.lies import HeightLie, draw_lie, is_told_by_all
from order_engine.paper.network import SLOT_MS, VALID_BLOCKS, LedgerEntry, PaperNetwork, TransactionView, block_height
from order_engine.paper.node_rpc import RpcError
from order_engine.ports.chain import MAX_SIGNATURES_IN_A_CALL, SLIPPAGE_ERROR, Commitment

_MAX_LAG_SLOTS: Final = 250
_VIEW_LASTS_S: Final = 20.0
_CACHED_SLOTS: Final = 300  # A node's status cache; older ones need a history search.
_MAX_SIGNATURES: Final = 1_000
_SLOTS_IN_EPOCH: Final = 432_000
_FEE_LAMPORTS: Final = 5_000
_RENT: Final = 1_000_000_000
_VERSION: Final = {"solana-core": "paper", "feature-set": 0}

# As Anchor numbers a program's own errors from 6000 on; its logs give the names.
_PROGRAM_ERROR: Final = 6_000
_SLIPPAGE: Final = 6_001


class NoReply(Exception):  # noqa: N818 - the name of the answer
    """The answer is never sent; the connection is left hanging."""


class TooManyRequests(Exception):  # noqa: N818 - the name of the answer
    """The node answers HTTP 429."""


class View(msgspec.Struct, frozen=True):
    """How much one of the nodes has seen of the chain.

    A node on a minority fork does not see, at any commitment, a transaction that landed on the majority's fork after
    the two separated, until it is finalized: from then on all nodes agree. A fork's tip moves on too, so a slot or
    height that is not finalized does not tell which transactions a node has seen. A view either lags or is on a fork,
    never both, so a fork hides a transaction only until it is finalized.
    """

    at_ms: int
    forked_after_slot: int | None = None
    lie: HeightLie | None = None

    def height(self, slot: int) -> int:
        """Return the block height that the node tells for a slot."""
        true_height = block_height(slot)
        return true_height if self.lie is None else self.lie.height(slot, true_height)

    def hides(self, slot: int, commitment: Commitment) -> bool:
        """Return whether a transaction of the majority's is missing from this node's fork."""
        is_forked = self.forked_after_slot is not None and slot > self.forked_after_slot
        return is_forked and commitment is not Commitment.FINALIZED


class StickyNode(msgspec.Struct, frozen=True):
    """The node at which the balancer keeps a method for a while."""

    until_ms: float
    lag_slots: int
    forked_after_slot: int | None
    lie: HeightLie | None


class PaperNode:
    """One address with several nodes behind it: some lag, and some are on a fork that will lose."""

    def __init__(self, network: PaperNetwork, faults: ChainFaults, seed: int) -> None:
        """Lags, forks and failures are drawn from the seed."""
        self._network = network
        self._faults = faults
        self._random = random.Random(f"{seed}:node")  # noqa: S311 - a simulation, to be repeated
        self.balanced: dict[str, StickyNode] = {}
        self._shared_lie: tuple[float, HeightLie | None] = (0.0, None)
        self._methods: dict[str, Callable[[list[Any], View], Awaitable[object]]] = {
            "sendTransaction": self._send_transaction,
            "getSignatureStatuses": self._get_signature_statuses,
            "getTransaction": self._get_transaction,
            "getSignaturesForAddress": self._get_signatures_for_address,
            "getEpochInfo": self._get_epoch_info,
            "getLatestBlockhash": self._get_latest_blockhash,
            "isBlockhashValid": self._is_blockhash_valid,
            "getBlockHeight": self._get_block_height,
            "getSlot": self._get_slot,
            "getFirstAvailableBlock": self._get_first_available_block,
            "getHealth": self._get_health,
            "getVersion": self._get_version,
            "getGenesisHash": self._get_genesis_hash,
        }

    async def answer(self, body: bytes) -> bytes:
        """Return the response to a request or a batch; raises NoReply or TooManyRequests.

        Notifications get no answer: the response is then empty.
        """
        fate = self._random.random()
        if (fate := fate - self._faults.rate_limit) < 0:
            raise TooManyRequests
        if (fate := fate - self._faults.timeout) < 0:
            raise NoReply
        try:
            request = node_rpc.read_body(body)
        except RpcError as error:
            return msgspec.json.encode(error.answer(None))
        response: object
        if isinstance(request, list) and request:
            answers = await asyncio.gather(*(self._answer_one(it) for it in request))
            response = [it for it in answers if it is not None] or None
        else:
            response = await self._answer_one(request)
        if fate < self._faults.lost_reply:
            raise NoReply
        return b"" if response is None else msgspec.json.encode(response)

    async def _answer_one(self, request: Any) -> dict[str, Any] | None:
        if node_rpc.is_notification(request):
            return None
        request_id = node_rpc.id_of(request)
        try:
            return {"jsonrpc": "2.0", "result": await self._call(request), "id": request_id}
        except RpcError as error:
            return error.answer(request_id)
        except ChainUnavailable as error:
            return RpcError(node_rpc.INTERNAL_ERROR, str(error)).answer(request_id)

    async def _call(self, request: Any) -> object:
        name, params = node_rpc.read_request(request)
        if self._faults.error and self._random.random() < self._faults.error:
            raise RpcError(node_rpc.NODE_UNHEALTHY, "Node is behind by 42 slots", {"numSlotsBehind": 42})
        method = self._methods.get(name)
        if method is None:
            raise RpcError(node_rpc.METHOD_NOT_FOUND, "Method not found")
        return await method(params, self._view(name))

    def _view(self, method: str) -> View:
        """Return the answering node's view; the balancer keeps each method at one node for a while."""
        now_ms = self._network.now_ms()
        if not (self._faults.lag or self._faults.fork or self._faults.false_height):
            return View(now_ms)
        node = self.balanced.get(method)
        if node is None or now_ms >= node.until_ms:
            until_ms = now_ms + self._random.expovariate(1 / _VIEW_LASTS_S) * 1000
            lag, forked_after = 0, None
            if self._random.random() < self._faults.lag:
                lag = self._random.randrange(_MAX_LAG_SLOTS)
            elif self._random.random() < self._faults.fork:
                forked_after = self._network.slot_at(now_ms, Commitment.PROCESSED)
            node = self.balanced[method] = StickyNode(until_ms, lag, forked_after, self._draw_lie(now_ms))
        return View(now_ms - node.lag_slots * SLOT_MS, node.forked_after_slot, self._lie_of_all(now_ms) or node.lie)

    def _draw_lie(self, now_ms: int) -> HeightLie | None:
        if not self._faults.false_height or self._random.random() >= self._faults.false_height:
            return None
        lie = draw_lie(self._random, block_height(self._network.slot_at(now_ms, Commitment.FINALIZED)))
        if not is_told_by_all(lie) or self._random.random() < 0.5:  # noqa: PLR2004 - half of them
            return lie
        self._shared_lie = (now_ms + self._random.expovariate(1 / _VIEW_LASTS_S) * 1000, lie)
        return None

    def _lie_of_all(self, now_ms: int) -> HeightLie | None:
        until_ms, lie = self._shared_lie
        return lie if now_ms < until_ms and self._faults.false_height else None

    def _slot(self, options: dict[str, Any], view: View, commitment: Commitment | None = None) -> int:
        """Return the node's slot at the requested commitment; refuses if it is below the request's minContextSlot."""
        slot = self._network.slot_at(view.at_ms, commitment or node_rpc.commitment_of(options))
        if slot < node_rpc.least_slot_of(options):
            message = "Minimum context slot has not been reached"
            raise RpcError(node_rpc.SLOT_NOT_REACHED, message, {"contextSlot": slot})
        return slot

    # --- methods ---

    async def _send_transaction(self, params: list[Any], view: View) -> object:
        options = node_rpc.options_at(params, 1)
        raw, transaction = node_rpc.transaction_at(params, 0, options.get("encoding"))
        commitment = node_rpc.commitment_of(options, "preflightCommitment")
        if node_rpc.flag_of(options, "skipPreflight"):
            self._slot(options, view, Commitment.PROCESSED)
        else:
            await self._simulate(transaction, view, self._slot(options, view, commitment))
        # Without preflight the node forwards any transaction; the network ignores an unsigned one.
        with contextlib.suppress(ValueError):
            await self._network.receive(raw)
        return str(transaction.signatures[0])

    async def _simulate(self, transaction: VersionedTransaction, view: View, slot: int) -> None:
        """Refuse a transaction that would fail at a slot, as a node's preflight does."""
        signature = str(transaction.signatures[0])
        if not all(transaction.verify_with_results()):
            raise RpcError(node_rpc.NOT_SIGNED, "Transaction signature verification failure")
        why: str | None = None
        error: object = None
        if await self._sights([signature], view):
            why, error = "This transaction has already been processed", "AlreadyProcessed"
        elif not self._is_recent(transaction.message.recent_blockhash, slot):
            why, error = "Blockhash not found", "BlockhashNotFound"
        elif (execution := self._network.execute(transaction, view.at_ms)) is None:
            why = "Error processing Instruction 0: invalid instruction data"
            error = {"InstructionError": [0, "InvalidInstructionData"]}
        elif execution.error is not None:
            why, error = f"Error processing Instruction 0: {execution.error}", _error_of(execution.error)
        if why is not None:
            raise RpcError(node_rpc.SEND_FAILED, f"Transaction simulation failed: {why}", {"err": error, "logs": []})

    async def _get_signature_statuses(self, params: list[Any], view: View) -> object:
        signatures = params[0] if params else None
        if not isinstance(signatures, list):
            raise node_rpc.invalid_params("a list of signatures is expected at 0")
        if len(signatures) > MAX_SIGNATURES_IN_A_CALL:
            raise RpcError(node_rpc.INVALID_PARAMS, f"Too many inputs provided; max {MAX_SIGNATURES_IN_A_CALL}")
        for place in range(len(signatures)):
            node_rpc.signature_at(signatures, place)
        is_history = node_rpc.flag_of(node_rpc.options_at(params, 1), "searchTransactionHistory")
        slot = self._network.slot_at(view.at_ms, Commitment.PROCESSED)
        views = await self._sights(signatures, view, 0 if is_history else slot - _CACHED_SLOTS)
        value = [_status(views[it], slot) if it in views else None for it in signatures]
        return {"context": _context(slot), "value": value}

    async def _sights(self, signatures: list[str], view: View, since_slot: int = 0) -> dict[str, TransactionView]:
        views = await self._network.views(signatures, view.at_ms, since_slot=since_slot)
        return {it: sight for it, sight in views.items() if not view.hides(sight.slot, sight.commitment)}

    async def _get_transaction(self, params: list[Any], view: View) -> object:
        signature, options = node_rpc.signature_at(params, 0), node_rpc.options_at(params, 1)
        least, encode = node_rpc.commitment_of(options), node_rpc.encoder_of(options.get("encoding"))
        if least is Commitment.PROCESSED:
            raise RpcError(node_rpc.INVALID_PARAMS, "Method does not support commitment below `confirmed`")
        entry = await self._network.transaction(signature, view.at_ms, least)
        if entry is None or self._is_hidden(entry, view):
            return None
        return {
            "slot": entry.slot,
            "blockTime": entry.lands_at_ms // 1000,
            "version": 0,
            "transaction": [encode(entry.raw), options["encoding"]],
            "meta": _meta(entry),
        }

    async def _get_signatures_for_address(self, params: list[Any], view: View) -> object:
        address, options = node_rpc.address_at(params, 0), node_rpc.options_at(params, 1)
        limit, before = node_rpc.limit_of(options, _MAX_SIGNATURES), options.get("before")
        if before is not None:
            node_rpc.signature_at([before], 0)
        found: list[LedgerEntry] = []
        while len(found) < limit and (page := await self._network.newest(before, view.at_ms, limit)):
            before = page[-1].signature
            found += [it for it in page if _payer_of(it) == address and not self._is_hidden(it, view)]
        return [
            {
                "signature": entry.signature,
                "slot": entry.slot,
                "err": _error_of(entry.error),
                "memo": f"[{len(entry.memo)}] {entry.memo}",
                "blockTime": entry.lands_at_ms // 1000,
                "confirmationStatus": self._network.commitment_of(entry, view.at_ms),
            }
            for entry in found[:limit]
        ]

    def _is_hidden(self, entry: LedgerEntry, view: View) -> bool:
        return view.hides(entry.slot, self._network.commitment_of(entry, view.at_ms))

    async def _get_epoch_info(self, params: list[Any], view: View) -> object:
        slot = self._slot(node_rpc.options_at(params, 0), view)
        return {
            "absoluteSlot": slot if view.lie is None else view.lie.slot(slot),
            "blockHeight": view.height(slot),
            "epoch": slot // _SLOTS_IN_EPOCH,
            "slotIndex": slot % _SLOTS_IN_EPOCH,
            "slotsInEpoch": _SLOTS_IN_EPOCH,
            "transactionCount": None,
        }

    async def _get_latest_blockhash(self, params: list[Any], view: View) -> object:
        slot = self._slot(node_rpc.options_at(params, 0), view)
        blockhash = self._network.blockhash_of(block_height(slot))
        value = {"blockhash": str(blockhash), "lastValidBlockHeight": view.height(slot) + VALID_BLOCKS}
        return {"context": _context(slot), "value": value}

    async def _is_blockhash_valid(self, params: list[Any], view: View) -> object:
        blockhash = node_rpc.blockhash_at(params, 0)
        slot = self._slot(node_rpc.options_at(params, 1), view)
        return {"context": _context(slot), "value": self._is_recent(blockhash, slot)}

    async def _get_block_height(self, params: list[Any], view: View) -> object:
        return view.height(self._slot(node_rpc.options_at(params, 0), view))

    async def _get_slot(self, params: list[Any], view: View) -> object:
        return self._slot(node_rpc.options_at(params, 0), view)

    async def _get_first_available_block(self, _params: list[Any], _view: View) -> object:
        return 0

    async def _get_health(self, _params: list[Any], _view: View) -> object:
        return "ok"

    async def _get_version(self, _params: list[Any], _view: View) -> object:
        return _VERSION

    async def _get_genesis_hash(self, _params: list[Any], _view: View) -> object:
        return str(self._network.genesis_hash)

    def _is_recent(self, blockhash: Hash, slot: int) -> bool:
        tip = block_height(slot)
        return any(self._network.blockhash_of(it) == blockhash for it in range(tip - VALID_BLOCKS, tip + 1))


def _context(slot: int) -> dict[str, Any]:
    return {"apiVersion": "2.0.0", "slot": slot}


def _status(sight: TransactionView, slot: int) -> dict[str, Any]:
    """Return the status of a transaction from a node whose newest slot is `slot`."""
    error = _error_of(sight.error)
    return {
        "slot": sight.slot,
        "confirmations": None if sight.commitment is Commitment.FINALIZED else max(0, slot - sight.slot),
        "err": error,
        "status": {"Ok": None} if error is None else {"Err": error},
        "confirmationStatus": sight.commitment,
    }


def _error_of(error: str | None) -> object:
    if error is None:
        return None
    return {"InstructionError": [0, {"Custom": _SLIPPAGE if error == SLIPPAGE_ERROR else _PROGRAM_ERROR}]}


def _payer_of(entry: LedgerEntry) -> str:
    return str(VersionedTransaction.from_bytes(entry.raw).message.account_keys[0])


def _meta(entry: LedgerEntry) -> dict[str, Any]:
    """Return the transaction's metadata; the swap's output is the difference of two balances in it."""
    wallet = _payer_of(entry)
    given = entry.amount_out or 0
    is_native = entry.token_out == "SOL"  # noqa: S105 - a symbol
    error = _error_of(entry.error)
    meta: dict[str, Any] = {
        "err": error,
        "status": {"Ok": None} if error is None else {"Err": error},
        "fee": _FEE_LAMPORTS,
        "preBalances": [_RENT],
        "postBalances": [_RENT - _FEE_LAMPORTS + (given if is_native else 0)],
        "preTokenBalances": [],
        "postTokenBalances": [],
        "logMessages": ["Program log: swap"],
        "innerInstructions": [],
        "loadedAddresses": {"writable": [], "readonly": []},
        "computeUnitsConsumed": 1,
    }
    if entry.error is not None:
        code = error["InstructionError"][1]["Custom"] if isinstance(error, dict) else 0
        name = f"Error Code: {entry.error}. Error Number: {code}. Error Message: {entry.error}."
        meta["logMessages"] = [f"Program log: AnchorError occurred. {name}"]
    elif not is_native:
        meta["postTokenBalances"] = [
            {
                "accountIndex": 1,
                "mint": entry.token_out_mint,
                "owner": wallet,
                "programId": "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
                "uiTokenAmount": {"amount": str(given), "decimals": entry.token_out_decimals},
            }
        ]
    return meta

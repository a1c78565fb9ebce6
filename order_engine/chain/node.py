"""The paper chain as it is seen: JSON-RPC with Solana's methods and shapes, over nodes that lag and fail.

Shapes as in Solana's RPC documentation (getSignatureStatuses, getEpochInfo, getLatestBlockhash,
getBlockHeight, getSlot, getTransaction, sendTransaction, isBlockhashValid, getHealth, getVersion,
getGenesisHash). A request names a method and positional parameters; an array of requests is a batch.
"""

import asyncio
import base64
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from solders.hash import Hash
from solders.transaction import VersionedTransaction

from order_engine.chain.faults import ChainFaults
from order_engine.chain.network import FIRST_SLOT, SLOT_MS, VALID_BLOCKS, LedgerEntry, PaperNetwork, Sight, block_height
from order_engine.domain.errors import ChainUnavailable
from order_engine.ports import MOST_SIGNATURES_IN_A_CALL, SLIPPAGE_ERROR, Commitment

_MOST_LAG_SLOTS: Final = 250
_VIEW_LASTS_S: Final = 20.0
_CACHED_SLOTS: Final = 300  # A node's status cache; what is older is found with history search only.
_SLOTS_IN_EPOCH: Final = 432_000
_FEE_LAMPORTS: Final = 5_000
_RENT: Final = 1_000_000_000
_VERSION: Final = {"solana-core": "paper", "feature-set": 0}

_PARSE_ERROR: Final = -32700
_INVALID_REQUEST: Final = -32600
_METHOD_NOT_FOUND: Final = -32601
_INVALID_PARAMS: Final = -32602
_SEND_FAILED: Final = -32002
_NODE_UNHEALTHY: Final = -32005
_INTERNAL: Final = -32603

# As Anchor numbers a program's own errors from 6000 on; its logs give the names.
_PROGRAM_ERROR: Final = 6_000
_SLIPPAGE: Final = 6_001


class NoReply(Exception):  # noqa: N818 - what it is
    """The answer is never sent; the connection is left hanging."""


class TooManyRequests(Exception):  # noqa: N818 - what it is
    """The node answers HTTP 429."""


class _RpcError(Exception):
    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.answer = {"code": code, "message": message} | ({} if data is None else {"data": data})


class View(msgspec.Struct, frozen=True):
    """How much one of the nodes has seen of the chain.

    A node on a minority fork does not see what landed on the majority's after the two parted, at
    any commitment, until that is finalized: from then on all nodes agree. A fork's tip moves on
    like any other, so a slot or a height that is not finalized says nothing of what a node has
    seen. A view either lags or is on a fork: nobody is cut off for longer than finality takes.
    """

    at_ms: int
    forked_after_slot: int | None = None

    def hides(self, slot: int, commitment: Commitment) -> bool:
        """Return whether a transaction of the majority's is missing from this node's fork."""
        is_forked = self.forked_after_slot is not None and slot > self.forked_after_slot
        return is_forked and commitment is not Commitment.FINALIZED


class Balanced(msgspec.Struct, frozen=True):
    """The node at which the balancer keeps a method for a while."""

    until_ms: float
    lag_slots: int
    forked_after_slot: int | None


class PaperNode:
    """One address with several nodes behind it: some lag, and some are on a fork that will lose."""

    def __init__(self, network: PaperNetwork, faults: ChainFaults, seed: int) -> None:
        """Lags, forks and failures are drawn from the seed."""
        self._network = network
        self._faults = faults
        self._random = random.Random(f"{seed}:node")  # noqa: S311 - a simulation, to be repeated
        self.balanced: dict[str, Balanced] = {}
        self._methods: dict[str, Callable[[list[Any], View], Awaitable[object]]] = {
            "sendTransaction": self._send_transaction,
            "getSignatureStatuses": self._get_signature_statuses,
            "getTransaction": self._get_transaction,
            "getEpochInfo": self._get_epoch_info,
            "getLatestBlockhash": self._get_latest_blockhash,
            "isBlockhashValid": self._is_blockhash_valid,
            "getBlockHeight": self._get_block_height,
            "getSlot": self._get_slot,
            "getHealth": self._get_health,
            "getVersion": self._get_version,
            "getGenesisHash": self._get_genesis_hash,
        }

    async def answer(self, body: bytes) -> bytes:
        """Return the response to a request or a batch; raises NoReply or TooManyRequests."""
        fate = self._random.random()
        if (fate := fate - self._faults.rate_limit) < 0:
            raise TooManyRequests
        if (fate := fate - self._faults.timeout) < 0:
            raise NoReply
        try:
            request = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return msgspec.json.encode(_failure(None, _RpcError(_PARSE_ERROR, "Parse error")))
        if isinstance(request, list) and request:
            response: object = await asyncio.gather(*(self._answer_one(it) for it in request))
        else:
            response = await self._answer_one(request)
        if fate < self._faults.lost_reply:
            raise NoReply
        return msgspec.json.encode(response)

    async def _answer_one(self, request: Any) -> dict[str, Any]:
        request_id = request.get("id") if isinstance(request, dict) else None
        try:
            return {"jsonrpc": "2.0", "result": await self._call(request), "id": request_id}
        except _RpcError as error:
            return _failure(request_id, error)
        except ChainUnavailable as error:
            return _failure(request_id, _RpcError(_INTERNAL, str(error)))

    async def _call(self, request: Any) -> object:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            raise _RpcError(_INVALID_REQUEST, "Invalid request")
        if self._faults.error and self._random.random() < self._faults.error:
            raise _RpcError(_NODE_UNHEALTHY, "Node is behind by 42 slots", {"numSlotsBehind": 42})
        method = self._methods.get(request["method"])
        if method is None:
            raise _RpcError(_METHOD_NOT_FOUND, "Method not found")
        params = request.get("params") or []
        if not isinstance(params, list):
            raise _RpcError(_INVALID_PARAMS, "Invalid params: a list is expected")
        return await method(params, self._view(request["method"]))

    def _view(self, method: str) -> View:
        """Return what the answering node has seen; the balancer keeps each method at one for a while."""
        now_ms = self._network.now_ms()
        if not (self._faults.lag or self._faults.fork):
            return View(now_ms)
        node = self.balanced.get(method)
        if node is None or now_ms >= node.until_ms:
            until_ms = now_ms + self._random.expovariate(1 / _VIEW_LASTS_S) * 1000
            lag, forked_after = 0, None
            if self._random.random() < self._faults.lag:
                lag = self._random.randrange(_MOST_LAG_SLOTS)
            elif self._random.random() < self._faults.fork:
                forked_after = self._network.slot_at(now_ms, Commitment.PROCESSED)
            node = self.balanced[method] = Balanced(until_ms, lag, forked_after)
        return View(now_ms - node.lag_slots * SLOT_MS, node.forked_after_slot)

    def _context(self, view: View, commitment: Commitment = Commitment.PROCESSED) -> dict[str, Any]:
        return {"apiVersion": "2.0.0", "slot": self._network.slot_at(view.at_ms, commitment)}

    # --- methods ---

    async def _send_transaction(self, params: list[Any], view: View) -> object:
        options = _options(params, 1)
        encoding = options.get("encoding", "base58")
        if encoding != "base64":
            raise _RpcError(_INVALID_PARAMS, f"unsupported encoding: {encoding}. Supported encodings: base64")
        try:
            raw = base64.b64decode(params[0], validate=True)
            transaction = VersionedTransaction.from_bytes(raw)
        except (ValueError, TypeError, IndexError) as error:
            raise _RpcError(_INVALID_PARAMS, f"invalid transaction: {error}") from error
        if not options.get("skipPreflight", False):
            await self._simulate(transaction, view)
        try:
            return await self._network.receive(raw)
        except ValueError as error:
            raise _RpcError(_SEND_FAILED, f"Transaction simulation failed: {error}") from error

    async def _simulate(self, transaction: VersionedTransaction, view: View) -> None:
        """Refuse what the node can tell will not execute, as preflight does."""
        signature = str(transaction.signatures[0])
        if await self._sights([signature], view):
            text = "Transaction simulation failed: This transaction has already been processed"
            raise _RpcError(_SEND_FAILED, text, {"err": "AlreadyProcessed", "logs": []})
        if not self._is_recent(transaction.message.recent_blockhash, view):
            text = "Transaction simulation failed: Blockhash not found"
            raise _RpcError(_SEND_FAILED, text, {"err": "BlockhashNotFound", "logs": []})

    async def _get_signature_statuses(self, params: list[Any], view: View) -> object:
        signatures = params[0] if params else None
        if not isinstance(signatures, list) or not all(isinstance(it, str) for it in signatures):
            raise _RpcError(_INVALID_PARAMS, "Invalid params: a list of signatures is expected")
        if len(signatures) > MOST_SIGNATURES_IN_A_CALL:
            raise _RpcError(_INVALID_PARAMS, f"Too many inputs provided; max {MOST_SIGNATURES_IN_A_CALL}")
        is_history = _options(params, 1).get("searchTransactionHistory", False)
        oldest = 0 if is_history else self._network.slot_at(view.at_ms, Commitment.PROCESSED) - _CACHED_SLOTS
        sights = await self._sights(signatures, view, oldest)
        value = [self._status(sights[it], view) if it in sights else None for it in signatures]
        return {"context": self._context(view), "value": value}

    async def _sights(self, signatures: list[str], view: View, since_slot: int = 0) -> dict[str, Sight]:
        sights = await self._network.sights(signatures, view.at_ms, since_slot=since_slot)
        return {it: sight for it, sight in sights.items() if not view.hides(sight.slot, sight.commitment)}

    def _status(self, sight: Sight, view: View) -> dict[str, Any]:
        error = _error_of(sight.error)
        return {
            "slot": sight.slot,
            "confirmations": None
            if sight.commitment is Commitment.FINALIZED
            else max(0, self._network.slot_at(view.at_ms, Commitment.PROCESSED) - sight.slot),
            "err": error,
            "status": {"Ok": None} if error is None else {"Err": error},
            "confirmationStatus": sight.commitment,
        }

    async def _get_transaction(self, params: list[Any], view: View) -> object:
        options = _options(params, 1)
        least = _commitment(options)
        if not params or not isinstance(params[0], str) or least is Commitment.PROCESSED:
            raise _RpcError(_INVALID_PARAMS, "Invalid params: a signature, at confirmed or finalized, is expected")
        entry = await self._network.transaction(params[0], view.at_ms, least)
        if entry is None or view.hides(entry.slot, self._network.commitment_of(entry, view.at_ms)):
            return None
        return {
            "slot": entry.slot,
            "blockTime": entry.lands_at_ms // 1000,
            "version": 0,
            "transaction": [base64.b64encode(entry.raw).decode(), "base64"],
            "meta": _meta(entry),
        }

    async def _get_epoch_info(self, params: list[Any], view: View) -> object:
        slot = self._network.slot_at(view.at_ms, _commitment(_options(params, 0)))
        return {
            "absoluteSlot": slot,
            "blockHeight": block_height(slot),
            "epoch": slot // _SLOTS_IN_EPOCH,
            "slotIndex": slot % _SLOTS_IN_EPOCH,
            "slotsInEpoch": _SLOTS_IN_EPOCH,
            "transactionCount": None,
        }

    async def _get_latest_blockhash(self, params: list[Any], view: View) -> object:
        commitment = _commitment(_options(params, 0))
        height = block_height(self._network.slot_at(view.at_ms, commitment))
        value = {"blockhash": str(self._network.blockhash_of(height)), "lastValidBlockHeight": height + VALID_BLOCKS}
        return {"context": self._context(view, commitment), "value": value}

    async def _is_blockhash_valid(self, params: list[Any], view: View) -> object:
        try:
            blockhash = Hash.from_string(params[0])
        except (ValueError, TypeError, IndexError) as error:
            raise _RpcError(_INVALID_PARAMS, "Invalid params: a blockhash is expected") from error
        return {"context": self._context(view), "value": self._is_recent(blockhash, view)}

    async def _get_block_height(self, params: list[Any], view: View) -> object:
        return block_height(self._network.slot_at(view.at_ms, _commitment(_options(params, 0))))

    async def _get_slot(self, params: list[Any], view: View) -> object:
        return self._network.slot_at(view.at_ms, _commitment(_options(params, 0)))

    async def _get_health(self, _params: list[Any], _view: View) -> object:
        return "ok"

    async def _get_version(self, _params: list[Any], _view: View) -> object:
        return _VERSION

    async def _get_genesis_hash(self, _params: list[Any], _view: View) -> object:
        return str(self._network.genesis_hash)

    def _is_recent(self, blockhash: Hash, view: View) -> bool:
        tip = block_height(self._network.slot_at(view.at_ms, Commitment.PROCESSED))
        first = max(block_height(FIRST_SLOT), tip - VALID_BLOCKS)
        return any(self._network.blockhash_of(height) == blockhash for height in range(first, tip + 1))


def _failure(request_id: object, error: _RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "error": error.answer, "id": request_id}


def _options(params: list[Any], place: int) -> dict[str, Any]:
    options = params[place] if len(params) > place else None
    if options is not None and not isinstance(options, dict):
        raise _RpcError(_INVALID_PARAMS, f"Invalid params: an object is expected at {place}")
    return options or {}


def _commitment(options: dict[str, Any]) -> Commitment:
    try:
        return Commitment(options.get("commitment", Commitment.FINALIZED))
    except ValueError as error:
        raise _RpcError(_INVALID_PARAMS, f"Invalid params: {error}") from error


def _error_of(error: str | None) -> object:
    if error is None:
        return None
    return {"InstructionError": [0, {"Custom": _SLIPPAGE if error == SLIPPAGE_ERROR else _PROGRAM_ERROR}]}


def _meta(entry: LedgerEntry) -> dict[str, Any]:
    """Return what the transaction changed: what the swap gave is a difference of two balances."""
    wallet = str(VersionedTransaction.from_bytes(entry.raw).message.account_keys[0])
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

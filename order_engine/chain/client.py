"""The chain as the engine knows it: Solana's JSON-RPC, with as few requests as the work allows.

Sends and results that are wanted at the same time travel together; one getSignatureStatuses covers
up to 256 signatures. Every height and blockhash comes with the genesis hash of the node that gave
it, because a height from another cluster could falsely prove expiry. Impossible answers are rejected.
"""

import base64
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec.json import Decoder
from solders.hash import Hash, ParseHashError
from solders.signature import Signature

from order_engine.batching import Batcher
from order_engine.chain.history import WalletHistory
from order_engine.chain.rpc import JsonRpc, Request, Transport, decode
from order_engine.domain.chain_point import MAX_AGE_BLOCKS, ChainPoint
from order_engine.domain.errors import ChainUnavailable, WrongCluster
from order_engine.domain.money import MAX_BASE_UNITS
from order_engine.domain.tokens import Token
from order_engine.ports.chain import (
    Blockhash,
    Commitment,
    SignatureStatus,
    SignatureStatuses,
    SwapResult,
)
from order_engine.ports.clock import Clock

_MAX_TOGETHER: Final = 500
_BLOCKHASH_KEPT_MS: Final = 1_000
_ANCHOR_ERROR: Final = re.compile(r"Error Code: (\w+)\.")
_CONFIRMED: Final = {"commitment": Commitment.CONFIRMED.value}
_FINALIZED: Final = {"commitment": Commitment.FINALIZED.value}
# A new blockhash is good for 150 blocks from a confirmed one, which is about 30 blocks ahead of the
# finalized one. A number outside this range could make us call an attempt expired that can still
# land, or make us wait for ever.
_VALID_BLOCKS: Final = range(100, 400)
_SIGNATURE_IN_BASE64: Final = 88  # Base64 of the first 66 bytes: a count, and the first signature.

NonNegativeInt = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Context(msgspec.Struct):
    slot: NonNegativeInt


class _LatestBlockhash(msgspec.Struct, rename="camel"):
    blockhash: str
    last_valid_block_height: NonNegativeInt


class _BlockhashAnswer(msgspec.Struct):
    context: _Context
    value: _LatestBlockhash


class _EpochInfo(msgspec.Struct, rename="camel"):
    absolute_slot: NonNegativeInt
    block_height: NonNegativeInt


class _Status(msgspec.Struct, rename="camel"):
    slot: NonNegativeInt
    err: str | dict[str, Any] | None
    confirmation_status: Commitment


class _StatusesAnswer(msgspec.Struct):
    context: _Context
    value: list[msgspec.Raw]


class _TokenAmount(msgspec.Struct):
    amount: str


class _TokenBalance(msgspec.Struct, rename="camel"):
    mint: str
    ui_token_amount: _TokenAmount
    owner: str | None = None


class _Meta(msgspec.Struct, rename="camel"):
    err: str | dict[str, Any] | None
    fee: NonNegativeInt
    pre_balances: list[NonNegativeInt]
    post_balances: list[NonNegativeInt]
    pre_token_balances: list[_TokenBalance] | None = None
    post_token_balances: list[_TokenBalance] | None = None
    log_messages: list[str] | None = None


class _Transaction(msgspec.Struct):
    meta: _Meta
    transaction: tuple[str, str]


_SENT: Final = Decoder(str)
_STATUS: Final = Decoder(_Status | None)
_STATUSES: Final = Decoder(_StatusesAnswer)
_TRANSACTION: Final = Decoder(_Transaction | None)
_GENESIS: Final = Request("getGenesisHash", [], Decoder(str))
_POINT: Final = Request("getEpochInfo", [_FINALIZED], Decoder(_EpochInfo))
_FINALIZED_SLOT: Final = Request("getSlot", [_FINALIZED], Decoder(NonNegativeInt))
_HISTORY_FROM: Final = Request("getFirstAvailableBlock", [], Decoder(NonNegativeInt))
_BLOCKHASH: Final = Request("getLatestBlockhash", [_CONFIRMED], Decoder(_BlockhashAnswer))


class SolanaChain:
    """A Chain behind a Transport."""

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        pin_cluster: Callable[[str], Awaitable[str]],
    ) -> None:
        """`pin_cluster`: see Upkeep.

        `clock` only tells when a blockhash is too old to be used again.
        """
        self._rpc = JsonRpc(transport)
        self._clock = clock
        self._pin_cluster = pin_cluster
        self._genesis: str | None = None
        self._blockhash: tuple[int, Blockhash] | None = None
        # All callers that wait for a blockhash get the same one.
        self._blockhashes: Batcher[None, Blockhash] = Batcher(self._read_blockhash, _MAX_TOGETHER)

    @property
    def genesis_hash(self) -> str | None:
        """See Chain."""
        return self._genesis

    async def latest_blockhash(self) -> Blockhash:
        """See Chain."""
        return self._fresh_blockhash() or await self._blockhashes.submit(None)

    async def send_many(self, raws: Sequence[bytes]) -> Sequence[Any]:
        """See Chain."""
        # No preflight, because the node may lag. maxRetries 0: the engine itself sends until the outcome is known.
        options = {"encoding": "base64", "skipPreflight": True, "maxRetries": 0}
        sent = await self._rpc.ask_many(
            [Request("sendTransaction", [base64.b64encode(raw).decode(), options], _SENT) for raw in raws]
        )
        return [it if isinstance(it, Exception) else None for it in sent]

    async def finalized_point(self) -> ChainPoint:
        """See Chain."""
        genesis, info = await self._rpc.ask_together([_GENESIS, _POINT])
        await self._check_cluster(genesis)
        return _point(info)

    async def signature_statuses(self, signatures: Sequence[str]) -> SignatureStatuses:
        """See Chain."""
        params = [[*signatures], {"searchTransactionHistory": True}]
        statuses = Request("getSignatureStatuses", params, _STATUSES)
        genesis, finalized_slot, answer, history_from = await self._rpc.ask_one_node(
            [_GENESIS, _FINALIZED_SLOT, statuses, _HISTORY_FROM]
        )
        for result in (genesis, finalized_slot, answer):
            if isinstance(result, ChainUnavailable):
                raise result
        await self._check_cluster(genesis)
        if len(answer.value) != len(signatures):
            raise ChainUnavailable("the chain answers with another number of statuses than was asked for")
        found, unclear = {}, set()
        for signature, value in zip(signatures, answer.value, strict=True):
            try:
                status = _status(value, answer.context.slot)
            except ChainUnavailable:
                unclear.add(signature)
            else:
                if status is not None:
                    found[signature] = status
        history_from_slot = None if isinstance(history_from, ChainUnavailable) else history_from
        return SignatureStatuses(min(answer.context.slot, finalized_slot), found, unclear, history_from_slot)

    async def swap_results(self, wanted: Sequence[tuple[str, str, Token]]) -> Sequence[SwapResult | Exception | None]:
        """See Chain."""
        options = {**_CONFIRMED, "encoding": "base64", "maxSupportedTransactionVersion": 0}
        found = await self._rpc.ask_many(
            [Request("getTransaction", [signature, options], _TRANSACTION) for signature, _, _ in wanted]
        )
        return [_swap_result(*it, transaction) for it, transaction in zip(wanted, found, strict=True)]

    def wallet_history(self, owner: str) -> WalletHistory:
        """Return the history of a wallet's transactions."""
        return WalletHistory(self._rpc, owner)

    async def close(self) -> None:
        """Cancel the requests in flight. A send that is cut off counts as lost: the engine sends it again."""
        await self._rpc.close()
        await self._blockhashes.drain()

    # --- requests ---

    def _fresh_blockhash(self) -> Blockhash | None:
        if self._blockhash is None or not 0 <= self._clock.now_ms() - self._blockhash[0] < _BLOCKHASH_KEPT_MS:
            return None
        return self._blockhash[1]

    async def _read_blockhash(self, waiting: Sequence[None]) -> Sequence[Blockhash]:
        now_ms = self._clock.now_ms()
        genesis, info, answer = await self._rpc.ask_together([_GENESIS, _POINT, _BLOCKHASH])
        await self._check_cluster(genesis)
        value = answer.value
        point = _point(info)
        if value.last_valid_block_height - point.block_height not in _VALID_BLOCKS:
            raise ChainUnavailable("the chain's blockhash is good for too few blocks or too many")
        # Next to an older blockhash a false, too low height would not be noticed. It would make true answers
        # look impossible for hours.
        if answer.context.slot < point.slot:
            raise ChainUnavailable("the chain's newest blockhash is older than its finalized slot")
        if not point.agrees_with(ChainPoint(value.last_valid_block_height - MAX_AGE_BLOCKS, answer.context.slot)):
            raise ChainUnavailable("the chain's block height and its blockhash contradict each other")
        _hash_of(value.blockhash)
        blockhash = Blockhash(value.blockhash, value.last_valid_block_height, point, answer.context.slot, genesis)
        self._blockhash = (now_ms, blockhash)
        return [blockhash] * len(waiting)

    async def _check_cluster(self, genesis: str) -> None:
        """Raise WrongCluster if this is not the cluster that the engine's attempts were signed for."""
        _hash_of(genesis)
        if self._genesis is None:
            self._genesis = await self._pin_cluster(genesis)
        if genesis != self._genesis:
            raise WrongCluster(
                f"the chain is another one than this engine's orders were signed for: its genesis hash is {genesis}"
                f" and theirs is {self._genesis}"
            )


def _swap_result(signature: str, owner: str, token_out: Token, transaction: Any) -> SwapResult | Exception | None:
    """Return the result of a swap from an answer to getTransaction, which may be an error."""
    if transaction is None or isinstance(transaction, Exception):
        return transaction
    try:
        if not _is_signed_as(transaction.transaction[0], signature):
            return ChainUnavailable("the chain answers with another transaction than was asked for")
        if transaction.meta.err is not None:
            return SwapResult(None, _program_error(transaction.meta))
        received = _amount_received(transaction.meta, owner, token_out)
    except ChainUnavailable as error:
        return error
    if not 0 < received <= MAX_BASE_UNITS:
        return ChainUnavailable("the chain's answer has balances that no swap leaves")
    return SwapResult(received, None)


def _amount_received(meta: _Meta, owner: str, token_out: Token) -> int:
    """Return the growth of the owner's balance of the token, in base units; for native SOL the fee is added back."""
    try:
        if token_out.is_native:
            return meta.post_balances[0] - meta.pre_balances[0] + meta.fee
        after, before = meta.post_token_balances, meta.pre_token_balances
        return _balance(after, owner, token_out) - _balance(before, owner, token_out)
    except (ValueError, IndexError) as error:
        raise ChainUnavailable("the chain's answer has no balances that can be read") from error


def _balance(balances: Sequence[_TokenBalance] | None, owner: str, token: Token) -> int:
    owned = (it for it in balances or () if it.mint == token.mint and it.owner == owner)
    return sum(int(it.ui_token_amount.amount) for it in owned)


def _is_signed_as(encoded: str, signature: str) -> bool:
    """Return whether a transaction in base64 begins with this signature, its id, after the number of signatures."""
    try:
        return base64.b64decode(encoded[:_SIGNATURE_IN_BASE64])[1:65] == bytes(Signature.from_string(signature))
    except ValueError as error:
        raise ChainUnavailable("the chain's transaction cannot be read") from error


def _hash_of(text: str) -> Hash:
    try:
        return Hash.from_string(text)
    except ParseHashError as error:
        raise ChainUnavailable("the chain's hash cannot be read") from error


def _point(info: _EpochInfo) -> ChainPoint:
    """Return the point; raises ChainUnavailable if it has more than one block per slot."""
    if not 0 < info.block_height <= info.absolute_slot:
        raise ChainUnavailable("the chain's block height is higher than its slot")
    return ChainPoint(info.block_height, info.absolute_slot)


def _status(body: bytes, context_slot: int) -> SignatureStatus | None:
    """Return one signature's status, None if it was not found; raises ChainUnavailable if the answer is unclear."""
    value = decode(body, _STATUS)
    if value is None:
        return None
    if value.slot > context_slot:
        raise ChainUnavailable("the chain's status is of a slot that the node has not seen")
    error = None if value.err is None else msgspec.json.encode(value.err).decode()
    return SignatureStatus(value.slot, value.confirmation_status, error)


def _program_error(meta: _Meta) -> str:
    """Return the error's name as an Anchor program logs it, and the chain's own words."""
    names = [match[1] for line in meta.log_messages or () if (match := _ANCHOR_ERROR.search(line))]
    return " ".join([*names, msgspec.json.encode(meta.err).decode()])

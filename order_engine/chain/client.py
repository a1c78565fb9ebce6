"""The chain as the engine knows it: Solana's JSON-RPC, with as few requests as the work allows.

Sends and results that are wanted at the same time travel as one JSON-RPC batch over connections
that stay open; one getSignatureStatuses covers up to 256 signatures. Whatever is not a clear answer
(no connection, a timeout, an HTTP error, a JSON-RPC error, a shape that is not Solana's) is
ChainUnavailable: nothing is known.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import aiohttp
import msgspec
from msgspec import UNSET, UnsetType
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message, MessageV0, from_bytes_versioned
from solders.transaction import VersionedTransaction

from order_engine.domain.errors import ChainUnavailable, ForeignFeePayer, VenueFailed
from order_engine.domain.tokens import Token
from order_engine.engine.batch import Batcher
from order_engine.ports import (
    Blockhash,
    Clock,
    Commitment,
    FinalizedPoint,
    SignatureStatus,
    SignatureStatuses,
    SignedTransaction,
    SwapResult,
    UnsignedTransaction,
)

_MOST_REQUESTS_IN_A_BATCH: Final = 100
_BLOCKHASH_KEPT_MS: Final = 1_000
_TIMEOUT_S: Final = 5.0
_PATIENCE_S: Final = 0.5  # A request that hangs holds up itself, not the next one.
_CONNECTIONS: Final = 32
_ANCHOR_ERROR: Final = re.compile(r"Error Code: (\w+)\.")
_HTTP_OK: Final = 200
_MOST_ANSWER_BYTES: Final = 32 * 1024 * 1024
_CONFIRMED: Final = {"commitment": Commitment.CONFIRMED.value}
_FINALIZED: Final = {"commitment": Commitment.FINALIZED.value}


class Transport(Protocol):
    """Carries the body of one JSON-RPC request or batch to a node and brings the answer's back."""

    async def post(self, body: bytes) -> bytes:
        """Return the answer's body; raises ChainUnavailable."""
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...


class HttpTransport:
    """A Transport to the address that CHAIN_URL names."""

    def __init__(self, url: str) -> None:
        """Connects when it is first used."""
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: bytes) -> bytes:
        """See Transport."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                headers={"Content-Type": "application/json"},
            )
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                if response.status != _HTTP_OK:
                    raise ChainUnavailable(f"the chain answers HTTP {response.status}")
                return await self._read(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ChainUnavailable(f"the chain does not answer: {str(error) or type(error).__name__}") from error

    async def close(self) -> None:
        """See Transport."""
        if self._session is not None:
            await self._session.close()

    @staticmethod
    async def _read(response: aiohttp.ClientResponse) -> bytes:
        """Return the body, if it is of a size that an answer can have."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > _MOST_ANSWER_BYTES:
                raise ChainUnavailable(f"the chain's answer is longer than {_MOST_ANSWER_BYTES} bytes")
            chunks.append(chunk)
        return b"".join(chunks)


class PaperWallet:
    """A key that is made from a seed: it guards nothing but paper."""

    def __init__(self, seed: int) -> None:
        """The same seed gives the same wallet in every process."""
        self.keypair = Keypair.from_seed(hashlib.sha256(f"{seed}:wallet".encode()).digest())
        # Kept: the library works it out anew each time it is asked.
        self.public_key = self.keypair.pubkey()


Wanted = TypeVar("Wanted")


class _Answer(msgspec.Struct, Generic[Wanted]):
    """A JSON-RPC response: `result` is unset when it is an error."""

    id: int | str | None = None
    result: Wanted | UnsetType = UNSET
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Context(msgspec.Struct):
    slot: int


class _LatestBlockhash(msgspec.Struct, rename="camel"):
    blockhash: str
    last_valid_block_height: int


class _BlockhashAnswer(msgspec.Struct):
    value: _LatestBlockhash


class _EpochInfo(msgspec.Struct, rename="camel"):
    absolute_slot: int
    block_height: int


class _Status(msgspec.Struct, rename="camel"):
    slot: int
    err: Any
    confirmation_status: Commitment


class _StatusesAnswer(msgspec.Struct):
    context: _Context
    value: list[_Status | None]


class _TokenAmount(msgspec.Struct):
    amount: str


class _TokenBalance(msgspec.Struct, rename="camel"):
    mint: str
    ui_token_amount: _TokenAmount
    owner: str | None = None


class _Meta(msgspec.Struct, rename="camel"):
    err: Any
    fee: int
    pre_balances: list[int]
    post_balances: list[int]
    pre_token_balances: list[_TokenBalance] | None = None
    post_token_balances: list[_TokenBalance] | None = None
    log_messages: list[str] | None = None


class _Transaction(msgspec.Struct):
    meta: _Meta


class SolanaChain:
    """A Chain behind a Transport."""

    def __init__(self, transport: Transport, wallet: PaperWallet, clock: Clock) -> None:
        """`clock` only tells how long a blockhash is used again."""
        self._transport = transport
        self._wallet = wallet
        self._owner = str(wallet.public_key)
        self._clock = clock
        self._blockhash: tuple[int, Blockhash] | None = None
        self._sends: Batcher[bytes, None] = Batcher(self._send_together, _MOST_REQUESTS_IN_A_BATCH, _PATIENCE_S)
        self._results: Batcher[str, _Transaction | None] = Batcher(
            self._ask_for_transactions, _MOST_REQUESTS_IN_A_BATCH, _PATIENCE_S
        )

    async def latest_blockhash(self) -> Blockhash:
        """See Chain."""
        now_ms = self._clock.now_ms()
        if self._blockhash is None or not 0 <= now_ms - self._blockhash[0] < _BLOCKHASH_KEPT_MS:
            value = (await self._ask("getLatestBlockhash", [_CONFIRMED], _BlockhashAnswer)).value
            self._blockhash = (now_ms, Blockhash(value.blockhash, value.last_valid_block_height))
        return self._blockhash[1]

    def sign(self, transaction: UnsignedTransaction, blockhash: Blockhash) -> SignedTransaction:
        """See Chain."""
        message = from_bytes_versioned(transaction.message)
        if not isinstance(message, Message | MessageV0):
            raise VenueFailed("the route's transaction has a version that this engine does not sign")
        if message.account_keys[0] != self._wallet.public_key or message.header.num_required_signatures != 1:
            raise ForeignFeePayer("the route's transaction would be signed or paid for by another wallet than ours")
        signed = VersionedTransaction(_dated(message, Hash.from_string(blockhash.blockhash)), [self._wallet.keypair])
        return SignedTransaction(str(signed.signatures[0]), bytes(signed), blockhash.last_valid_block_height)

    async def send(self, raw: bytes) -> None:
        """See Chain."""
        await self._sends.submit(raw)

    async def finalized_point(self) -> FinalizedPoint:
        """See Chain."""
        info = await self._ask("getEpochInfo", [_FINALIZED], _EpochInfo)
        return FinalizedPoint(info.block_height, info.absolute_slot)

    async def signature_statuses(self, signatures: Sequence[str]) -> SignatureStatuses:
        """See Chain."""
        params = [[*signatures], {"searchTransactionHistory": True}]
        answer = await self._ask("getSignatureStatuses", params, _StatusesAnswer)
        if len(answer.value) != len(signatures):
            raise ChainUnavailable("the chain answers with another number of statuses than was asked for")
        found = {it: _status(value) for it, value in zip(signatures, answer.value, strict=True) if value is not None}
        return SignatureStatuses(answer.context.slot, found)

    async def swap_result(self, signature: str, token_out: Token) -> SwapResult | None:
        """See Chain."""
        transaction = await self._results.submit(signature)
        if transaction is None:
            return None
        if transaction.meta.err is not None:
            return SwapResult(None, _program_error(transaction.meta))
        return SwapResult(self._given(transaction.meta, token_out), None)

    async def close(self) -> None:
        """Finish what is on its way."""
        await self._sends.drain()
        await self._results.drain()
        await self._transport.close()

    # --- requests ---

    async def _ask(self, method: str, params: list[Any], wanted: type[Wanted]) -> Wanted:
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": 0, "method": method, "params": params})
        result: Wanted = _result(await self._transport.post(body), wanted)
        return result

    async def _ask_many(self, method: str, params: Sequence[list[Any]], wanted: Any) -> list[Any]:
        """Return a result or ChainUnavailable for each of several requests that travel together."""
        if len(params) == 1:
            return [await self._ask(method, params[0], wanted)]
        requests = [{"jsonrpc": "2.0", "id": at, "method": method, "params": it} for at, it in enumerate(params)]
        body = await self._transport.post(msgspec.json.encode(requests))
        try:
            answers = msgspec.json.decode(body, type=list[msgspec.Raw])
            # A batch's answers may come in any order.
            by_id = {msgspec.json.decode(it, type=_Answer[msgspec.Raw]).id: it for it in answers}
        except msgspec.DecodeError as error:
            raise ChainUnavailable(f"the chain does not answer a batch: {body[:200]!r}") from error
        return [_attempt(by_id.get(at, msgspec.Raw(b"null")), wanted) for at in range(len(params))]

    async def _send_together(self, raws: Sequence[bytes]) -> Sequence[Any]:
        # Preflight asks a node that may lag; maxRetries 0: the engine itself sends again until it knows.
        options = {"encoding": "base64", "skipPreflight": True, "maxRetries": 0}
        params = [[base64.b64encode(raw).decode(), options] for raw in raws]
        sent = await self._ask_many("sendTransaction", params, str)
        return [it if isinstance(it, Exception) else None for it in sent]

    async def _ask_for_transactions(self, signatures: Sequence[str]) -> Sequence[Any]:
        options = {**_CONFIRMED, "encoding": "base64", "maxSupportedTransactionVersion": 0}
        params = [[signature, options] for signature in signatures]
        return await self._ask_many("getTransaction", params, _Transaction | None)

    def _given(self, meta: _Meta, token_out: Token) -> int:
        """Return by how much our balance of the token grew, in base units; native SOL apart from the fee."""
        try:
            if token_out.is_native:
                return meta.post_balances[0] - meta.pre_balances[0] + meta.fee
            return self._balance(meta.post_token_balances, token_out) - self._balance(
                meta.pre_token_balances, token_out
            )
        except (ValueError, IndexError) as error:
            raise ChainUnavailable("the chain's answer has no balances that can be read") from error

    def _balance(self, balances: Sequence[_TokenBalance] | None, token: Token) -> int:
        ours = (it for it in balances or () if it.mint == token.mint and it.owner == self._owner)
        return sum(int(it.ui_token_amount.amount) for it in ours)


def _dated(message: Message | MessageV0, blockhash: Hash) -> Message | MessageV0:
    """Return the message with another blockhash."""
    header, keys, instructions = message.header, message.account_keys, message.instructions
    if isinstance(message, MessageV0):
        return MessageV0(header, keys, blockhash, instructions, message.address_table_lookups)
    return Message.new_with_compiled_instructions(
        header.num_required_signatures,
        header.num_readonly_signed_accounts,
        header.num_readonly_unsigned_accounts,
        keys,
        blockhash,
        instructions,
    )


def _result(body: bytes, wanted: Any) -> Any:
    try:
        answer = msgspec.json.decode(body, type=_Answer[wanted])
    except msgspec.DecodeError as error:
        raise ChainUnavailable(f"the chain's answer cannot be read: {error}") from error
    if answer.result is UNSET:
        raise ChainUnavailable(f"the chain answers with an error: {bytes(answer.error)[:200].decode()}")
    return answer.result


def _attempt(body: bytes, wanted: Any) -> Any:
    try:
        return _result(body, wanted)
    except ChainUnavailable as error:
        return error


def _status(value: _Status) -> SignatureStatus:
    error = None if value.err is None else msgspec.json.encode(value.err).decode()
    return SignatureStatus(value.slot, value.confirmation_status, error)


def _program_error(meta: _Meta) -> str:
    """Return the error's name as an Anchor program logs it, and the chain's own words."""
    names = [match[1] for line in meta.log_messages or () if (match := _ANCHOR_ERROR.search(line))]
    return " ".join([*names, msgspec.json.encode(meta.err).decode()])

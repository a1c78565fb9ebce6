"""Turns a venue's message into a signed transaction in Solana's wire format. Pure: no request, no key."""

from typing import Final

from solders.hash import Hash
from solders.message import Message, MessageV0, from_bytes_versioned, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature

from order_engine.domain.errors import ForeignFeePayer, VenueFailed
from order_engine.ports.chain import Blockhash, SignedTransaction, UnsignedTransaction

_ONE_SIGNATURE: Final = b"\x01"


class SolanaAssembly:
    """The Assembly of legacy and version 0 messages."""

    def __init__(self) -> None:
        """Know no key yet."""
        # Kept: reading a key from base58 for each transaction takes longer than comparing it.
        self._keys: dict[str, Pubkey] = {}

    def with_blockhash(self, transaction: UnsignedTransaction, blockhash: Blockhash, owner: str) -> bytes:
        """See Assembly."""
        message = from_bytes_versioned(transaction.message)
        if not isinstance(message, Message | MessageV0):
            raise VenueFailed("the route's transaction has a version that this engine does not sign")
        if message.account_keys[0] != self._key_of(owner) or message.header.num_required_signatures != 1:
            raise ForeignFeePayer("the route's transaction would be signed or paid for by another wallet than ours")
        return to_bytes_versioned(_with_blockhash(message, Hash.from_string(blockhash.blockhash)))

    def signed(self, message: bytes, signature: bytes, blockhash: Blockhash, owner: str) -> SignedTransaction:
        """See Assembly."""
        return SignedTransaction(
            signature=str(Signature.from_bytes(signature)),
            # The wire format: the number of signatures, the signatures, the message. Solders would parse it all again.
            raw=_ONE_SIGNATURE + signature + message,
            owner=owner,
            last_valid_block_height=blockhash.last_valid_block_height,
            signed_point=blockhash.finalized,
            blockhash_slot=blockhash.slot,
            genesis_hash=blockhash.genesis_hash,
        )

    def _key_of(self, owner: str) -> Pubkey:
        if owner not in self._keys:
            self._keys[owner] = Pubkey.from_string(owner)
        return self._keys[owner]


def _with_blockhash(message: Message | MessageV0, blockhash: Hash) -> Message | MessageV0:
    """Return the message with this blockhash in place of its own."""
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

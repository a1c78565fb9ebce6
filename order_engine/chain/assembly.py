"""Turns a venue's message into a signed transaction in Solana's wire format. Pure: no request, no key."""

from solders.hash import Hash
from solders.message import Message, MessageV0, from_bytes_versioned, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from order_engine.domain.errors import ForeignFeePayer, VenueFailed
from order_engine.ports.chain import Blockhash, SignedTransaction, UnsignedTransaction


class SolanaAssembly:
    """The Assembly of legacy and version 0 messages."""

    def with_blockhash(self, transaction: UnsignedTransaction, blockhash: Blockhash, owner: str) -> bytes:
        """See Assembly."""
        message = from_bytes_versioned(transaction.message)
        if not isinstance(message, Message | MessageV0):
            raise VenueFailed("the route's transaction has a version that this engine does not sign")
        is_ours = message.account_keys[0] == Pubkey.from_string(owner)
        if not is_ours or message.header.num_required_signatures != 1:
            raise ForeignFeePayer("the route's transaction would be signed or paid for by another wallet than ours")
        return to_bytes_versioned(_with_blockhash(message, Hash.from_string(blockhash.blockhash)))

    def signed(self, message: bytes, signature: bytes, blockhash: Blockhash, owner: str) -> SignedTransaction:
        """See Assembly."""
        id_of = Signature.from_bytes(signature)
        return SignedTransaction(
            signature=str(id_of),
            raw=bytes(VersionedTransaction.populate(from_bytes_versioned(message), [id_of])),
            owner=owner,
            last_valid_block_height=blockhash.last_valid_block_height,
            signed_point=blockhash.finalized,
            blockhash_slot=blockhash.slot,
            genesis_hash=blockhash.genesis_hash,
        )


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

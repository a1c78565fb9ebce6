"""The key that owns the swaps. It signs; it knows nothing of orders or of the chain."""

from typing import Protocol


class Signer(Protocol):
    """One Ed25519 key: a file, a hardware wallet or a remote service."""

    @property
    def public_key(self) -> str:
        """The address of the key, base58: it pays the fees and owns the tokens."""

    async def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature of a serialized Solana message.

        A caller that is cancelled gets no signature, so it has nothing to send.
        """

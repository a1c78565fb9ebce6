"""A key that is made from a seed: it guards nothing but paper."""

import hashlib

from solders.keypair import Keypair


class PaperSigner:
    """A Signer; the same seed gives the same key in every process."""

    def __init__(self, seed: int) -> None:
        """Make the key."""
        self.keypair = Keypair.from_seed(hashlib.sha256(f"{seed}:wallet".encode()).digest())
        # Kept: solders works the public key out again each time that it is asked.
        self.public_key = str(self.keypair.pubkey())

    async def sign(self, message: bytes) -> bytes:
        """See Signer."""
        return bytes(self.keypair.sign_message(message))

"""Signs transactions with a fresh blockhash; a signed transaction may execute."""

import asyncio
from typing import Final

from order_engine.domain.errors import ChainUnavailable
from order_engine.engine.outage import Outage
from order_engine.ports.chain import Assembly, Blockhash, Chain, SignedTransaction, UnsignedTransaction
from order_engine.ports.signer import Signer

_BLOCKHASH_RETRY_S: Final = 0.5


class Signing:
    """Gives transactions a blockhash and has them signed. Sends nothing."""

    def __init__(self, chain: Chain, assembly: Assembly, signer: Signer, silence: Outage) -> None:
        """`silence` logs that the chain does not answer."""
        self._chain = chain
        self._assembly = assembly
        self._signer = signer
        self._silence = silence

    async def sign(self, transaction: UnsignedTransaction) -> SignedTransaction:
        """Sign with the engine's key; raises ForeignFeePayer and VenueFailed."""
        blockhash = await self._blockhash()
        owner = self._signer.public_key
        message = self._assembly.with_blockhash(transaction, blockhash, owner)
        return self._assembly.signed(message, await self._signer.sign(message), blockhash, owner)

    async def _blockhash(self) -> Blockhash:
        """Wait for a blockhash as long as it takes: nothing is signed yet, so nothing can be lost."""
        while True:
            try:
                blockhash = await self._chain.latest_blockhash()
            except ChainUnavailable as error:
                self._silence.note_failure(error)
                await asyncio.sleep(_BLOCKHASH_RETRY_S)
            else:
                self._silence.note_success()
                return blockhash

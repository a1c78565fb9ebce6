"""The pauses that are on, as this process knows them; the database enforces the newest ones."""

from collections.abc import Mapping
from typing import Final

from order_engine.ports.access import Pause, SwitchStore

_LOOK_EVERY_S: Final = 0.5


class Pauses:
    """Reads the pauses twice a second, so that each process acts on them within 1 s."""

    def __init__(self, store: SwitchStore) -> None:
        """Nothing is paused before the first look."""
        self._store = store
        self._by_account: Mapping[str | None, Pause] = {}

    async def look(self) -> float:
        """Read the pauses; returns the time until the next look, in s. Raises StoreUnavailable."""
        self._by_account = {it.account: it for it in await self._store.pauses()}
        return _LOOK_EVERY_S

    def find(self, account: str) -> Pause | None:
        """Return the pause that is on for the account, or None."""
        return self._by_account.get(None) or self._by_account.get(account)

    def describe(self) -> str:
        """Return in one sentence which pauses are on."""
        if (every := self._by_account.get(None)) is not None:
            return f"everything is paused: {every.reason or 'no reason was given'}; `order-engine resume` ends it"
        count = len(self._by_account)
        return f"{count} accounts are paused" if count else "nothing is paused"

    @property
    def is_everything_paused(self) -> bool:
        """Whether a pause of all accounts is on."""
        return None in self._by_account

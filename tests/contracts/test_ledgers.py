"""Ledger: the paper chain's own record, in a file and in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from order_engine.chain.ledger import PostgresLedger, SqliteLedger
from order_engine.chain.paper import Ledger, LedgerEntry
from order_engine.domain.errors import ChainUnavailable
from tests.contracts.orders import outcome_of
from tests.contracts.waiting import until
from tests.contracts.worlds import MortalPostgres

pytestmark = pytest.mark.asyncio


class Shelf:
    """One ledger's place, from which it can be opened as often as one likes."""

    def __init__(self, open_ledger: Callable[[], Awaitable[Ledger]]) -> None:
        self._open_ledger = open_ledger
        self._opened: list[Ledger] = []

    async def open(self) -> Ledger:
        self._opened.append(await self._open_ledger())
        return self._opened[-1]

    async def close(self) -> None:
        """Close all that is open."""
        while self._opened:
            await self._opened.pop().close()


@pytest_asyncio.fixture
async def sqlite_shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    async def open_ledger() -> Ledger:
        return SqliteLedger(tmp_path / "chain.sqlite3")

    shelf = Shelf(open_ledger)
    yield shelf
    await shelf.close()


@pytest_asyncio.fixture
async def postgres_shelf(database_url: str) -> AsyncIterator[Shelf]:
    shelf = Shelf(lambda: PostgresLedger.open(database_url))
    yield shelf
    await shelf.close()


@pytest.fixture(params=["postgres", "sqlite"])
def shelf(request: pytest.FixtureRequest) -> Shelf:
    found: Shelf = request.getfixturevalue(f"{request.param}_shelf")
    return found


@pytest_asyncio.fixture
async def ledger(shelf: Shelf) -> Ledger:
    return await shelf.open()


def entry(number: int, lands_at_ms: int = 9_000) -> LedgerEntry:
    """A swap that landed, or with an odd number was refused by the program."""
    amount_out, error = (None, "SlippageToleranceExceeded") if number % 2 else (7, None)
    return LedgerEntry(
        f"signature {number}", "order", 1, "raydium", "SOL", "USDC", 2**63 - 1, 1, amount_out, error, 5, 4, lands_at_ms
    )


async def found_in(ledger: Ledger, *entries: LedgerEntry) -> list[LedgerEntry]:
    found = await ledger.find([it.signature for it in entries])
    return sorted(found, key=lambda it: it.signature)


async def test_what_is_appended_is_found_by_its_signature(ledger: Ledger) -> None:
    entries = [entry(number) for number in range(4)]
    await ledger.append(entries[:1])
    await ledger.append(entries[1:3])
    assert await found_in(ledger, *entries) == entries[:3]
    assert await found_in(ledger, entries[3]) == []
    assert await found_in(ledger) == []
    assert await ledger.find(["signature 1", "signature 1", "' or 1=1 --", '"', "é"]) == [entries[1]]


async def test_a_signature_that_is_there_stays_as_it_is(ledger: Ledger) -> None:
    first = entry(2)
    await ledger.append([first])
    other = msgspec.structs.replace(first, memo="another order", amount_out=8, lands_at_ms=9_001)
    await ledger.append([entry(4), other, entry(6)])
    assert await found_in(ledger, first, entry(4), entry(6)) == [first, entry(4), entry(6)]


async def test_a_signature_that_comes_twice_in_one_append_is_kept_once(ledger: Ledger) -> None:
    await ledger.append([entry(2), entry(2)])
    assert await found_in(ledger, entry(2)) == [entry(2)]


async def test_what_is_kept_is_there_when_it_is_opened_again(shelf: Shelf) -> None:
    ledger = await shelf.open()
    genesis_ms = await ledger.genesis_ms(1_000)
    await ledger.append([entry(1), entry(2)])
    await shelf.close()

    again = await shelf.open()
    assert await again.genesis_ms(5_000) == genesis_ms == 1_000
    assert await found_in(again, entry(1), entry(2)) == [entry(1), entry(2)]
    await again.append([msgspec.structs.replace(entry(1), memo="other")])
    assert await found_in(again, entry(1)) == [entry(1)]


async def test_the_chain_begins_once_whoever_asks_first(shelf: Shelf) -> None:
    ledgers = [await shelf.open() for _ in range(3)]
    answers = await asyncio.gather(*(it.genesis_ms(1_000 + at) for at, it in enumerate(ledgers * 4)))
    assert len({*answers}) == 1
    assert await ledgers[0].genesis_ms(1) == answers[0]


async def test_several_that_append_the_same_at_once_keep_each_entry_once(shelf: Shelf) -> None:
    ledgers = await asyncio.gather(*(shelf.open() for _ in range(3)))
    entries = [entry(number) for number in range(30)]
    appends = (it.append(entries[::step]) for it, step in zip(ledgers * 2, (1, 2, 3, 1, 2, 3), strict=True))
    await asyncio.gather(*appends)
    found = await ledgers[1].find([it.signature for it in entries])
    assert sorted(found, key=entries.index) == entries


async def test_an_append_that_fails_keeps_nothing_and_breaks_nothing(ledger: Ledger) -> None:
    bad = msgspec.structs.replace(entry(3), slot=2**70)
    assert isinstance(await outcome_of(ledger.append([entry(1), bad])), Exception)
    assert await found_in(ledger, entry(1), bad) == []
    await ledger.append([entry(1)])
    assert await found_in(ledger, entry(1)) == [entry(1)]


async def test_nothing_lands_any_more_before_what_is_sealed(ledger: Ledger) -> None:
    await ledger.append([entry(0, lands_at_ms=100)])
    await ledger.seal(200)
    await ledger.append([entry(2, lands_at_ms=199), entry(4, lands_at_ms=200), entry(6, lands_at_ms=201)])
    assert await found_in(ledger, *(entry(number) for number in (0, 2, 4, 6))) == [
        entry(0, lands_at_ms=100),
        entry(6, lands_at_ms=201),
    ]


async def test_a_seal_is_never_lifted(shelf: Shelf) -> None:
    one, other = await shelf.open(), await shelf.open()
    await one.seal(200)
    await other.seal(100)
    await other.append([entry(2, lands_at_ms=150)])
    assert await found_in(one, entry(2)) == []
    await shelf.close()
    again = await shelf.open()
    await again.append([entry(2, lands_at_ms=200), entry(4, lands_at_ms=201)])
    assert await found_in(again, entry(2), entry(4)) == [entry(4, lands_at_ms=201)]


async def answers_again(ledger: Ledger) -> bool:
    """Whether the ledger can be asked; only the one error is allowed until then."""
    answer = await outcome_of(ledger.find(["signature 1"]))
    assert isinstance(answer, list | ChainUnavailable)
    return isinstance(answer, list)


async def test_a_killed_postgres_makes_the_chain_unavailable_until_it_is_back(mortal_postgres: MortalPostgres) -> None:
    ledger = await PostgresLedger.open(mortal_postgres.url)
    await ledger.genesis_ms(1_000)
    await ledger.append([entry(1)])
    mortal_postgres.kill()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: ledger.genesis_ms(1),
        lambda: ledger.append([entry(2)]),
        lambda: ledger.find(["signature 1"]),
        lambda: ledger.seal(1),
    ]
    for call in calls:
        assert isinstance(await outcome_of(call()), ChainUnavailable)
    outcomes = await asyncio.gather(*(outcome_of(call()) for call in calls * 5))
    assert {type(it) for it in outcomes} == {ChainUnavailable}

    mortal_postgres.start()
    await until(lambda: answers_again(ledger))
    assert await found_in(ledger, entry(1)) == [entry(1)]
    await ledger.append([entry(2)])
    await ledger.close()


async def test_a_postgres_killed_in_the_middle_of_appends_keeps_what_it_said_it_kept(
    mortal_postgres: MortalPostgres,
) -> None:
    ledger = await PostgresLedger.open(mortal_postgres.url)
    entries = [entry(number) for number in range(400)]
    appending = [asyncio.ensure_future(outcome_of(ledger.append([it]))) for it in entries]
    await asyncio.wait(appending, return_when=asyncio.FIRST_COMPLETED)
    mortal_postgres.kill()
    answers = await asyncio.gather(*appending)
    mortal_postgres.start()

    assert {type(answer) for answer in answers} <= {type(None), ChainUnavailable}
    await until(lambda: answers_again(ledger))
    found = await found_in(ledger, *entries)
    assert {it.signature for it, answer in zip(entries, answers, strict=True) if answer is None} <= {
        it.signature for it in found
    }
    await ledger.close()

"""Opens the simulated market and chain."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from starlette.types import ASGIApp

from order_engine.clock import SteadyClock
from order_engine.domain.errors import WrongSchema
from order_engine.file_lock import lock_file
from order_engine.paper.faults import ChainFaults, parse_faults
from order_engine.paper.ledger import SqliteLedger
from order_engine.paper.market import METEORA, RAYDIUM, REFERENCE_PRICES_USD, PaperMarket
from order_engine.paper.network import PaperNetwork
from order_engine.paper.node import PaperNode
from order_engine.paper.server import build_chain_app
from order_engine.paper.venue import PaperFaults, PaperVenue
from order_engine.ports.clock import Clock
from order_engine.ports.signer import Signer
from order_engine.ports.venues import Venue
from order_engine.settings import LEDGER_FILE, Settings, SettingsError
from order_engine.token_file import load_tokens


@contextlib.asynccontextmanager
async def open_chain_app(settings: Settings) -> AsyncIterator[ASGIApp]:
    """Return the HTTP application of the paper chain on its ledger in DATA_DIR."""
    _, prices = load_tokens(settings.tokens_file, REFERENCE_PRICES_USD)
    async with contextlib.AsyncExitStack() as stack:
        path = settings.data_dir / LEDGER_FILE
        network, node = await open_paper_chain(
            stack, settings, path, PaperMarket(settings.mock_seed, prices), SteadyClock()
        )
        stack.push_async_callback(network.close)
        yield build_chain_app(node)


def chain_faults(settings: Settings) -> ChainFaults:
    """Return the faults of the paper chain; raises SettingsError."""
    try:
        return parse_faults(settings.chain_faults)
    except ValueError as error:
        message = f"CHAIN_FAULTS={settings.chain_faults!r} cannot be used: {error}; .env.example lists them all."
        raise SettingsError(message) from error


def paper_venues(settings: Settings, market: PaperMarket, clock: Clock, signer: Signer) -> Mapping[str, Venue]:
    """Return the simulated venues by name."""
    faults = PaperFaults(settings.mock_fail_rate, settings.mock_delay_scale)
    return {
        terms.name: PaperVenue(terms.name, market, clock, faults, settings.mock_seed, signer.public_key)
        for terms in (RAYDIUM, METEORA)
    }


async def open_paper_chain(
    stack: contextlib.AsyncExitStack, settings: Settings, path: Path, market: PaperMarket, clock: Clock
) -> tuple[PaperNetwork, PaperNode]:
    """Lock and open the ledger, and start the paper chain on it."""
    lock_file(stack, path)
    faults = chain_faults(settings)
    seed, scale = settings.mock_seed, settings.mock_delay_scale
    try:
        ledger = SqliteLedger(path)
    except WrongSchema as error:
        message = f"{path} cannot be used: {error}. Move it away, together with the database whose orders it executed."
        raise SettingsError(message) from error
    network = PaperNetwork(ledger, market.execute, clock, scale, seed, faults)
    await network.start()
    return network, PaperNode(network, faults, seed)

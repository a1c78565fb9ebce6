"""Every environment variable, with its type, unit and limits: a file for each reader.

A new one is a field in the file of its reader: client, servers, api, worker, paper or log. `make docs` lists it in
.env.example.
"""

from order_engine.settings.client import DEFAULT_ENGINE_URL, ClientSettings
from order_engine.settings.errors import SettingsError
from order_engine.settings.loading import GROUPS, Settings, load_client_settings, load_settings
from order_engine.settings.paper import SLOWEST_PAPER_QUOTE_MS
from order_engine.settings.servers import DEFAULT_CHAIN_URL, LEDGER_FILE, SQLITE_FILE

__all__ = (
    "DEFAULT_CHAIN_URL",
    "DEFAULT_ENGINE_URL",
    "GROUPS",
    "LEDGER_FILE",
    "SLOWEST_PAPER_QUOTE_MS",
    "SQLITE_FILE",
    "ClientSettings",
    "Settings",
    "SettingsError",
    "load_client_settings",
    "load_settings",
)

"""The commands of an operator: keys, limits, pauses, the audit log. They work on the database, beside the engine."""

import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from order_engine.api.access_schemas import view_audit, view_key, view_new_key, view_pause
from order_engine.domain.access import MAX_LABEL, MAX_REASON, Scope, is_account, is_plain
from order_engine.domain.account_limits import AccountLimits
from order_engine.domain.errors import InvalidRequest
from order_engine.domain.money import AmountError, parse_amount
from order_engine.domain.tokens import TokenRegistry
from order_engine.engine.callers import Callers
from order_engine.logs import configure_logging
from order_engine.ports.access import AccessStore, Actor
from order_engine.serve import run
from order_engine.settings import load_settings
from order_engine.terminal import OK, USAGE, Json, print_error, print_line, usage
from order_engine.token_file import load_tokens
from order_engine.wiring import REFERENCE_PRICES_USD, open_access

_OPERATOR: Final = Actor(None, "command line")
_LIFETIME: Final = re.compile(r"([1-9][0-9]{0,3})([dhm])", re.ASCII)
_UNIT_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000}


def create_key(
    *, account: str, scopes: str = "read,trade", expires: str | None = None, label: str = "", json: Json = False
) -> int:
    """Make an API key for an account and print it, this once.

    Parameters
    ----------
    account
        The account whose orders the key sees and places.
    scopes
        Some of read, trade, admin and metrics, separated by commas.
    expires
        After how long the key ends: such as 90d, 12h or 30m. Without it, it ends when it is revoked.
    label
        Your own note about the key.

    """
    wanted = [it.strip() for it in scopes.split(",")]
    lifetime = None if expires is None else _LIFETIME.fullmatch(expires)
    if not is_account(account):
        return usage("--account must be 1-64 letters, digits, `_`, `.` and `-`, and begin with a letter or digit.")
    if not set(wanted) <= {*Scope}:
        return usage(f"--scopes must be some of {', '.join(Scope)}, separated by commas.")
    if expires is not None and lifetime is None:
        return usage("--expires must be a number with d, h or m, such as 90d.")
    if len(label) > MAX_LABEL or not is_plain(label):
        return usage(f"--label must be at most {MAX_LABEL} characters, without control characters.")
    expires_in_ms = None if lifetime is None else int(lifetime[1]) * _UNIT_MS[lifetime[2]]

    async def create(_: AccessStore, callers: Callers) -> int:
        granted = frozenset(Scope(it) for it in wanted)
        secret, key = await callers.make_key(account, granted, label, expires_in_ms, _OPERATOR)
        if json:
            _print(view_new_key(key, secret))
        else:
            print_line(secret)
            may = ",".join(sorted(granted))
            print_error(f"Key {key.key_id} of the account {account}, with {may}. Keep it: the engine does not.")
        return OK

    return _operate(create)


def list_keys(*, json: Json = False) -> int:
    """List the API keys, without their secrets."""

    async def show(access: AccessStore, _: Callers) -> int:
        for key in await access.list_keys():
            view = view_key(key)
            if json:
                _print(view)
                continue
            state = f"revoked {view.revoked_at}" if view.revoked_at else f"expires {view.expires_at or 'never'}"
            used = view.last_used_at or "never"
            may = ",".join(view.scopes)
            print_line(f"{key.key_id}  {key.account}  {may}  {state}  last used {used}  {key.label}".rstrip())
        return OK

    return _operate(show)


def revoke_key(key_id: str, /, *, json: Json = False) -> int:
    """Revoke an API key: within 5 s no process accepts it."""
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", key_id):
        return usage("KEY_ID must be the id of a key, as `order-engine keys list` shows it; it is not the key itself.")

    async def revoke(_: AccessStore, callers: Callers) -> int:
        revoked = await callers.revoke(key_id, _OPERATOR)
        if revoked is None:
            print_error(f"There is no API key {key_id}; `order-engine keys list` shows them all.")
            return USAGE
        if json:
            _print(view_key(revoked))
        else:
            print_line(f"{key_id} is revoked.")
        return OK

    return _operate(revoke)


def pause(*, account: str | None = None, reason: str = "", json: Json = False) -> int:
    """Stop accepting and signing, of one account or of all; signed transactions are still proven.

    Parameters
    ----------
    account
        Only this account.
    reason
        Told to every client whose order is refused.

    """
    if account is not None and not is_account(account):
        return usage("--account must be 1-64 letters, digits, `_`, `.` and `-`, and begin with a letter or digit.")
    if len(reason) > MAX_REASON or not is_plain(reason):
        return usage(f"--reason must be at most {MAX_REASON} characters, without control characters.")

    async def stop(access: AccessStore, _: Callers) -> int:
        await access.pause(account, reason, _OPERATOR)
        return await _show_pauses(access, as_json=json)

    return _operate(stop)


def resume(*, account: str | None = None, json: Json = False) -> int:
    """End the pause of one account, or that of all.

    Parameters
    ----------
    account
        Only this account.

    """

    async def go_on(access: AccessStore, _: Callers) -> int:
        if not await access.resume(account, _OPERATOR):
            print_error(f"There was no pause of {account or 'all accounts'}.")
        return await _show_pauses(access, as_json=json)

    return _operate(go_on)


def audit(*, limit: int = 50, json: Json = False) -> int:
    """Show the audit log, newest first: keys, limits, pauses and bulk cancels.

    Parameters
    ----------
    limit
        At most so many lines.

    """

    async def show(access: AccessStore, _: Callers) -> int:
        for entry in await access.audit(None, max(1, limit)):
            view = view_audit(entry)
            if json:
                _print(view)
            else:
                by = view.key_id or view.address
                details = bytes(view.details).decode()
                print_line(f"{view.number}  {view.at}  {by}  {view.action}  {view.subject}  {details}")
        return OK

    return _operate(show)


def set_limits(  # noqa: PLR0913 - an account's limits
    *,
    account: str,
    orders_per_minute: int | None = None,
    burst: int = 1,
    open_orders: int | None = None,
    per_order: str = "",
    per_day: str = "",
    json: Json = False,
) -> int:
    """Limit how much an account may trade, instead of its present limits.

    Parameters
    ----------
    account
        The account.
    orders_per_minute
        Orders a minute.
    burst
        How many of them may come at once.
    open_orders
        Orders that have not ended.
    per_order
        The most that one order sells, by token: such as SOL=10,USDC=2000.
    per_day
        The same for all orders of a day of UTC.

    """
    if not is_account(account):
        return usage("--account must be 1-64 letters, digits, `_`, `.` and `-`, and begin with a letter or digit.")
    if min(it for it in (orders_per_minute or 1, burst, (open_orders or 0) + 1)) < 1:
        return usage("--orders-per-minute and --burst must be at least 1, and --open-orders at least 0.")
    tokens, _ = load_tokens(load_settings().tokens_file, REFERENCE_PRICES_USD)
    try:
        limits = AccountLimits(
            account=account,
            orders_per_minute=orders_per_minute,
            burst=burst,
            open_orders=open_orders,
            amount_per_order=_amounts(per_order, tokens),
            amount_per_day=_amounts(per_day, tokens),
        )
    except (InvalidRequest, AmountError, ValueError) as error:
        return usage(f"--per-order and --per-day must be such as SOL=10,USDC=2000: {error}.")

    async def keep(access: AccessStore, _: Callers) -> int:
        await access.set_limits(limits, _OPERATOR)
        if json:
            _print(limits)
        else:
            print_error(f"The account {account} has new limits.")
        return OK

    return _operate(keep)


def show_limits(*, json: Json = False) -> int:
    """Show the limits of all accounts, amounts in base units by mint."""

    async def show(access: AccessStore, _: Callers) -> int:
        for it in await access.limits():
            print_line(
                msgspec.json.encode(it).decode() if json else f"{it.account}  {msgspec.json.encode(it).decode()}"
            )
        return OK

    return _operate(show)


def _amounts(text: str, tokens: TokenRegistry) -> dict[str, int]:
    """Return base units by mint of a text like SOL=10,USDC=2000. Raises InvalidRequest, AmountError, ValueError."""
    amounts = {}
    for part in filter(None, text.split(",")):
        name, amount = part.split("=")
        token = tokens.resolve(name.strip(), "token")
        amounts[token.mint] = int(parse_amount(amount.strip(), token.decimals))
    return amounts


async def _show_pauses(access: AccessStore, *, as_json: bool) -> int:
    pauses = await access.pauses()
    for it in pauses:
        if as_json:
            _print(view_pause(it))
        else:
            print_line(f"{it.account or 'all accounts'} paused: {it.reason or 'no reason was given'}")
    if not pauses:
        print_error("Nothing is paused.")
    return OK


def _operate(act: Callable[[AccessStore, Callers], Coroutine[Any, Any, int]]) -> int:
    settings = load_settings()
    configure_logging(settings)

    async def main() -> int:
        async with open_access(settings) as (access, callers):
            return await act(access, callers)

    return run(main)


def _print(view: msgspec.Struct) -> None:
    print_line(msgspec.json.encode(view).decode())

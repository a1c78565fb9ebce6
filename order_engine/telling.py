"""Orders, events and attempts in a few words a line, or as JSON and CSV."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, Final

from order_engine.client import TERMINAL
from order_engine.terminal import print_error, print_line, print_text

_CSV_COLUMNS: Final = (
    "orderId",
    "clientOrderId",
    "type",
    "status",
    "inDoubt",
    "tokenIn",
    "amountIn",
    "tokenOut",
    "amountOut",
    "minAmountOut",
    "price",
    "slippageBps",
    "venue",
    "txSignature",
    "attempt",
    "reasonCode",
    "reasonMessage",
    "createdAt",
    "endedAt",
)
# A spreadsheet takes a cell that begins with one of these for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def words_of(event: dict[str, Any]) -> str:  # noqa: PLR0911 - one answer for each status
    """Return an event's details in a few words."""
    details = event["data"]
    match event["status"]:
        case "pending" if details.get("tokenIn"):
            return ", ".join(_words_of_new(details))
        case "routing" if details.get("venue"):
            margin = f" by {details['marginBps']} bps" if details.get("marginBps") is not None else ""
            return f"{details['venue']} wins{margin}"
        case "building":
            return ", ".join(details["steps"])
        case "submitted":
            return f"signature {details['txSignature'][:16]}…"
        case "confirmed":
            return f"got {details['amountOut']} on {details['venue']}"
        case "retrying" | "failed" | "cancelled":
            return f"{details['reason']['code']}: {details['reason']['message']}"
    return ""


def show_event(event: dict[str, Any], *, as_json: bool) -> None:
    """Print an event as a line."""
    if as_json:
        print_line(json.dumps(event))
    else:
        line = f"{event['seq']:>3}  {event['at']}  {event['status']:<10} {event['orderId']}  {words_of(event)}"
        print_line(line.rstrip())


def show_page(page: dict[str, Any], *, as_json: bool) -> None:
    """Print a page of the account's events: unchanged as JSON, or each event as a line."""
    if as_json:
        print_line(json.dumps(page))
        return
    for event in page["events"]:
        show_event(event, as_json=False)


def show_order(order: dict[str, Any], *, as_json: bool) -> None:
    """Print an order as a line."""
    if as_json:
        print_line(json.dumps(order))
    else:
        print_line(f"{order['orderId']}  {_state(order):<10}  {_swap(order)}  {_reason(order)}".rstrip())


def show_whole_order(order: dict[str, Any], *, as_json: bool) -> None:
    """Print an order, every venue's quote, and the proof of each attempt's outcome."""
    show_order(order, as_json=as_json)
    if as_json:
        return
    if order.get("waitingFor"):
        print_line(f"  waits for  {order['waitingFor']}")
    for quote in order["quotes"] or ():
        print_line(f"  {quote['venue']:<9}  {_words_of_quote(quote, order['tokenOut'])}")
    for attempt in order["attempts"]:
        show_attempt(attempt, as_json=False)


def show_listed(order: dict[str, Any], *, as_json: bool) -> None:
    """Print an order as a line with its dates."""
    if as_json:
        print_line(json.dumps(order))
        return
    dates = f"{order['createdAt']}  {_ended_at(order) or '-':<24}"
    print_line(f"{order['orderId']}  {_state(order):<10}  {dates}  {_swap(order)}  {_reason(order)}".rstrip())


def show_readiness(readiness: dict[str, Any], *, as_json: bool) -> None:
    """Print the engine's health: its status, the reasons, and a line for each part."""
    if as_json:
        print_line(json.dumps(readiness))
        return
    print_line(readiness["status"])
    for reason in readiness["reasons"]:
        print_line(f"  because    {reason}")
    for part, state in readiness["dependencies"].items():
        print_line(f"  {part:<9}  {state}")


def show_csv_header() -> None:
    """Print the names of the columns."""
    print_text(_csv_line(_CSV_COLUMNS))


def show_as_csv(order: dict[str, Any]) -> None:
    """Print an order as a line of CSV; amounts are the API's decimal text."""
    reason = order["reason"] or {}
    derived = {
        "reasonCode": reason.get("code"),
        "reasonMessage": reason.get("message"),
        "endedAt": _ended_at(order),
        "inDoubt": "true" if order["inDoubt"] else "false",
    }
    cells = ({**order, **derived}.get(name) for name in _CSV_COLUMNS)
    print_text(_csv_line(tuple("" if cell is None else str(cell) for cell in cells)))


def show_attempt(attempt: dict[str, Any], *, as_json: bool) -> None:
    """Print one signed transaction of an order, with the proof of its outcome."""
    if as_json:
        print_line(json.dumps(attempt))
        return
    outcome = attempt["outcome"] or "in doubt"
    proof = ", ".join(f"{name} {value}" for name, value in (attempt["evidence"] or {}).items() if value is not None)
    expiry = f"expires after block {attempt['lastValidBlockHeight']}"
    print_line(f"  attempt {attempt['attempt']}  {outcome:<8}  {attempt['txSignature']}  {proof or expiry}")


def show_in_doubt(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print the attempts that are in doubt, each on a line."""
    for attempt in answer["attempts"]:
        if as_json:
            print_line(json.dumps(attempt))
            continue
        blocks = attempt["blocksToExpiry"]
        left = "chain did not answer just now" if blocks is None else f"{blocks} blocks to expiry"
        age = f"signed {attempt['ageMs'] / 1000:.1f} s ago"
        print_line(f"{attempt['orderId']}  attempt {attempt['attempt']}  {age}  {left}  {attempt['txSignature']}")
    height = answer["finalizedBlockHeight"]
    at = "the chain did not answer just now" if height is None else f"finalized block height {height}"
    print_error(f"{len(answer['attempts'])} attempts in doubt; {at}.")


def say_done(sentence: str, document: dict[str, Any], *, as_json: bool) -> None:
    """Say that something is done, or print it as a document."""
    if as_json:
        print_line(json.dumps(document))
    else:
        print_error(sentence)


def _words_of_new(details: dict[str, Any]) -> Iterator[str]:
    yield f"{details.get('type', 'market')} {details.get('amountIn')} {details['tokenIn']} → {details.get('tokenOut')}"
    if details.get("slippageBps") is not None:
        yield f"slippage {details['slippageBps']} bps"
    if details.get("clientOrderId"):
        yield f"client's id {details['clientOrderId']}"


def _words_of_quote(quote: dict[str, Any], token: str) -> str:
    words = "chosen" if quote.get("chosen") else f"lost: {quote.get('lostBecause') or 'no reason given'}"
    if quote.get("amountOut") is None:
        return words
    terms = f"{quote['amountOut']} {token}, fee {quote.get('feeBps')} bps, impact {quote.get('priceImpactBps')} bps"
    return f"{terms}  {words}"


def _state(order: dict[str, Any]) -> str:
    return f"{order['status']} (in doubt)" if order["inDoubt"] else str(order["status"])


def _swap(order: dict[str, Any]) -> str:
    got = f"{order['amountOut']} {order['tokenOut']}" if order["amountOut"] else order["tokenOut"]
    venue = f" on {order['venue']}" if order["venue"] else ""
    return f"{order['amountIn']} {order['tokenIn']} → {got}{venue}"


def _reason(order: dict[str, Any]) -> str:
    return order["reason"]["message"] if order["reason"] else ""


def _ended_at(order: dict[str, Any]) -> str | None:
    """Return the time of the terminal event, after which an order never changes."""
    return order["updatedAt"] if order["status"] in TERMINAL else None


def _csv_line(cells: tuple[str, ...]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA) else cell for cell in cells)
    return line.getvalue()

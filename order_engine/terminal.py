"""What the commands show and how they end: data on stdout, talk on stderr, and an exit code."""

import json
import sys
from typing import Annotated, Any, Final

from cyclopts import Parameter

OK: Final = 0
ENDED: Final = 1
USAGE: Final = 2
REJECTED: Final = 3
FAILED: Final = 4
TIMED_OUT: Final = 5
UNREACHABLE: Final = 6

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, one document a line.")]


def show_order(order: dict[str, Any], *, as_json: bool) -> None:
    """Print an order as a line."""
    if as_json:
        print_line(json.dumps(order))
        return
    got = f"{order['amountOut']} {order['tokenOut']}" if order["amountOut"] else order["tokenOut"]
    swap = f"{order['amountIn']} {order['tokenIn']} → {got}"
    doubt = " (in doubt)" if order["inDoubt"] else ""
    reason = order["reason"]["message"] if order["reason"] else ""
    print_line(f"{order['orderId']}  {order['status'] + doubt:<10}  {swap}  {reason}".rstrip())


def show_attempt(attempt: dict[str, Any], *, as_json: bool) -> None:
    """Print one signed transaction of an order, with what proves its outcome."""
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
    talk(f"{len(answer['attempts'])} attempts in doubt; {at}.")


def say_done(sentence: str, document: dict[str, Any], *, as_json: bool) -> None:
    """Say that something is done, or print it as a document."""
    if as_json:
        print_line(json.dumps(document))
    else:
        talk(sentence)


def print_line(line: str) -> None:
    """Write data to stdout, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def talk(line: str) -> None:
    """Write a sentence to stderr."""
    sys.stderr.write(f"{line}\n")


def usage(sentence: str) -> int:
    """Say what is wrong with the command; returns its exit code."""
    talk(sentence)
    return USAGE

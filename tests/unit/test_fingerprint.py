"""A fingerprint covers everything that the client sent, and stays the same in each release."""

import json
from typing import Any

import pytest

from order_engine.api.parsing import parse_parts
from order_engine.domain.fingerprint import fingerprint

ORDER: dict[str, Any] = {"type": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": "1.5"}


def fingerprint_of(**changes: Any) -> str:
    return fingerprint(parse_parts(json.dumps(ORDER | changes).encode()))


# Databases keep fingerprints: a release that changes one answers 422 to repeated requests of its users.
PINNED = {
    "plain": ({}, "1:a25308ed1c495eb9275b8fd5724fbf514e12f7ca956c03308904403770a86e0f"),
    "full": (
        {"slippageBps": 50, "clientOrderId": "mine-1", "metadata": {"b": [1, {"d": 2, "c": "é"}], "a": None}},
        "1:f89bf92abe31def5e0865304f840de3079a662c09a6acd0fadf3ad8c3e9842ec",
    ),
}


@pytest.mark.parametrize("name", PINNED)
def test_a_fingerprint_never_changes(name: str) -> None:
    changes, pinned = PINNED[name]
    assert fingerprint_of(**changes) == pinned


@pytest.mark.parametrize(
    "changes",
    [
        {"amountIn": "1.50"},
        {"amountIn": 1.5},
        {"tokenIn": "sol"},
        {"metadata": None},
        {"clientOrderId": None},
        {"slippageBps": None},
    ],
    ids=str,
)
def test_the_same_request_in_other_words_has_the_same_fingerprint(changes: dict[str, Any]) -> None:
    assert fingerprint_of(**changes) == fingerprint_of()


def test_the_order_of_members_means_nothing() -> None:
    one = fingerprint(
        parse_parts(
            b'{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","metadata":{"a":1,"b":{"c":2,"d":3}}}'
        )
    )
    other = fingerprint(
        parse_parts(
            b'{"metadata":{"b":{"d":3,"c":2},"a":1},"amountIn":"1","tokenOut":"USDC","tokenIn":"SOL","type":"market"}'
        )
    )
    assert one == other


@pytest.mark.parametrize(
    "changes",
    [
        {"amountIn": "1.51"},
        {"amountIn": "15"},
        {"tokenIn": "So11111111111111111111111111111111111111112"},
        {"tokenOut": "USDT"},
        {"slippageBps": 50},
        {"clientOrderId": "mine"},
        {"metadata": {"a": 1}},
        {"metadata": {"a": "1"}},
    ],
    ids=str,
)
def test_another_request_has_another_fingerprint(changes: dict[str, Any]) -> None:
    assert fingerprint_of(**changes) != fingerprint_of()

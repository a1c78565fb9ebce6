"""TOKENS_FILE is read strictly: each refusal names the entry and the field."""

import json
from pathlib import Path
from typing import Any

import pytest

from order_engine.domain.tokens import KNOWN_TOKENS, WRAPPED_SOL_MINT, Token, TokenRegistry
from order_engine.settings import SettingsError
from order_engine.token_file import load_tokens
from tests.unit.samples import USDC

MINT = "2VhjJ9WxaGC3EZFwJG9BDUs9KxKCAjQY4vgd1qxgYWVg"
OTHER_MINT = "4vMsoUT2BWatFweudnQM1xedRLfJgJ7hswhcpz4xgBTy"
OWN = {"symbol": "OWN", "mint": MINT, "decimals": 6, "referencePriceUsd": "2.5"}
PRICES = {"SOL": "150"}


def load(path: Path, content: str | bytes) -> tuple[TokenRegistry, dict[str, str]]:
    file = path / "tokens.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return load_tokens(file, PRICES)


def refusal(path: Path, content: str | bytes) -> str:
    with pytest.raises(SettingsError) as caught:
        load(path, content)
    message = str(caught.value)
    assert message.startswith("TOKENS_FILE=")
    assert message.endswith(".")
    return message


def test_without_a_file_there_are_the_known_tokens() -> None:
    registry, prices = load_tokens(None, PRICES)
    assert (registry.tokens, prices) == (KNOWN_TOKENS, PRICES)


def test_a_file_adds_tokens_and_their_prices(tmp_path: Path) -> None:
    other = {"symbol": "$other.x-1", "mint": OTHER_MINT, "decimals": 0}
    registry, prices = load(tmp_path, json.dumps([OWN, other]))
    assert registry.tokens == (*KNOWN_TOKENS, Token("OWN", MINT, 6), Token("$other.x-1", OTHER_MINT, 0))
    assert prices == {"SOL": "150", "OWN": "2.5"}
    assert load(tmp_path, "[]")[0].tokens == KNOWN_TOKENS


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"symbol": "USDC"}, "symbol"),
        ({"symbol": "usdc"}, "symbol"),
        ({"symbol": "sol"}, "symbol"),
        ({"symbol": "WSOL"}, "symbol"),
        ({"symbol": "USDC", "mint": USDC.mint, "decimals": 6}, "symbol"),
        ({"mint": USDC.mint}, "mint"),
        ({"mint": USDC.mint, "decimals": 9}, "mint"),
        ({"mint": WRAPPED_SOL_MINT, "decimals": 9}, "mint"),
        *(
            ({"symbol": symbol}, "symbol")
            for symbol in ("", " ", "OW N", "a/b", "\u0405OL", "US\u0501C", "x" * 32, MINT, "a\0")
        ),
        *(({"symbol": symbol}, "symbol") for symbol in (None, 1, True, ["OWN"])),
        *(
            ({"mint": mint}, "mint")
            for mint in ("", "x", "0" * 44, MINT[:-1], MINT + "1", "O" + MINT[1:], f" {MINT}", "1" * 44)
        ),
        *(({"mint": mint}, "mint") for mint in (None, 1, [])),
        *(({"decimals": decimals}, "decimals") for decimals in (-1, 19, 6.5, 6.0, "6", True, None, 10**30)),
        *(
            ({"referencePriceUsd": price}, "referencePriceUsd")
            for price in (2, "", "0", "0.0", "-1", "1e3", "01", ".5", "1.", "x")
        ),
        ({"name": "Own"}, "name"),
        ({"Symbol": "OWN"}, "Symbol"),
    ],
    ids=str,
)
def test_an_entry_that_is_wrong_is_named_with_its_field(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    good = {"symbol": "GOOD", "mint": OTHER_MINT, "decimals": 9}
    message = refusal(tmp_path, json.dumps([good, OWN | change]))
    assert "entry 2" in message
    assert f" {field} " in message


@pytest.mark.parametrize("field", ["symbol", "mint", "decimals"])
def test_an_entry_that_lacks_a_field_is_named_with_it(tmp_path: Path, field: str) -> None:
    message = refusal(tmp_path, json.dumps([{name: value for name, value in OWN.items() if name != field}]))
    assert "entry 1" in message
    assert f" {field} " in message


@pytest.mark.parametrize(
    ("second", "field"),
    [
        ({"symbol": "OWN", "mint": OTHER_MINT, "decimals": 6}, "symbol"),
        ({"symbol": "own", "mint": OTHER_MINT, "decimals": 6}, "symbol"),
        ({"symbol": "TWIN", "mint": MINT, "decimals": 6}, "mint"),
        ({"symbol": "TWIN", "mint": MINT, "decimals": 9}, "mint"),
        (OWN, "symbol"),
    ],
)
def test_two_entries_share_neither_symbol_nor_mint(tmp_path: Path, second: dict[str, Any], field: str) -> None:
    message = refusal(tmp_path, json.dumps([OWN, second]))
    assert f"entry 2 ({second['symbol']!r}): {field} belongs to OWN already" in message


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    twice = json.dumps([OWN]).replace('"decimals": 6', '"decimals": 6, "decimals": 9')
    assert "entry 1: decimals is there twice" in refusal(tmp_path, twice)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "null",
        json.dumps(OWN),
        "[1]",
        '["OWN"]',
        "[[]]",
        "[null]",
        "[{]",
        b"\xff",
        b"\xef\xbb\xbf[]",
        "[" * 5_000,
    ],
    ids=lambda it: repr(it[:10]),
)
def test_what_is_no_list_of_objects_is_refused(tmp_path: Path, content: str | bytes) -> None:
    refusal(tmp_path, content)


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_tokens(tmp_path / "none.json", PRICES)
    with pytest.raises(SettingsError, match="Is a directory"):
        load_tokens(tmp_path, PRICES)

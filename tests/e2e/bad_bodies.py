"""Bodies that no engine may take: the raw JSON text, and the field that is at fault."""

from collections.abc import Iterator

FIELDS = {"type": '"market"', "tokenIn": '"SOL"', "tokenOut": '"USDC"', "amountIn": '"1"'}

# JSON text that is not an amount of SOL.
AMOUNTS = {
    "zero": "0",
    "zero in text": '"0.000"',
    "minus zero": "-0",
    "negative": "-1",
    "negative in text": '"-0.5"',
    "plus": '"+1"',
    "NaN": "NaN",
    "Infinity": "Infinity",
    "minus Infinity": "-Infinity",
    "NaN in text": '"NaN"',
    "Infinity in text": '"Infinity"',
    "10^30": "1e30",
    "10^30 in digits": "1" + "0" * 30,
    "10^30 in text": '"1' + "0" * 30 + '"',
    "10^5000": "1e5000",
    "10^-5000": "1e-5000",
    "one base unit too many": '"9223372036.854775808"',
    "too many decimals": '"1.0000000001"',
    "too many decimals in a number": "1e-10",
    "true": "true",
    "false": "false",
    "null": "null",
    "object": '{"$gt": 0}',
    "array": "[1]",
    "no digits": '""',
    "blank": '" "',
    "space around": '" 1"',
    "words": '"a lot"',
    "hexadecimal": '"0x10"',
    "underscore": '"1_000"',
    "comma": '"1,5"',
    "point alone": '"."',
    "no fraction": '"1."',
    "no whole part": '".5"',
    "exponent in text": '"1e3"',
    "exponent in capitals in text": '"1E3"',
    "exponent": "1e3",
    "exponent in capitals": "1E3",
    "negative exponent": "1e-3",
    "leading zeros": '"00001"',
    "leading zero": '"01.5"',
    "minus zero in text": '"-0"',
    "Arabic digit": '"1\\u0660"',
    "full-width digits": '"\uff11"',
    "other digits": '"\u0661"',
    "NUL": '"1\\u0000"',
    "lone surrogate": '"\\ud800"',
    "4,000 digits": '"' + "9" * 4_000 + '"',
    "4,000 digits in a number": "9" * 4_000,
}
# JSON text that is not a token.
TOKENS = {
    "unknown": '"DOGE"',
    "empty": '""',
    "space": '"SOL "',
    "NUL": '"SOL\\u0000"',
    "lone surrogate": '"\\udfff"',
    "number": "1",
    "true": "true",
    "null": "null",
    "array": '["SOL"]',
    "NaN": "NaN",
    "other letters": '"\u0405OL"',
    "long": '"' + "S" * 10_000 + '"',
}
SAME_TOKENS = {
    "symbol": '"SOL"',
    "other case": '"sol"',
    "mint": '"So11111111111111111111111111111111111111112"',
    "wrapped": '"wSOL"',
}
SLIPPAGES = {
    "zero": "0",
    "too much": "1001",
    "negative": "-50",
    "fraction": "50.5",
    "a fraction of zero": "50.0",
    "exponent": "5e1",
    "minus zero": "-0",
    "leading zero in text": '"050"',
    "exponent in text": '"5e1"',
    "fraction in text": '"50.0"',
    "space in text": '" 50"',
    "plus in text": '"+50"',
    "other digits in text": '"\u0665\u0660"',
    "true": "true",
    "words": '"fifty"',
    "10^30": "1e30",
    "NaN": "NaN",
    "array": "[50]",
}
CLIENT_ORDER_IDS = {
    "empty": '""',
    "space": '"a b"',
    "65 characters": '"' + "x" * 65 + '"',
    "NUL": '"a\\u0000b"',
    "lone surrogate": '"\\ud83d"',
    "other letters": '"\u00e9"',
    "number": "7",
    "true": "true",
    "object": "{}",
}
METADATA = {
    "text": '"x"',
    "array": "[]",
    "number": "1",
    "true": "true",
    "over 4 KiB": '{"a": "' + "x" * 4_096 + '"}',
    "NUL": '{"a": ["\\u0000"]}',
    "NUL in a name": '{"\\u0000": 1}',
    "lone surrogate": '{"a": {"b": "\\ud800"}}',
    "lone surrogate in a name": '{"\\ud800": 1}',
    "NaN": '{"a": NaN}',
    "Infinity inside": '{"a": [1, -Infinity]}',
    "10^400": '{"a": 1e400}',
    "the same name twice": '{"a": 1, "a": 1}',
    "the same name twice, deep": '{"a": [{"b": {"c": 1, "\\u0063": 2}}]}',
    "2,000 levels deep": '{"a": ' + "[" * 2_000 + "]" * 2_000 + "}",
}
# Objects that some parsers can take and others cannot.
DEEP_METADATA = {
    **{f"{depth} arrays": '{"a": ' + "[" * depth + "]" * depth + "}" for depth in (100, 400, 480, 900, 960, 990)},
    **{f"{depth} objects": '{"a":' * depth + "1" + "}" * depth for depth in (100, 400, 480, 680)},
}
# Whole bodies that are not a JSON object at all.
NOT_OBJECTS = {
    "array": b"[]",
    "array of an order": b'[{"type": "market"}]',
    "text": b'"market"',
    "number": b"1",
    "null": b"null",
    "true": b"true",
    "NaN": b"NaN",
    "cut off": b'{"type": "market", ',
    "two documents": b"{}{}",
    "single quotes": b"{'type': 'market'}",
    "NUL": b"\0",
    "NUL after it": b'{"tokenIn": "SOL"}\0',
    "form": b"type=market&tokenIn=SOL",
    "invalid UTF-8": b'{"tokenIn": "\xff\xfe"}',
    "overlong UTF-8": b'{"tokenIn": "\xc0\x80"}',
    "surrogate in UTF-8": b'{"tokenIn": "\xed\xa0\x80"}',
    "BOM": b'\xef\xbb\xbf{"tokenIn": "SOL"}',
    "UTF-32": '{"tokenIn": "SOL"}'.encode("utf-32"),
    "UTF-16 without BOM": '{"tokenIn": "SOL"}'.encode("utf-16-le"),
    "UTF-16": '{"tokenIn": "SOL"}'.encode("utf-16"),
    "7,000 arrays deep": b"[" * 7_000 + b"]" * 7_000,
    "2,000 objects deep": b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
    "open without end": b"[" * 16_000,
}


def written(fields: dict[str, str]) -> bytes:
    """Return the JSON object of these fields, whose values are JSON text already, valid or not."""
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}").encode()


def wrong_orders(names: dict[str, str]) -> Iterator[tuple[str, bytes, str]]:
    """Yield the fault, the body, and the name of the bad field, for an order whose fields have these names.

    `names` maps v1's name of each field in the body to the body's own name.
    """
    sound = {names[name]: value for name, value in FIELDS.items() if name in names}
    wrong = {
        "tokenIn": TOKENS,
        "tokenOut": TOKENS | {f"the same token: {name}": value for name, value in SAME_TOKENS.items()},
        "amountIn": AMOUNTS,
        "slippageBps": SLIPPAGES,
        "clientOrderId": CLIENT_ORDER_IDS,
        "metadata": METADATA,
        "type": {"unknown": '"limit"', "empty": '""', "number": "1", "null": "null", "NUL": '"market\\u0000"'},
    }
    for field, values in wrong.items():
        if field in names:
            for name, value in values.items():
                yield f"{names[field]}: {name}", written(sound | {names[field]: value}), names[field]
    deep = '{"a": ' + "[" * 400 + "]" * 400 + "}"
    if "metadata" in names:
        both = {"metadata": deep} | sound | {"slippageBps": "NaN"}
        yield "NaN behind 400 levels of metadata", written(both), "slippageBps"

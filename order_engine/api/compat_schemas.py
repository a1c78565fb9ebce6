"""Schemas of the compatible routes' bodies and answers, for the OpenAPI document only: nothing is decoded with them."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from order_engine.api.problems import Problem
from order_engine.api.schemas import (
    CLIENT_ORDER_ID_PATTERN,
    TOKEN_SCHEMA,
    AmountView,
    ClientOrderId,
    Count,
    JsonObject,
    OrderIdText,
    OrderView,
    StatusText,
    TimeText,
    amount_schema,
)

ORDER_BODY: Final = "CompatibleOrder"
JOB_BODY: Final = "CompatibleJob"
SYMBOL_SCHEMA: Final = "PairOrSymbol"


class CompatibleProblem(Problem, frozen=True, kw_only=True):
    """A problem document with the member that clients of the compatible systems read."""

    error: str


class CompatibleAnswer(msgspec.Struct, rename="camel"):
    """The order was placed; `note` names the defaults that were used."""

    ok: Literal[True]
    order_id: ClientOrderId
    job_id: OrderIdText
    status: StatusText
    idempotent: bool
    websocket: str
    ws_url: Annotated[str, Meta(pattern="^wss?://")]
    token_in: str
    token_out: str
    amount_in: AmountView
    note: str | msgspec.UnsetType = msgspec.UNSET


class CompatibleEvent(msgspec.Struct, rename="camel"):
    """An event as `market_execute`, `minimal` and `typed` show it: members of its data under their names."""

    order_id: OrderIdText
    seq: Annotated[int, Meta(ge=1)]
    status: StatusText
    timestamp: TimeText
    attempt: Count
    data: JsonObject
    dex: str | msgspec.UnsetType = msgspec.UNSET
    tx_hash: str | msgspec.UnsetType = msgspec.UNSET
    executed_price: str | msgspec.UnsetType = msgspec.UNSET
    amount_out: str | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


class CompatibleHistory(msgspec.Struct, rename="camel"):
    """The ordered history."""

    order_id: OrderIdText
    events: list[CompatibleEvent]


class CompatibleSnapshot(OrderView, rename="camel", kw_only=True):
    """The order with its whole history."""

    events: list[CompatibleEvent]


class JobView(msgspec.Struct, rename={"attempts_made": "attemptsMade", "failed_reason": "failedReason"}):
    """The order as BullMQ writes a job to JSON."""

    id: OrderIdText
    name: str
    data: JsonObject
    state: Literal["waiting", "active", "delayed", "completed", "failed"]
    progress: Annotated[int, Meta(ge=0, le=100)]
    attempts_made: Count
    timestamp: Count
    returnvalue: JsonObject | None
    failed_reason: str | None


def body_schemas(token: str) -> dict[str, Any]:
    """Return the schemas of the bodies; `token` is the pattern of a token's name."""
    amount = amount_schema()
    traded = {
        "type": {"$ref": "#/components/schemas/MarketWord"},
        "tokenIn": {"$ref": f"#/components/schemas/{TOKEN_SCHEMA}"},
        "tokenOut": {"$ref": f"#/components/schemas/{TOKEN_SCHEMA}"},
        "symbol": {"$ref": f"#/components/schemas/{SYMBOL_SCHEMA}"},
        "amount": amount,
        "amountIn": amount,
        "slippageBps": {
            "oneOf": [
                {"type": "integer", "minimum": 1, "maximum": 1000},
                {"type": "string", "pattern": "^([1-9][0-9]{0,2}|1000)$"},
                {"type": "null"},
            ]
        },
    }
    traded["orderType"] = traded["type"]
    # A pair of tokens needs its amount; every other field has a default on paper.
    whole = {
        "anyOf": [
            {"required": ["tokenIn", "tokenOut", "amount"]},
            {"required": ["tokenIn", "tokenOut", "amountIn"]},
            {"properties": {"tokenIn": False, "tokenOut": False}},
        ]
    }
    nothing = {"type": "null"}
    return {
        "MarketWord": {"type": "string", "pattern": "^[mM][aA][rR][kK][eE][tT]$", "examples": ["market"]},
        SYMBOL_SCHEMA: {
            "type": "string",
            "description": "A pair such as SOL/USDC, or one symbol, which on paper trades the default pair.",
            "pattern": f"^({token}/{token}|[A-Za-z0-9$]{{1,32}})$",
            "examples": ["SOL/USDC"],
        },
        ORDER_BODY: {
            "type": "object",
            "properties": {
                **traded,
                "clientOrderId": {"oneOf": [{"type": "string", "pattern": CLIENT_ORDER_ID_PATTERN}, nothing]},
                "metadata": {"type": ["object", "null"]},
            },
            "additionalProperties": False,
            **whole,
        },
        JOB_BODY: {
            "type": "object",
            "properties": {
                "orderId": {"type": "string", "pattern": CLIENT_ORDER_ID_PATTERN},
                "payload": {"oneOf": [{"type": "object", "properties": traded, **whole}, nothing]},
            },
            "required": ["orderId"],
            "additionalProperties": False,
        },
    }

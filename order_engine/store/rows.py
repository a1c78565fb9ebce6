"""Converts orders, events and attempts to rows and back, for the drivers of both dialects."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from order_engine.domain.chain_point import ChainPoint
from order_engine.domain.errors import ReasonCode
from order_engine.domain.events import OrderEvent
from order_engine.domain.order import AttemptOutcome, Order, OrderId, OrderStatus, SignedAttempt, SwapRequest
from order_engine.domain.tokens import Token
from order_engine.ports.health import Heartbeat, ProcessSeen
from order_engine.ports.store import Accepted, NewOrder, Write


class Row(Protocol):
    """A row of either driver: values by the names of their columns."""

    def __getitem__(self, name: str, /) -> Any:
        """Return the column's value."""
        ...


def order_from_row(row: Row) -> Order:
    """Return the order that a row of `orders` holds."""
    metadata, reason = row["metadata"], row["reason_code"]
    return Order(
        order_id=OrderId(str(row["order_id"])),
        account=row["account"],
        request=SwapRequest(
            token_in=Token(row["token_in"], row["token_in_mint"], row["token_in_decimals"]),
            token_out=Token(row["token_out"], row["token_out_mint"], row["token_out_decimals"]),
            amount_in=row["amount_in"],
            slippage_bps=row["slippage_bps"],
            client_order_id=row["client_order_id"],
            metadata=None if metadata is None else raw_json(metadata),
        ),
        status=OrderStatus(row["status"]),
        seq=row["seq"],
        attempt_number=row["attempt"],
        created_at_ms=row["created_at_ms"],
        updated_at_ms=row["updated_at_ms"],
        venue=row["venue"],
        quotes=raw_json(row["quotes"]),
        min_amount_out=row["min_amount_out"],
        amount_out=row["amount_out"],
        tx_signature=row["tx_signature"],
        reason_code=None if reason is None else ReasonCode(reason),
        reason_message=row["reason_message"],
    )


def event_from_row(row: Sequence[Any]) -> OrderEvent:
    """Return the event of a row of `history.sql`, in its order of columns."""
    order_id, account, seq, status, attempt, at_ms, elapsed_ms, data = row
    return OrderEvent(
        OrderId(str(order_id)), account, seq, OrderStatus(status), attempt, at_ms, elapsed_ms, raw_json(data)
    )


def attempt_from_row(row: Sequence[Any]) -> SignedAttempt:
    """Return the attempt of a row of `attempts.sql`, in its order of columns."""
    number, signature, raw, owner, last_valid_block_height, signed_slot, signed_block_height, *rest = row
    blockhash_slot, signed_at_ms, genesis_hash, outcome, evidence = rest
    return SignedAttempt(
        number,
        signature,
        bytes(raw),
        owner,
        last_valid_block_height,
        ChainPoint(signed_block_height, signed_slot),
        blockhash_slot,
        signed_at_ms,
        genesis_hash,
        None if outcome is None else AttemptOutcome(outcome),
        None if evidence is None else raw_json(evidence),
    )


def accepted_from_row(row: Row) -> Accepted:
    """Return the answer to a replay of this row's idempotency key."""
    return Accepted(order_from_row(row), is_replay=True, digest=row["request_digest"])


def accept_columns(new: NewOrder) -> tuple[Any, ...]:
    """Return the values of a new order, in the order of the type `new_order`."""
    order, request, idempotency = new.order, new.order.request, new.idempotency
    return (
        order.order_id,
        order.account,
        idempotency.key if idempotency else None,
        idempotency.digest if idempotency else None,
        request.client_order_id,
        request.token_in.symbol,
        request.token_in.mint,
        request.token_in.decimals,
        request.token_out.symbol,
        request.token_out.mint,
        request.token_out.decimals,
        request.amount_in,
        request.slippage_bps,
        None if request.metadata is None else text(request.metadata),
        order.created_at_ms,
        text(new.event.data),
    )


def move_columns(write: Write) -> dict[str, Any]:
    """Return the values with which a write moves its order, by name and in the order of the type `order_move`."""
    order = write.order
    return {
        "order_id": order.order_id,
        "held_fence": write.fence,
        "expected_seq": write.expected_seq,
        "status": order.status.value,
        "seq": order.seq,
        "attempt": order.attempt_number,
        "updated_at_ms": order.updated_at_ms,
        "venue": order.venue,
        "quotes": text(order.quotes),
        "min_amount_out": order.min_amount_out,
        "amount_out": order.amount_out,
        "tx_signature": order.tx_signature,
        "reason_code": order.reason_code,
        "reason_message": order.reason_message,
        "due_in_ms": write.due_in_ms,
    }


def event_columns(event: OrderEvent) -> tuple[Any, ...]:
    """Return the values of an event, in the order of the type `new_event`."""
    return (
        event.order_id,
        event.account,
        event.seq,
        event.status.value,
        event.attempt_number,
        event.at_ms,
        text(event.data),
    )


def attempt_columns(order_id: OrderId, attempt: SignedAttempt) -> tuple[Any, ...]:
    """Return the values of a signed attempt, in the order of the type `signed_attempt`."""
    return (
        order_id,
        attempt.attempt_number,
        attempt.signature,
        attempt.raw,
        attempt.owner,
        attempt.last_valid_block_height,
        attempt.signed_point.slot,
        attempt.signed_point.block_height,
        attempt.blockhash_slot,
        attempt.signed_at_ms,
        attempt.genesis_hash,
    )


def heartbeat_columns(heartbeat: Heartbeat) -> tuple[str, str]:
    """Return the values of a heartbeat, in the order in which `beat.sql` takes them."""
    return heartbeat.process_name, msgspec.json.encode(heartbeat).decode()


def process_from_row(row: Row) -> ProcessSeen:
    """Return the process of a row of `processes.sql`."""
    return ProcessSeen(msgspec.json.decode(row["heartbeat"], type=Heartbeat), row["seen_ago_ms"])


def text(raw: msgspec.Raw) -> str:
    """Return encoded JSON as the text that a column keeps."""
    return bytes(raw).decode()


def raw_json(kept: str) -> msgspec.Raw:
    """Return a column's JSON text, encoded."""
    return msgspec.Raw(kept.encode())

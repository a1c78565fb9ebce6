"""The tables, as SQLAlchemy's ORM sees them."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

TERMINAL = ("confirmed", "failed", "cancelled")


class Table(DeclarativeBase):
    """The base class of all tables."""


class Order(Table):
    """An order as of its last event."""

    __tablename__ = "orders"

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    token_in: Mapped[str]
    token_out: Mapped[str]
    amount_in: Mapped[float]
    slippage_bps: Mapped[int]
    status: Mapped[str]
    seq: Mapped[int]
    venue: Mapped[str | None]
    amount_out: Mapped[float | None]
    tx_hash: Mapped[str | None]
    error: Mapped[str | None]
    created_at_ms: Mapped[int] = mapped_column(BigInteger)
    updated_at_ms: Mapped[int] = mapped_column(BigInteger)


class OrderEvent(Table):
    """One status change of an order."""

    __tablename__ = "order_events"

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    at_ms: Mapped[int] = mapped_column(BigInteger)

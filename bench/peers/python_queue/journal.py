"""Stores and publishes orders and their events: a transaction and a PUBLISH for each event."""

import json
import time
from typing import Any
from uuid import UUID

from models import TERMINAL, Order, OrderEvent, Table
from redis.asyncio import Redis
from settings import Settings
from sqlalchemy import update
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine


def now_ms() -> int:
    """Return the time as the tables store it: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Journal:
    """Stores and publishes the events of orders."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        # No overflow: its connections would be opened and closed again under load.
        self._engine = create_async_engine(
            settings.database_url, pool_size=settings.database_connections, max_overflow=0
        )
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)
        self._redis = redis

    async def create_tables(self) -> None:
        """Create the tables that are missing."""
        async with self._engine.begin() as connection:
            await connection.run_sync(Table.metadata.create_all)

    async def accept(self, order: Order) -> None:
        """Store a new order with its first event, and publish the event."""
        event = OrderEvent(order_id=order.order_id, seq=1, status="pending", data={}, at_ms=order.created_at_ms)
        async with self._sessions.begin() as session:
            session.add_all((order, event))
        await self._publish(event)

    async def advance(self, order_id: UUID, status: str, event_data: dict[str, Any], **columns: Any) -> None:
        """Store a status change with its event, and publish it."""
        at_ms = now_ms()
        change = (
            update(Order)
            .where(Order.order_id == order_id, Order.status.not_in(TERMINAL))
            .values(status=status, seq=Order.seq + 1, updated_at_ms=at_ms, **columns)
            .returning(Order.seq)
            .execution_options(synchronize_session=False)
        )
        async with self._sessions.begin() as session:
            seq = (await session.execute(change)).scalar_one()
            event = OrderEvent(order_id=order_id, seq=seq, status=status, data=event_data, at_ms=at_ms)
            session.add(event)
        await self._publish(event)

    async def close(self) -> None:
        """Close the database's connections."""
        await self._engine.dispose()

    async def _publish(self, event: OrderEvent) -> None:
        told = {
            "orderId": str(event.order_id),
            "seq": event.seq,
            "status": event.status,
            "timestampMs": event.at_ms,
            "data": event.data,
        }
        await self._redis.publish(f"orders:{event.order_id}", json.dumps(told))

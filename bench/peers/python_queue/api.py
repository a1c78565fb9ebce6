"""The API process: `uvicorn api:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal
from uuid import UUID, uuid4

from fastapi import FastAPI, Request
from journal import Journal, now_ms
from models import Order
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from redis.asyncio import Redis
from saq import Queue
from settings import read_settings

ATTEMPTS = 3


class OrderRequest(BaseModel):
    """The body of a client's request."""

    model_config = ConfigDict(alias_generator=to_camel)

    type: Literal["market"]
    token_in: Annotated[str, Field(min_length=1, max_length=64)]
    token_out: Annotated[str, Field(min_length=1, max_length=64)]
    amount_in: Annotated[float, Field(gt=0)]
    slippage_bps: Annotated[int, Field(ge=1, le=1000)] = 100


class Accepted(BaseModel):
    """The body of the answer."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)

    order_id: UUID
    status: str


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings = read_settings()
    app.state.queue = Queue.from_url(settings.redis_url, name=settings.queue_name)
    async with Redis.from_url(settings.redis_url) as redis:
        app.state.journal = Journal(settings, redis)
        await app.state.journal.create_tables()
        yield
        await app.state.journal.close()
    await app.state.queue.disconnect()


app = FastAPI(lifespan=_lifespan)


@app.get("/health")
async def health() -> dict[str, str]:
    """Say that the API serves."""
    return {"status": "ok"}


@app.post("/api/orders/execute", status_code=202)
async def execute(body: OrderRequest, request: Request) -> Accepted:
    """Store the order and queue it."""
    at_ms = now_ms()
    order = Order(
        order_id=uuid4(),
        type=body.type,
        token_in=body.token_in,
        token_out=body.token_out,
        amount_in=body.amount_in,
        slippage_bps=body.slippage_bps,
        status="pending",
        seq=1,
        created_at_ms=at_ms,
        updated_at_ms=at_ms,
    )
    await request.app.state.journal.accept(order)
    await request.app.state.queue.enqueue(
        "execute",
        key=str(order.order_id),
        retries=ATTEMPTS,
        retry_delay=1.0,
        retry_backoff=True,
        timeout=60,
        ttl=-1,  # a job that has ended is forgotten
        order_id=str(order.order_id),
        amount_in=body.amount_in,
        slippage_bps=body.slippage_bps,
    )
    return Accepted(order_id=order.order_id, status="pending")

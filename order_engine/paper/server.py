"""The paper chain's address: JSON-RPC over HTTP, as Solana's nodes serve it."""

import asyncio
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from order_engine.paper.node import NoReply, PaperNode, TooManyRequests

_MAX_BODY_BYTES: Final = 50 * (1 << 10)  # As in Agave (rpc/src/rpc_service.rs, MAX_REQUEST_BODY_SIZE).
_HANGS_FOR_S: Final = 60.0


def build_chain_app(node: PaperNode) -> Starlette:
    """Return the HTTP application of a chain's node."""

    async def rpc(request: Request) -> Response:
        try:
            body = await _read(request)
            if body is None:
                return PlainTextResponse("the request is too large", 413)
            answer = await node.answer(body)
        except ClientDisconnect:
            return Response(status_code=499)
        except TooManyRequests:
            return PlainTextResponse("Too many requests for a specific RPC call", 429, {"Retry-After": "1"})
        except NoReply:
            await _until_the_client_gives_up(request)
            return PlainTextResponse("the node did not answer in time", 504)
        return Response(answer, media_type="application/json")

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[Route("/", rpc, methods=["POST"]), Route("/health", health)])


async def _read(request: Request) -> bytes | None:
    """Return the body; None if it is longer than a node takes, even if its header says less."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _MAX_BODY_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


async def _until_the_client_gives_up(request: Request) -> None:
    try:
        async with asyncio.timeout(_HANGS_FOR_S):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        pass

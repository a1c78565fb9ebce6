"""A gateway in front of a chain's node that changes the node's answers: it stands for providers with wrong answers."""

import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

Change = Callable[[str, Any], Any]
"""Takes a method and its result; returns the result for the client."""


class Gateway:
    """Listens on a free port for as long as the context lasts; `change`, if set, changes the results."""

    def __init__(self, url: str) -> None:
        """`url`: the node's address."""
        self._node = url
        self.change: Change | None = None
        self.changed = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        app = web.Application()
        app.router.add_post("/", self._pass_on)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self._session.post(self._node, data=body) as response:
            answer = await response.read()
        if self.change is not None and response.ok:
            answer = json.dumps(self._changed(json.loads(body), json.loads(answer))).encode()
        return web.Response(body=answer, status=response.status, content_type="application/json")

    def _changed(self, asked: Any, told: Any) -> Any:
        if isinstance(asked, list):
            methods = {it["id"]: it for it in asked}
            return [self._changed(methods[it["id"]], it) for it in told]
        assert self.change is not None
        if "result" in told:
            result = self.change(asked["method"], told["result"])
            self.changed += result != told["result"]
            told = {**told, "result": result}
        return told

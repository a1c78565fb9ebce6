"""Names in paths: any name that a client may give to an order can be asked for, slashes and percent signs included."""

from typing import Any
from urllib.parse import unquote

from starlette.routing import Match, Route, WebSocketRoute
from starlette.types import Scope


class NamedRoute(Route):
    """A route whose path is split before it is decoded, so that `a%2Fb` is one name and not two steps."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Route."""
        match, matched = super().matches(_split_first(scope))
        return match, _decoded(matched)


class NamedWebSocketRoute(WebSocketRoute):
    """See NamedRoute."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See WebSocketRoute."""
        match, matched = super().matches(_split_first(scope))
        return match, _decoded(matched)


def _split_first(scope: Scope) -> Scope:
    """Return the scope with each step of its path decoded by itself; a slash or percent sign in one stays encoded."""
    raw_path: bytes = scope.get("raw_path") or b""
    if b"%" not in raw_path:
        return scope
    steps = (unquote(step).replace("%", "%25").replace("/", "%2F") for step in raw_path.decode("latin-1").split("/"))
    return {**scope, "path": "/".join(steps)}


def _decoded(matched: Scope) -> Scope:
    parameters: dict[str, Any] = matched.get("path_params", {})
    return {**matched, "path_params": {name: unquote(value) for name, value in parameters.items()}} if matched else {}

"""Errors as problem documents: each class, and classes that derive from it."""

import inspect

import pytest

from order_engine.api.problems import to_problem
from order_engine.domain import errors
from order_engine.domain.errors import (
    IdempotencyConflict,
    OrderEngineError,
    OrderNotFound,
    Refused,
    Unavailable,
    UnknownCursor,
    WrongCluster,
)

CLASSES = [it for it in vars(errors).values() if isinstance(it, type) and issubclass(it, OrderEngineError)]


def made(kind: type[OrderEngineError]) -> OrderEngineError:
    """Make an error with a plain value for each argument that it needs."""
    wanted = inspect.signature(kind.__init__).parameters.values()
    needed = [it for it in wanted if it.default is it.empty and it.kind is it.POSITIONAL_OR_KEYWORD][1:]
    return kind(*[3 if "int" in str(it.annotation) else "x" for it in needed] or ["x"])


@pytest.mark.parametrize("kind", CLASSES, ids=lambda it: it.__name__)
def test_a_subclass_is_answered_as_its_parent(kind: type[OrderEngineError]) -> None:
    child = type(f"Some{kind.__name__}", (type(f"Other{kind.__name__}", (kind,), {}),), {})
    parents, childs = (to_problem(made(it), "id", may_be_stored=True) for it in (kind, child))
    assert childs == parents
    # The engine handles the other errors itself: in an answer of the API they are a bug.
    assert (parents[0].status != 500) is issubclass(kind, Refused | Unavailable)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (Refused, 422, "refused"),
        (UnknownCursor, 422, "unknown_cursor"),
        (OrderNotFound, 404, "order_not_found"),
        (IdempotencyConflict, 422, "idempotency_conflict"),
        (Unavailable, 503, "unavailable"),
        (WrongCluster, 503, "unavailable"),
    ],
)
def test_each_kind_has_its_status(kind: type[OrderEngineError], status: int, code: str) -> None:
    problem, headers = to_problem(made(kind), "id")
    assert (problem.status, problem.code) == (status, code)
    assert ("Retry-After" in headers) is (status == 503)

"""Errors as problem documents: each class, and what derives from it."""

import pytest

from order_engine.api.problems import to_problem
from order_engine.domain import errors
from order_engine.domain.errors import (
    AnotherCluster,
    IdempotencyConflict,
    InvalidRequest,
    OrderEngineError,
    OrderNotFound,
    RateLimited,
    Refused,
    Unavailable,
    UnknownCursor,
)

CLASSES = [it for it in vars(errors).values() if isinstance(it, type) and issubclass(it, OrderEngineError)]
ARGUMENTS = {InvalidRequest: ("amountIn", "is wrong"), RateLimited: ("Too many orders.", 5, 3)}


def made(kind: type[OrderEngineError]) -> OrderEngineError:
    parent = next((it for it in kind.__mro__ if it in ARGUMENTS), None)
    return kind(*ARGUMENTS.get(parent, ("x",)))


@pytest.mark.parametrize("kind", CLASSES, ids=lambda it: it.__name__)
def test_a_subclass_is_answered_as_its_parent(kind: type[OrderEngineError]) -> None:
    child = type(f"Some{kind.__name__}", (type(f"Other{kind.__name__}", (kind,), {}),), {})
    parents, childs = (to_problem(made(it), "id", may_be_stored=True) for it in (kind, child))
    assert childs == parents
    # Of the others the engine itself takes care: in an answer of the API they are a bug.
    assert (parents[0].status != 500) is issubclass(kind, Refused | Unavailable)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (Refused, 422, "refused"),
        (UnknownCursor, 422, "unknown_cursor"),
        (OrderNotFound, 404, "order_not_found"),
        (IdempotencyConflict, 422, "idempotency_conflict"),
        (Unavailable, 503, "unavailable"),
        (AnotherCluster, 503, "unavailable"),
    ],
)
def test_each_kind_has_its_status(kind: type[OrderEngineError], status: int, code: str) -> None:
    problem, headers = to_problem(made(kind), "id")
    assert (problem.status, problem.code) == (status, code)
    assert ("Retry-After" in headers) is (status == 503)

"""Every named point is a call that exists."""

import importlib

import pytest

from tests.faults import points


@pytest.mark.parametrize("name", [f"{role}: {name}" for role in points.BY_ROLE for name in points.BY_ROLE[role]])
def test_a_point_is_in_the_code(name: str) -> None:
    role, _, point = name.partition(": ")
    module, _, path = points.BY_ROLE[role][point].target.partition(":")
    owner, method = path.split(".")
    assert callable(getattr(getattr(importlib.import_module(module), owner), method))


def test_there_are_enough_of_them() -> None:
    assert sum(len(points.names(role)) for role in points.BY_ROLE) >= 25

"""The tree of errors in the docstring of domain/errors.py is the tree of the classes."""

import re

from order_engine.domain import errors
from order_engine.domain.errors import OrderEngineError

# A line of the tree: four characters for each level, and then the name of a class.
_LINE = re.compile(r"((?:[│├└ ][ ─]{2} )*)([A-Z]\w+)(?:  +\S.*)?")


def drawn_tree() -> list[tuple[str, str | None]]:
    """Return each class in the docstring with its parent, in the order of the lines."""
    _, *paragraphs = (errors.__doc__ or "").split("\n\n")
    [tree] = [it.strip() for it in paragraphs if it.startswith(OrderEngineError.__name__)]
    drawn: list[tuple[str, str | None]] = []
    ancestors: list[str] = []
    for line in tree.splitlines():
        match = _LINE.fullmatch(line)
        assert match is not None, line
        level, name = len(match[1]) // 4, match[2]
        assert level <= len(ancestors), line
        drawn.append((name, ancestors[level - 1] if level else None))
        ancestors[level:] = [name]
    return drawn


def real_tree() -> list[tuple[str, str | None]]:
    """Return each error class of the module with its parent, in the order of their definitions."""
    kinds = [it for it in vars(errors).values() if isinstance(it, type) and issubclass(it, OrderEngineError)]
    return [(it.__name__, None if it is OrderEngineError else it.__base__.__name__) for it in kinds if it.__base__]


def test_the_docstring_draws_every_class_under_its_parent() -> None:
    assert drawn_tree() == real_tree()


def test_every_class_of_the_tree_has_an_explanation() -> None:
    lines = [line for line in (errors.__doc__ or "").splitlines() if line.startswith(("├", "│", "└"))]
    assert all(re.search(r"[A-Z]\w+ {2,}\S", line) for line in lines)

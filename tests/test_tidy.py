"""Style as a test: limits that only get tighter."""

import ast
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.words import breaches, files

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for folder in ("order_engine", "tests", "bench") for path in (ROOT / folder).rglob("*.py"))
PACKAGE = [path for path in SOURCES if "order_engine" in path.relative_to(ROOT).parts[:1]]

MAX_LINES_IN_A_FILE = 400
MAX_LINES_IN_A_FUNCTION = 60
EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "base"}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_file_is_short_and_its_name_says_something(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES_IN_A_FILE
    assert path.stem not in EMPTY_NAMES


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, FUNCTION) and (node.end_lineno or 0) - node.lineno + 1 > MAX_LINES_IN_A_FUNCTION
    ]
    assert not long


@pytest.mark.parametrize("path", PACKAGE, ids=_name)
def test_the_package_is_fully_typed(path: Path) -> None:
    assert "type: ignore" not in path.read_text()


MUTATORS = {
    "add",
    "append",
    "appendleft",
    "clear",
    "discard",
    "extend",
    "pop",
    "popleft",
    "remove",
    "setdefault",
    "update",
}


def _changed_by(node: ast.AST) -> list[ast.expr]:
    """The objects that a statement or call changes: those whose attribute or item is set, and those of a mutator."""
    if isinstance(node, ast.Call):
        is_mutator = isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS
        return [node.func.value] if is_mutator and isinstance(node.func, ast.Attribute) else []
    if isinstance(node, ast.Assign | ast.Delete):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    else:
        return []
    return [it.value for it in targets if isinstance(it, ast.Attribute | ast.Subscript)]


@pytest.mark.parametrize("path", PACKAGE, ids=_name)
def test_a_module_keeps_no_state(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    assert not [ast.unparse(it) for it in assigned if isinstance(it.value, ast.List | ast.Dict | ast.Set)]
    names = {it.id for node in assigned for it in node.targets if isinstance(it, ast.Name)}
    names |= {it.target.id for it in tree.body if isinstance(it, ast.AnnAssign) and isinstance(it.target, ast.Name)}
    changed = [
        f"{node.lineno}: {it.id}"
        for function in ast.walk(tree)
        if isinstance(function, FUNCTION)
        for node in ast.walk(function)
        for it in _changed_by(node)
        if isinstance(it, ast.Name) and it.id in names
    ]
    assert not changed


@pytest.mark.parametrize("path", PACKAGE, ids=_name)
def test_every_lint_exception_has_its_reason(path: Path) -> None:
    bare = [
        line.strip()
        for line in path.read_text().splitlines()
        if "# noqa" in line and " - " not in line.split("# noqa", 1)[1]
    ]
    assert not bare


def test_no_float_touches_an_amount() -> None:
    for name in ("domain/money.py", "domain/routing.py", "domain/order.py", "api/parsing.py"):
        tree = ast.parse((ROOT / "order_engine" / name).read_text())
        floats = [
            node.lineno for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is float
        ]
        calls = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "float"]
        divisions = [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and name != "domain/order.py"
        ]
        assert floats + calls + divisions == [], name


MAX_METHODS_OF_A_PORT = 7
PORTS = [path for path in PACKAGE if "ports" in path.relative_to(ROOT).parts]


@pytest.mark.parametrize("path", PORTS, ids=_name)
def test_a_port_has_at_most_seven_methods(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases):
            assert sum(isinstance(it, FUNCTION) for it in node.body) <= MAX_METHODS_OF_A_PORT, node.name


# The rooms of the adapters. A module of one imports its own room; only the composition root imports any.
ADAPTERS = ("store", "bus", "chain", "paper", "venues")
COMPOSITION_ROOT = "wiring"


@pytest.mark.parametrize("path", PACKAGE, ids=_name)
def test_only_the_composition_root_names_adapters(path: Path) -> None:
    own = path.relative_to(ROOT / "order_engine").parts[0]
    imported = {
        node.module.split(".")[1]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("order_engine.")
    }
    assert own == COMPOSITION_ROOT or not imported & {*ADAPTERS} - {own}


API = [path for path in PACKAGE if path.parent.name == "api" and path.name != "problems.py"]
STATUSES = {int(it) for it in HTTPStatus} - {100}  # a round number, and no final answer


@pytest.mark.parametrize("path", API, ids=_name)
def test_http_statuses_stand_in_problems_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    # Lengths that a text is cut to, and limits that a constant names, are no statuses.
    others = [node for node in ast.walk(tree) if isinstance(node, ast.Slice)]
    others += [it for it in tree.body if isinstance(it, ast.AnnAssign) and ast.unparse(it.target).startswith("MAX_")]
    lengths = {id(node) for other in others for node in ast.walk(other)}
    statuses = [
        f"{node.lineno}: {node.value}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in STATUSES
        if id(node) not in lengths
    ]
    assert not statuses


@pytest.mark.parametrize("path", files(), ids=_name)
def test_words_are_plain(path: Path) -> None:
    assert [f"{it.line}: {it.rule}: {it.sentence}" for it in breaches(path)] == []

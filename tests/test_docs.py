"""The documents match the code: every path, name, setting and figure in them exists."""

import json
import re
from pathlib import Path

import pytest
import yaml

from bench.__main__ import RESULTS
from bench.report import BEGIN as BENCH_BEGIN
from bench.report import LINE_BEGIN, performance_section, summary_line
from docs.generate import BEGIN, example_environment, lifecycle_diagram, postman_collection
from order_engine.settings import Settings, load_settings

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
MAX_LINES_OF_THE_README = 150
SETTING = re.compile(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?:=[^`]*)?`")
PATH = re.compile(r"`((?:order_engine|tests|bench|docs)/[\w./-]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")
NAME = re.compile(r"`([A-Z][a-z]\w+\.\w+)`")
STATUS = re.compile(
    r"# (\d+)\. .+\n\n"
    r"Status: (?:accepted|replaced by \[decision \d+\]\(\d{4}-[\w-]+\.md\)) · Date: \d{4}-\d\d-\d\d\n\n"
)
# Variables that are not settings of the engine's processes.
OTHERS = {"TEST_DATABASE_URL", "TEST_REDIS_URL", "ENGINE_URL", "ENGINE_API_KEY"}


def _name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_setting_named_in_a_document_exists(document: Path) -> None:
    known = {name.upper() for name in Settings.model_fields} | OTHERS
    assert set(SETTING.findall(document.read_text())) <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_path_named_in_a_document_exists(document: Path) -> None:
    text = document.read_text()
    named = [*PATH.findall(text), *LINK.findall(text)]
    missing = [path for path in named if not (ROOT / path).exists() and not (document.parent / path).exists()]
    assert [path for path in missing if "<" not in path] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_every_class_and_method_named_in_a_document_exists(document: Path) -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "order_engine").rglob("*.py"))
    for dotted in NAME.findall(document.read_text()):
        owner, member = dotted.split(".")
        if owner[0].isupper() and member.islower():
            assert f"class {owner}" in code, dotted
            assert f"def {member}(" in code, dotted


def test_the_diagram_of_an_orders_life_is_the_table() -> None:
    assert f"{BEGIN}\n{lifecycle_diagram()}\n" in (ROOT / "ARCHITECTURE.md").read_text(), "run make docs"


def test_the_postman_collection_is_made_from_the_document() -> None:
    assert (ROOT / "docs" / "postman_collection.json").read_text("utf-8") == postman_collection(), "run make docs"


def test_the_figures_in_the_documents_are_those_of_the_last_bench() -> None:
    figures = json.loads(RESULTS.read_text())
    section, line = performance_section(figures), summary_line(figures)
    assert f"{BENCH_BEGIN}\n{section}\n" in (ROOT / "docs" / "performance.md").read_text(), "run make bench"
    assert f"{LINE_BEGIN}\n{line}\n" in (ROOT / "README.md").read_text(), "run make bench"


def test_the_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_LINES_OF_THE_README


@pytest.mark.parametrize("record", DECISIONS, ids=_name)
def test_every_decision_has_a_number_a_status_and_a_date(record: Path) -> None:
    head = STATUS.match(record.read_text())
    assert head is not None
    assert record.name.startswith(f"{int(head[1]):04d}-")


def test_the_architecture_names_every_folder_and_module_of_the_package() -> None:
    package = ROOT / "order_engine"
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = [it.parent for it in package.glob("*/__init__.py")]
    modules = [it for it in package.glob("*.py") if not it.name.startswith("__")]
    assert [it.name for it in (*folders, *modules) if f"`order_engine/{it.name}" not in text] == []


def test_the_example_environment_lists_every_setting_with_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / ".env.example").read_text()
    assert text == example_environment(), "run make docs"
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    defaults = load_settings()
    (tmp_path / ".env").write_text(text)
    assert load_settings() == defaults


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_the_defaults_in_a_document_are_the_defaults(document: Path) -> None:
    for name, value in re.findall(r"`([A-Z][A-Z_]+)=(\d+)`", document.read_text()):
        assert str(Settings.model_fields[name.lower()].default) == value, name


def test_the_compose_file_is_the_production_shape_and_publishes_nothing_but_loopback() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    assert {name: it.get("deploy", {}).get("replicas", 1) for name, it in services.items()} == {
        "api": 2,
        "worker": 2,
        "postgres": 1,
        "redis": 1,
        "chain": 1,
    }
    published = [port for it in services.values() for port in it.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    known = {name.upper() for name in Settings.model_fields}
    assert set(services["api"]["environment"]) <= known
    for it in services.values():
        for name, value in it["environment"].items() if "environment" in it else ():
            assert "PASSWORD" not in name or value.startswith("${POSTGRES_PASSWORD:?"), name


def test_the_compose_file_passes_every_setting_on_with_its_default() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    passed = services["worker"]["environment"] | {"CHAIN_FAULTS": services["chain"]["environment"]["CHAIN_FAULTS"]}
    # Names that the file itself sets, names that another name here replaces, and paths outside the containers.
    decided = {"HOST", "PORT", "DATA_DIR", "DATABASE_URL", "CHAIN_URL", "ALLOWED_HOSTS", "LOG_FORMAT", "TOKENS_FILE"}
    decided |= {name.upper() for name in Settings.model_fields if name.startswith(("redis_", "engine_", "postgres_"))}
    for name, field in Settings.model_fields.items():
        if name.upper() not in decided:
            assert passed.get(name.upper()) == f"${{{name.upper()}:-{field.default}}}", name


def test_no_file_names_a_package_index() -> None:
    for name in ("requirements.txt", "requirements-dev.txt", "pyproject.toml", "Makefile", "Dockerfile"):
        assert not re.search(r"index-url|find-links|https?://", (ROOT / name).read_text()), name
    assert not (ROOT / "uv.lock").exists()

"""`make docs`: writes the parts of the documents that come from the code, so that they cannot differ from it."""

import json
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from docs.postman import collection_of
from order_engine.api.openapi import build_document
from order_engine.api.routes import COMPAT_OPERATIONS, V1_OPERATIONS
from order_engine.domain.lifecycle import TERMINAL, TRANSITIONS
from order_engine.domain.order import OrderStatus
from order_engine.domain.tokens import TokenRegistry
from order_engine.settings import GROUPS

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- lifecycle -->", "<!-- /lifecycle -->"


def lifecycle_diagram() -> str:
    """Return the state machine as a Mermaid diagram, made from the table."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {OrderStatus.PENDING}"]
    for before in OrderStatus:
        lines += [f"    {before} --> {after}" for after in OrderStatus if after in TRANSITIONS[before]]
    lines += [f"    {status} --> [*]" for status in OrderStatus if status in TERMINAL]
    return "\n".join([*lines, "```"])


def example_environment() -> str:
    """Return `.env.example`: every setting with its meaning and its default."""
    blocks = ["# Every setting of order-engine with its default. Copy to .env and change what you need."]
    for group in GROUPS:
        blocks.append(f"# --- {(group.__doc__ or '').splitlines()[0].rstrip('.')} ---")
        for name, field in group.model_fields.items():
            value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
            blocks.append(f"# {field.description}\n{name.upper()}={'' if value is None else value}")
    return "\n\n".join(blocks) + "\n"


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of an engine with the built-in tokens."""
    return build_document([*V1_OPERATIONS, *COMPAT_OPERATIONS], TokenRegistry())


def postman_collection() -> str:
    """Return `docs/postman_collection.json`."""
    return json.dumps(collection_of(openapi_document()), indent=2, ensure_ascii=False) + "\n"


def with_section(text: str, begin: str, end: str, section: str) -> str:
    """Return the text with a new section between the markers."""
    before, rest = text.split(begin)
    return f"{before}{begin}\n{section}\n{end}{rest.split(end)[1]}"


def main() -> None:
    """Write everything."""
    architecture = ROOT / "ARCHITECTURE.md"
    architecture.write_text(with_section(architecture.read_text(), BEGIN, END, lifecycle_diagram()))
    (ROOT / ".env.example").write_text(example_environment())
    (ROOT / "docs" / "postman_collection.json").write_text(postman_collection(), "utf-8")


if __name__ == "__main__":
    main()

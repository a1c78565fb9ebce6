"""`python -m tests.words`: counts phrases that a newcomer stumbles over, in comments, docstrings and documents.

The rules are those of "Plain words" in CONTRIBUTING.md; `tests/test_tidy.py` applies them to every file.
"""

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
_FOLDERS: Final = ("order_engine", "tests", "bench", "docs")

_IDIOMS: Final = (
    r"dear(?:er|est)?",
    r"anew",
    r"at hand",
    r"in vain",
    r"bear|bears|bore|borne",
    r"all the same",
    r"com(?:e|es|ing) to (?:its|their) end",
    r"everyday",
    r"said yes",
    r"whoever",
    r"nobody",
    r"somebody",
)
# A word before "who" that it can refer to is a noun; after these it stands alone.
_NO_NOUN: Final = (
    r"(?:^|[.,;:!?(]|\b(?:and|or|but|of|to|for|by|with|from|than|as|if|that|is|are|tells?|all|those|so))\s+"
)
RULES: Final = {
    "headless what": re.compile(r"\bwhat(?:ever)?\b", re.IGNORECASE),
    "headless who": re.compile(rf"{_NO_NOUN}who\b", re.IGNORECASE),
    "he, his, him": re.compile(r"\b(?:he|his|him|himself)\b", re.IGNORECASE),
    "idiom": re.compile(rf"\b(?:{'|'.join(_IDIOMS)})\b", re.IGNORECASE),
    "part for fraction": re.compile(
        r"\b(?:the|a) part of (?:the )?(?:swaps|requests|transactions|orders)\b", re.IGNORECASE
    ),
}
_QUOTED: Final = re.compile(r"`[^`]*`|\"[^\"]*\"|“[^”]*”")
_SENTENCE: Final = re.compile(r"[^.!?]*(?:[.!?]+|$)")
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z'-]*")


class Found(NamedTuple):
    """A phrase that breaks a rule."""

    path: Path
    line: int
    rule: str
    sentence: str


class Prose(NamedTuple):
    """A comment, a docstring or a paragraph, and the line on which it begins."""

    line: int
    text: str


def files() -> list[Path]:
    """Return every file of the project with words for a reader."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    return [
        it for it in paths if it.suffix in (".py", ".sql", ".md") and it.exists() and it.name != Path(__file__).name
    ]


def prose_of(path: Path) -> Iterator[Prose]:
    """Yield the words of a file that are written for a reader."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        yield from _paragraphs(text)
    elif path.suffix == ".sql":
        yield from _comments_of_sql(text)
    else:
        yield from _docstrings(text)
        yield from _comments(text)


def _paragraphs(text: str) -> Iterator[Prose]:
    is_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            yield Prose(number, line)


def _comments_of_sql(text: str) -> Iterator[Prose]:
    yield from _blocks(
        [(number, line.split("--", 1)[1]) for number, line in enumerate(text.splitlines(), 1) if "--" in line]
    )


def _docstrings(text: str) -> Iterator[Prose]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield Prose(node.lineno, node.value.value)


def _comments(text: str) -> Iterator[Prose]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [(it.start[0], it.string.lstrip("#")) for it in tokens if it.type == tokenize.COMMENT]
    yield from _blocks(comments)


def _blocks(lines: list[tuple[int, str]]) -> Iterator[Prose]:
    """Join the lines of one comment."""
    block: list[tuple[int, str]] = []
    for number, text in lines:
        if block and number != block[-1][0] + 1:
            yield Prose(block[0][0], " ".join(it for _, it in block))
            block = []
        block.append((number, text))
    if block:
        yield Prose(block[0][0], " ".join(it for _, it in block))


def breaches(path: Path) -> list[Found]:
    """Return every phrase of a file that breaks a rule."""
    found = []
    for prose in prose_of(path):
        text = _QUOTED.sub("x", " ".join(prose.text.split()))
        for sentence in (it[0].strip() for it in _SENTENCE.finditer(text)):
            for rule, pattern in RULES.items():
                is_question = sentence.endswith("?") and rule.startswith("headless")
                found += [Found(path, prose.line, rule, sentence) for _ in pattern.findall(sentence) if not is_question]
    return found


def main() -> int:
    """Print the counts, and with `--list` each sentence; returns 1 if a rule is broken too often."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print each sentence")
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders; all of the project without them")
    options = parser.parse_args()
    wanted = [it.resolve() for it in options.paths]
    paths = [it for it in files() if not wanted or any(it.is_relative_to(root) for root in wanted)]
    words = sum(len(_WORD.findall(prose.text)) for path in paths for prose in prose_of(path))
    found = [it for path in paths for it in breaches(path)]
    tell = sys.stdout.write
    if options.list:
        for it in found:
            tell(f"{it.path.relative_to(ROOT)}:{it.line}: {it.rule}: {it.sentence}\n")
    counts = Counter(it.rule for it in found)
    tell(f"{words} words in {len(paths)} files\n")
    for rule in RULES:
        tell(f"{rule:18} {counts[rule]:5}   {1000 * counts[rule] / max(words, 1):.2f} per 1,000 words\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())

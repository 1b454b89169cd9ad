"""What the documents say about the code is so: settings, messages, links, and who runs which block."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from deploy.settings_document import DOCUMENT, document
from millrace.cli._settings import knobs
from millrace.cli.main import COMMANDS
from tests.documents import DOCUMENTS, ROOT, Block, blocks

GUIDE = (ROOT / "docs" / "guide.md").read_text()
BLOCKS = [block for name in DOCUMENTS for block in blocks(name)]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_VARIABLE = re.compile(r"`((?:KAFKA|REDIS|MLFLOW|MILLRACE|ONLINE_LEARNING|DRIFT|RETRAIN|OTEL)_[A-Z_]+)`")
# Messages of libraries and words that are no message of ours.
OF_OTHERS = {"Failed to export spans batch"}


@cache
def source() -> str:
    """All our code, with what splits a text over lines taken out."""
    files = [path for folder in ("millrace", "workers", "services", "deploy") for path in (ROOT / folder).rglob("*.py")]
    return "\n".join(re.sub(r'"\s*\n\s*f?"', "", path.read_text()) for path in files if "v1" not in path.parts)


def troubles() -> list[str]:
    """Messages of the first column of the table of troubles."""
    rows = re.findall(r"^\| (.+?) \| ", GUIDE.partition("## Troubleshooting")[2], re.MULTILINE)
    quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    return [text for text in quoted if " " in text and ": " not in text[:10] and text not in OF_OTHERS]


def test_the_page_of_settings_is_what_the_code_says() -> None:
    assert DOCUMENT.read_text() == document(), "make documents"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_settings_that_are_named_exist(name: str) -> None:
    named = set(_VARIABLE.findall((ROOT / name).read_text()))
    assert named <= {knob.variable for knob in knobs()} | {"MILLRACE_STACK_REDIS"}


@pytest.mark.parametrize("message", troubles())
def test_messages_that_are_explained_are_printed_by_the_code(message: str) -> None:
    for part in message.split("…"):
        assert part.strip() in source(), part


def test_there_are_messages_to_explain() -> None:
    assert len(troubles()) > 12


@pytest.mark.parametrize("name", [*DOCUMENTS, "docs/settings.md"])
def test_links_lead_somewhere(name: str) -> None:
    folder = (ROOT / name).parent
    for link in _LINK.findall((ROOT / name).read_text()):
        if "://" in link:
            continue
        path, _, anchor = unquote(link).partition("#")
        target = folder / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, link


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_who_runs_a_block_is_said(block: Block) -> None:
    assert block.language in ("", "sh", "python"), "another language: say how it is run in tests/documents.py"
    assert not block.elsewhere or Path(ROOT / block.elsewhere).exists()
    for command in re.findall(r"^(?:.*\| )?millrace ([a-z]+)", block.text, re.MULTILINE):
        assert command in COMMANDS

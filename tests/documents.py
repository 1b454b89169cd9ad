"""Code blocks of README and guide, and the script that runs them as a reader would: one after another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "docs/guide.md")
# In front of a block whose commands another test runs, or a step of CI: they start the pipeline, take hours, or need
# something that only a reader has.
_ELSEWHERE = re.compile(r"<!-- run elsewhere: (\S+) -->")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes
    ----------
    place
        Document and line.
    elsewhere
        The file that runs its commands; empty if they are to be run from here.
    """

    place: str
    language: str
    text: str
    elsewhere: str


def blocks(document: str) -> Iterator[Block]:
    """Those of a document, in their order."""
    elsewhere = ""
    for token in MarkdownIt().parse((ROOT / document).read_text()):
        if token.type == "html_block" and (said := _ELSEWHERE.fullmatch(token.content.strip())):
            elsewhere = said[1]
        elif token.type == "fence":
            assert token.map is not None
            yield Block(f"{document}:{token.map[0] + 1}", token.info, token.content, elsewhere)
            elsewhere = ""
        elif token.level == 0:
            elsewhere = ""


def script(document: str) -> str:
    """A script for bash that runs the document's blocks and ends at the first command that fails, naming its block."""
    lines = ["set -euo pipefail", "trap 'echo \"failed: $block\" >&2' ERR"]
    for block in blocks(document):
        if block.elsewhere or not block.language:
            continue
        lines.append(f'block={block.place}; echo "== $block"')
        lines.append(block.text if block.language == "sh" else f"python -W error - <<'BLOCK'\n{block.text}BLOCK\n")
    return "\n".join(lines)

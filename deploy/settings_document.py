"""Writes docs/settings.md from the settings: ``python -m deploy.settings_document``."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from millrace.settings import Settings

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
HEAD = """# Settings

Each is an environment variable, in the environment or in `.env`; the first wins. `millrace config` shows what they are
here, and where each value comes from. `MILLRACE_HOME` (default `.millrace`) is the folder of everything that Millrace
keeps on a machine. Written from `millrace/settings.py` by `make documents`.
"""


def document() -> str:
    """The page."""
    lines = [HEAD]
    for group in Settings.groups.values():
        lines += [
            f"## {(group.__doc__ or '').strip().rstrip('.')}\n",
            "| variable | default | meaning |",
            "|---|---|---|",
        ]
        prefix = group.model_config["env_prefix"]
        for name, info in group.model_fields.items():
            lines.append(f"| `{(prefix + name).upper()}` | {_default(info)} | {_cell(info.description or '')} |")
        lines.append("")
    return "\n".join(lines)


def _default(info: FieldInfo) -> str:
    value = info.default
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    DOCUMENT.write_text(document())

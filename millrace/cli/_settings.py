"""Every setting as people see it: its variable, its value, and where that came from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values
from pydantic import SecretStr

from millrace.errors import MillraceError
from millrace.settings import Settings, home

_PASSWORD = re.compile(r"(?<=://)([^/@\s]*):([^/@\s]*)@")


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting.

    Attributes
    ----------
    value
        As text; secrets and passwords inside addresses are masked.
    source
        ``environment``, a file's name, or ``default``.
    """

    variable: str
    value: str
    source: str
    group: str
    description: str


def knobs() -> list[Knob]:
    """All settings in the order of their declaration.

    Raises
    ------
    MillraceError
        Values are invalid: all of them are named.
    """
    found = [
        Knob(
            "MILLRACE_HOME",
            str(home()),
            "environment" if "MILLRACE_HOME" in os.environ else "default",
            "",
            "Folder of everything that Millrace keeps on this machine.",
        )
    ]
    problems = []
    places = _places()
    for name, group in Settings.groups.items():
        try:
            values = group()
        except MillraceError as error:
            problems.append(str(error))
            continue
        prefix = group.model_config["env_prefix"]
        for field, info in group.model_fields.items():
            variable = f"{prefix}{field}".upper()
            source = next((place for place, holds in places if variable in holds), "default")
            found.append(Knob(variable, _shown(getattr(values, field)), source, name, info.description or ""))
    if problems:
        raise MillraceError("; ".join(problems))
    return found


def _places() -> list[tuple[str, Mapping[str, object]]]:
    """Where values come from, first match wins; names without regard to case, as the settings take them."""
    files = [(".env", Path(".env")), ("stack.env", home() / "stack.env")]
    return [
        ("environment", {name.upper(): None for name in os.environ}),
        *((name, {key.upper(): None for key in dotenv_values(path)}) for name, path in files),
    ]


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "***" if value.get_secret_value() else ""
    return _PASSWORD.sub(r"\1:***@", str(value))

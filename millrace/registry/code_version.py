"""Which code made a version."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def code_version() -> str:
    """The release, and the commit where it runs from a checkout, for example ``0.1.0+af2711c945f5``."""
    try:
        release = version("millrace")
    except PackageNotFoundError:
        release = "unreleased"
    git = shutil.which("git")
    if git is None:
        return release
    here = Path(__file__).resolve().parent
    command = [git, "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    described = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{release}+{described.stdout.strip()}" if described.returncode == 0 else release

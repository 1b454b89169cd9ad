"""Programs of Debian packages: those of the machine, else unpacked into a folder of the tests; nothing is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def programs(package: str, names: tuple[str, ...], folder: Path) -> dict[str, Path]:
    """Where the programs of a package are. Fails the test when they are not there and apt cannot fetch them."""
    found = {name: shutil.which(name) for name in names}
    if all(found.values()):
        return {name: Path(path) for name, path in found.items() if path}
    fetched = subprocess.run(["apt-get", "download", package], cwd=folder, capture_output=True, text=True, check=False)
    archives = sorted(folder.glob(f"{package}_*.deb"))
    if fetched.returncode or not archives:
        pytest.fail(f"apt-get download {package}: {fetched.stderr}; `apt-get update`, or install {package}")
    subprocess.run(["dpkg-deb", "-x", archives[0].name, "unpacked"], cwd=folder, check=True, timeout=120)
    return {name: next((folder / "unpacked" / "usr" / "bin").glob(name)) for name in names}

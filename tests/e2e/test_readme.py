"""What the README shows is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Loop
from tests.processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_python_of_the_readme_runs(loop: Loop) -> None:
    blocks = PYTHON_BLOCK.findall((ROOT / "README.md").read_text())
    assert blocks
    loop.recommender.recommend("anyone")  # the recommender is up
    for block in blocks:
        subprocess.run(
            [sys.executable, "-W", "error", "-c", block],
            cwd=ROOT,
            env=os.environ | dict(loop.env),
            check=True,
            timeout=PATIENCE_S,
        )

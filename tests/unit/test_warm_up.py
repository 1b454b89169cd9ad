"""What is compiled is compiled before anybody waits for it."""

from __future__ import annotations

import subprocess
import sys

_ASK = """
from numba.core import event
from millrace.warm_up import warm_up_learning, warm_up_ranking

warm_up_ranking()
warm_up_learning()
with event.install_recorder("numba:compile") as compiling:
    from tests.unit.test_evaluation_prequential import test_it_learns

    test_it_learns()
print([one.data["dispatcher"].__name__ for _, one in compiling.buffer if one.is_start])
"""


def test_after_warming_up_nothing_is_compiled() -> None:
    found = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True, timeout=300)
    assert found.stdout.splitlines()[-1] == "[]"

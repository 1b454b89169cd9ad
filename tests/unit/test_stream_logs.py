"""What a log line must not hold."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import PATIENCE_S

PROGRAM = """
import structlog
from millrace.settings import ObservabilitySettings
from millrace.stream import logs

logs.configure(ObservabilitySettings(log_format="{form}"), "test")

def connect(password):
    raise ValueError("no connection")

try:
    connect("a" + " secret")
except ValueError:
    structlog.get_logger().exception("failed")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_tracebacks_hold_no_values_of_variables(form: str) -> None:
    """A password on its way through a function must not reach the log when the function fails."""
    program = PROGRAM.format(form=form)
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert "ValueError" in shown.stderr
    assert "no connection" in shown.stderr
    assert "a secret" not in shown.stderr

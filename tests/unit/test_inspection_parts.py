"""Where reading begins, how fast a partition moves, what people see of a message; and what a shell completes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from millrace.cli._records_view import printable
from millrace.cli.main import COMMANDS
from millrace.errors import InvalidField
from millrace.inspection.lag import Pace, Standing, pace
from millrace.inspection.letters import parse_letter
from millrace.inspection.plain import plain, readable
from millrace.inspection.start import Beginning, End, Newest, Offset, Since, Start, parse_start
from millrace.topics import BY_NAME
from millrace.v1.impression_pb2 import CandidateSource, Impression, Slot
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.model_pb2 import ParameterSnapshot
from tests.conftest import ROOT
from tests.processes import PATIENCE_S

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("beginning", Beginning()),
        ("end", End()),
        ("-3", Newest(3)),
        ("17", Offset(17)),
        ("15m", Since(NOW_MS - 15 * 60_000)),
        ("2d", Since(NOW_MS - 2 * 86_400_000)),
        ("2026-01-01", Since(1_767_225_600_000)),
        ("2026-01-01T02:00:00+02:00", Since(1_767_225_600_000)),
        ("@1767225600", Since(1_767_225_600_000)),
        ("@1767225600000", Since(1_767_225_600_000)),
    ],
)
def test_where_reading_begins(text: str, start: Start) -> None:
    assert parse_start(text, NOW_MS) == start


@pytest.mark.parametrize("text", ["", "soon", "--3", "1.5", "-999999", "@soon", "5w", "1900-01-01"])
def test_what_is_no_start_says_what_is(text: str) -> None:
    with pytest.raises(InvalidField, match="beginning, end, -N"):
        parse_start(text, NOW_MS)


def test_how_fast_a_partition_moves() -> None:
    before = Standing("w", 100, 0, 150)
    assert pace(before, Standing("w", 160, 0, 190), 2.0) == Pace(20.0, 30.0, 3.0)
    assert pace(before, Standing("w", 110, 0, 190), 2.0) == Pace(20.0, 5.0, None)
    assert pace(before, Standing("w", 150, 0, 150), 1.0).catch_up_s == 0.0


def test_lag_counts_what_is_still_there() -> None:
    assert Standing("", None, 40, 50).lag == 10
    assert Standing("", 20, 40, 50).lag == 10
    assert Standing("", 60, 0, 50).lag == 0


def test_a_message_as_plain_values() -> None:
    answer = Impression(
        served_at_ms=1_500_000_000_000,
        slots=[Slot(item_id="a", score=0.1, sources=[CandidateSource.CANDIDATE_SOURCE_FRESH], features=[float("nan")])],
    )
    answer.context.attributes["plan"] = "gold"
    assert plain(answer) == {
        "served_at_ms": 1_500_000_000_000,
        "context": {"attributes": {"plan": "gold"}},
        "slots": [{"item_id": "a", "score": 0.1, "sources": ["fresh"], "features": ["nan"]}],
    }
    later = Interaction.FromString(b"\x20\x63")  # a type that a newer writer knows
    assert plain(later) == {"type": "99"}
    assert plain(ParameterSnapshot(payload=b"\xff")) == {"payload": "/w=="}


def test_bytes_for_people() -> None:
    assert readable(b"\xff") == "base64:/w=="
    assert readable("ä".encode()) == "ä"
    assert readable(None) is None
    assert printable("a\x1b[31m\tü\n") == "a\\x1b[31m\\tü\\n"


def test_letters_are_named_by_topic_and_offset() -> None:
    assert parse_letter("interactions", BY_NAME) == (BY_NAME["interactions"], None)
    assert parse_letter("items@12", BY_NAME) == (BY_NAME["items"], 12)
    for wrong in ("nothing", "items@", "items@x", "items@-1"):
        with pytest.raises(InvalidField):
            parse_letter(wrong, BY_NAME)


def completions(line: str) -> tuple[list[str], set[str]]:
    """What bash is offered for the last word of a line, and the modules that were imported for it."""
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        "from millrace.cli.main import main; main()"
    )
    words = line.split(" ")
    asked = {"_MILLRACE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | asked,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return [one.partition(",")[2] for one in done.stdout.splitlines()], set(done.stderr.split())


def test_a_shell_completes_commands_without_importing_them() -> None:
    offered, modules = completions("millrace ")
    assert offered == list(COMMANDS)
    assert not {name for name in modules if name.startswith("millrace.cli.")} - {"millrace.cli.main"}
    assert completions("millrace ta")[0] == ["tail"]


def test_a_shell_completes_topics_and_options() -> None:
    assert completions("millrace tail inter")[0] == ["interactions", "interactions.dlq"]
    assert "--where" in completions("millrace tail --wh")[0]
    assert completions("millrace dlq replay o")[0] == ["outcomes"]

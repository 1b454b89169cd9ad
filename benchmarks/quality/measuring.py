"""From a run to its row: the command's own arguments and functions, with where the figures come from."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import click

from benchmarks.quality.runs import DATA, Run
from benchmarks.report import commit, machine, versions
from millrace.cli import evaluate, tune
from millrace.cli._evaluate_options import Data, Passes, taken
from millrace.cli._evaluate_view import as_row
from millrace.evaluation.checkpoint import DECIDING_SETTINGS, code_digest
from millrace.evaluation.paired import Blocks
from millrace.evaluation.search_space import chosen
from millrace.evaluation.stream import EventStream
from millrace.settings import Settings

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Measured:
    """A row of ``quality.json``, and the blocks that differences are computed from."""

    row: dict[str, Any]
    blocks: Blocks


def measure(run: Run, settings: Settings, say: Say) -> Measured:
    """Measure a row. Where an earlier measurement of the same was interrupted, it goes on. Raises MillraceError."""
    began, state = time.monotonic(), commit()
    data, passes, _ = _options(evaluate.command, run.arguments, settings)
    (lag,) = passes.each
    stream = _events(data, passes.protocol)
    found = None
    if run.tune:
        _, tuning, given = _options(tune.command, f"{run.arguments} {run.tune}", settings)
        found = tune.searched(stream, tuning, given["budget"], settings, say)
        settings = chosen(settings, found.choice if found.holds else {})
    say(f"{run.name}: {len(stream.events):,} events")
    figures = evaluate.figures_of(stream, passes, lag, settings)
    row = {
        "name": run.name,
        "command": run.command,
        **as_row(lag, passes, figures),
        "events": len(stream.events),
        "checksum": stream.checksum,
        "settings": moved(settings),
        # As it is read again: lists, not tuples.
        "tuning": json.loads(json.dumps(asdict(found))) if found else None,
        "wall_s": round(time.monotonic() - began, 1),
        "code": code_digest(),
        "commit": state,
        "machine": machine(),
        "versions": versions(),
    }
    return Measured(row, figures.blocks)


def moved(settings: Settings) -> dict[str, Any]:
    """Settings that figures follow from and that are not the defaults: variable -> value."""
    found = {}
    for name in DECIDING_SETTINGS:
        group = getattr(settings, name)
        for field, info in type(group).model_fields.items():
            if (value := getattr(group, field)) != info.default:
                found[f"{group.model_config['env_prefix']}{field}".upper()] = value
    return found


def _options(command: click.Command, arguments: str, settings: Settings) -> tuple[Data, Passes, dict[str, Any]]:
    words = [word.replace(DATA, str(settings.client.data)) for word in shlex.split(arguments)]
    given = command.make_context(command.name, words).params
    return taken(Data, given), taken(Passes, given), given


@lru_cache(maxsize=1)
def _events(data: Data, protocol: str) -> EventStream:
    """Kept for the next row: several in a row are over the same events."""
    return data.read(protocol)

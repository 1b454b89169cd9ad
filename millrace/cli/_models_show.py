"""``millrace models show`` and ``compare``: what topics, MLflow and the weights say of versions."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from millrace.errors import InfrastructureError, MillraceError
from millrace.settings import settings

if TYPE_CHECKING:
    from millrace.registry.history import History
    from millrace.registry.registry import Registry
    from millrace.registry.sheet import Sheet
    from millrace.registry.view import RegistryView

# As `millrace models list`.
READ_TIMEOUT_S = 5.0

_model = click.option("--model", help="Registered model [default: the one of the settings].")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("version")
@_model
@_json
def show(version: str, model: str | None, as_json: bool) -> None:
    """Everything about VERSION: its life, gates, data, lineage, figures and weights (a few seconds, for MLflow)."""
    from millrace.cli import _models_view

    known = _Known.read(model)
    sheet = known.sheet(version)
    if as_json:
        click.echo(json.dumps(sheet | {"problem": known.problem}, indent=2))
    else:
        _models_view.print_one(sheet)
    known.say_problem()


@click.command()
@click.argument("version")
@click.argument("other")
@_model
@_json
def compare(version: str, other: str, model: str | None, as_json: bool) -> None:
    """VERSION and OTHER beside each other: data, figures, gates, and the weights that differ most."""
    from millrace.cli import _models_view

    known = _Known.read(model)
    before, after = known.sheet(version), known.sheet(other)
    gain = _models_view.measured_gain(before, after)
    if as_json:
        content = {"model": known.history.model_name, "versions": [before, after], "gain": gain}
        click.echo(json.dumps(content | {"problem": known.problem}, indent=2))
    else:
        _models_view.print_two(before, after, gain)
    known.say_problem()


@dataclass
class _Known:
    """What was read once, for any number of versions. ``view`` is None while MLflow is away."""

    history: History
    registry: Registry
    view: RegistryView | None
    problem: str | None

    @classmethod
    def read(cls, model: str | None) -> _Known:
        from millrace.registry.history import read_history
        from millrace.registry.registry import Registry
        from millrace.stream.reader import TopicReader
        from millrace.topics import MODEL_EVENTS

        values = settings()
        name = model or values.orchestrator.model_name
        with TopicReader(values.kafka, [MODEL_EVENTS], "beginning", values.stream) as reader:
            history = read_history(name, reader, READ_TIMEOUT_S)
        registry = Registry(values.mlflow)
        try:
            return cls(history, registry, registry.view(name), None)
        except InfrastructureError as error:
            return cls(history, registry, None, str(error))

    def sheet(self, version: str) -> Sheet:
        """Raises MillraceError if nobody knows the version."""
        from millrace.registry.sheet import registered_version, sheet

        registered = registered_version(version, self.view)
        run = self.registry.run(registered.run_id) if registered else None
        return sheet(version, self.history, self.view, run, self._weights(version, run.run_id if run else ""))

    def say_problem(self) -> None:
        """On standard error, what is missing and why."""
        if self.problem:
            click.echo(f"gates, tags, data and figures are missing: {self.problem}", err=True)

    def _weights(self, version: str, run_id: str) -> dict[str, float] | None:
        """From this machine's disk, else from MLflow; None if neither has them."""
        from millrace.ranking.model import RankingModel
        from millrace.registry.cache import default_directory

        folder = default_directory(self.history.model_name) / version
        with tempfile.TemporaryDirectory() as scratch:
            try:
                if not version.isdigit() or not folder.is_dir():
                    if not run_id:
                        return None
                    folder = self.registry.look_at(run_id, Path(scratch))
                model = RankingModel.load(folder)
            except MillraceError as error:
                self.problem = self.problem or str(error)
                return None
        return dict(zip(model.columns, model.weights.tolist(), strict=True))

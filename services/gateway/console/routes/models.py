"""*Models*: versions, their gates, who serves; promote and roll back, each asked for twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from millrace.errors import InvalidField
from millrace.registry.asking import promote, roll_back
from millrace.registry.ledger import Ledger
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import ExperimentState
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from services.gateway.console.origin import read_form
from services.gateway.console.pages import page_routes
from services.gateway.parts import Parts
from services.gateway.problems import NOT_FOUND, REFUSED, Problem

ISSUED_BY = "console"
_HERE = "/console/models"
GATES = {
    "enough_data": "learned from enough",
    "loads": "loads and scores in a fresh process",
    "golden": "answers known requests as it should",
    "better": "surely better than the champion",
    "segments": "surely worse for no group of users",
}


def router(parts: Parts) -> APIRouter:
    """The pages."""
    console, views = parts.console, parts.views
    routes = page_routes(console, _HERE)
    name = parts.settings.orchestrator.model_name

    @routes.get("")
    async def page() -> Response:
        return console.renderer.page("models.html", _HERE, **await values())

    @routes.get("/stream")
    async def stream() -> Response:
        return console.live("models_part.html", values)

    @routes.get("/confirm")
    async def confirm(action: str, version: str = "", checkpoint: str = "") -> Response:
        ledger = ledger_of()
        command = asked(ledger, action, version, checkpoint, "")
        return console.renderer.page(
            "confirm.html",
            _HERE,
            action=action,
            version=version,
            checkpoint=checkpoint,
            ledger=ledger,
            target=command.promote.model_version or command.roll_back.model_version,
        )

    @routes.post("/act")
    async def act(request: Request) -> Response:
        form = await read_form(request)
        ledger = ledger_of()
        command = asked(
            ledger,
            form.get("action", ""),
            form.get("version", ""),
            form.get("checkpoint", ""),
            form.get("reason", "").strip(),
        )

        def settled() -> ModelEvent | None:
            event = ledger.settled.get(command.command_id)
            if event is not None and event.type == ModelEventType.MODEL_EVENT_TYPE_COMMAND_REFUSED:
                raise Problem(REFUSED, event.reason, command_id=command.command_id)
            return event

        event = await parts.desk.ask(ledger.model_name, command, settled, parts.settings.gateway.command_wait_ms)
        return console.renderer.page("acted.html", _HERE, event=event, command_id=command.command_id)

    def asked(ledger: Ledger, action: str, version: str, checkpoint: str, reason: str) -> Command:
        """The command for what a person wants. Raises Problem or InvalidField."""
        if action == "promote":
            if version not in ledger.versions:
                raise Problem(NOT_FOUND, ledger.unknown(version))
            return promote(ledger.model_name, version, ISSUED_BY, reason)
        if action != "rollback":
            raise InvalidField("action", repr(action), "promote or rollback")
        if checkpoint and checkpoint not in ledger.checkpoints:
            raise Problem(NOT_FOUND, f"checkpoint {checkpoint!r} is not kept any more")
        if not checkpoint and not ledger.former:
            raise Problem(NOT_FOUND, "there is no earlier champion to go back to")
        version = "" if checkpoint else version or ledger.former[-1]
        return roll_back(ledger.model_name, version, ISSUED_BY, reason, checkpoint)

    def ledger_of() -> Ledger:
        found = views.ledgers.get(name)
        if found is None:
            raise Problem(NOT_FOUND, f"model {name!r} has no version yet")
        return found

    async def values() -> dict[str, Any]:
        ledger = views.ledgers.get(name)
        return {
            "name": name,
            "ledger": ledger,
            "versions": [
                {"event": event, "gates": gates_of(event.figures)}
                for event in reversed(ledger.versions.values() if ledger else ())
            ],
            "refused": list(reversed(ledger.refused.values())) if ledger else [],
            "checkpoints": list(reversed(ledger.checkpoints.values())) if ledger else [],
            "tried": tried(),
            "words": GATES,
        }

    def tried() -> dict[str, str]:
        """Version -> the running experiment that it is an arm of."""
        return {
            arm.model_version: experiment.definition.experiment_id
            for experiment in views.experiments.values()
            if experiment.state == ExperimentState.EXPERIMENT_STATE_RUNNING and experiment.definition.model_name == name
            for arm in experiment.definition.arms
            if arm.model_version
        }

    return routes


def gates_of(figures: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The numbers of a version by the gate that they decided."""
    found: dict[str, dict[str, float]] = {}
    for figure in sorted(figures):
        gate, _, rest = figure.partition(".")
        if rest:
            found.setdefault(gate, {})[rest] = figures[figure]
    return found

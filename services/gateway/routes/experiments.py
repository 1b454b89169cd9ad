"""Experiments: defined, started and stopped by command; shown from the tracker's records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from google.protobuf.json_format import ParseDict, ParseError
from starlette.responses import JSONResponse, Response

from millrace.errors import InvalidField
from millrace.events.rules import check_id
from millrace.experiments.as_json import experiment_as_dict
from millrace.experiments.definition import check_definition, completed
from millrace.experiments.life import target
from millrace.registry.asking import new_command
from millrace.v1.command_pb2 import Command
from millrace.v1.experiment_pb2 import Experiment, ExperimentDefinition
from services.gateway import problems
from services.gateway.bodies import read_object, read_optional
from services.gateway.commands import ISSUED_BY
from services.gateway.documents import BODY_FAILURES, PENDING, WAIT_HELP, answer, body, failures
from services.gateway.parts import Parts
from services.gateway.problems import NOT_FOUND, Problem
from services.gateway.schemas.base import Reason
from services.gateway.schemas.experiments import Definition, ExperimentRecord, Experiments

ONE = {
    "experiment_id": "live-or-not",
    "traffic": 0.5,
    "arms": [
        {"name": "as-registered", "share": 0.5, "control": True, "settings": {"parameters": "registered"}},
        {"name": "live", "share": 0.5},
    ],
    "reason": "does learning pay?",
}
Key = Annotated[str | None, Header(description="Id of the command: sent again with it, it is acted on once.")]
Wait = Annotated[int | None, Query(ge=0, le=30_000, description=WAIT_HELP)]
FAILURES = BODY_FAILURES | failures(problems.REFUSED, problems.UNAVAILABLE)


def router(parts: Parts) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/mlops/experiments", tags=["experiments"])
    own = parts.settings.gateway
    max_bytes = own.body_max_kib * 1_024

    def known(experiment_id: str) -> Experiment:
        found = parts.views.experiments.get(experiment_id)
        if found is None:
            raise Problem(NOT_FOUND, f"no experiment {experiment_id!r}")
        return found

    async def obeyed(command: Command, key: str | None, wait_ms: int | None, status: int) -> Response:
        """The record that a command leads to."""
        command.command_id = key or command.command_id
        name = target(command)

        def accepted() -> Experiment | None:
            record = parts.views.experiments.get(name)
            return record if record and command.command_id in record.accepted_command_ids else None

        record = await parts.desk.ask(name, command, accepted, own.command_wait_ms if wait_ms is None else wait_ms)
        if record is None:
            return JSONResponse({"command_id": command.command_id, "settled": False}, 202)
        return JSONResponse(experiment_as_dict(record), status)

    async def about(
        experiment_id: str, act: Callable[[Command], None], request: Request, key: str | None, wait_ms: int | None
    ) -> Response:
        given = await read_optional(request, max_bytes, frozenset(Reason.model_fields))
        known(experiment_id)
        command = new_command(ISSUED_BY, given["reason"])
        act(command)
        return await obeyed(command, key, wait_ms, 200)

    @routes.get("", summary="All experiments", responses={200: answer(Experiments, "The newest first.")})
    async def listing() -> Response:
        found = sorted(parts.views.experiments.values(), key=lambda one: -one.started_at_ms)
        return JSONResponse({"experiments": [experiment_as_dict(one) for one in found]})

    @routes.get(
        "/{experiment_id:path}",
        summary="What is known of an experiment",
        responses={
            200: answer(ExperimentRecord, "The record."),
            **failures(problems.NOT_FOUND, problems.INVALID_FIELD),
        },
    )
    async def show(experiment_id: str) -> Response:
        return JSONResponse(experiment_as_dict(known(experiment_id)))

    @routes.post(
        "",
        summary="Define an experiment, or change one that has not started",
        status_code=201,
        responses={201: answer(ExperimentRecord, "The record, a draft."), 202: PENDING, **FAILURES},
        openapi_extra=body(Definition, one=ONE),
    )
    async def define(request: Request, idempotency_key: Key = None, wait_ms: Wait = None) -> Response:
        written = await read_object(request, max_bytes)
        reason = written.pop("reason", "")
        definition = read_definition(written)
        definition.model_name = definition.model_name or parts.settings.recommender.model_name
        # The tracker checks it again, and whether versions exist and the layer has room.
        check_definition(completed(definition))
        command = new_command(ISSUED_BY, "")
        command.reason = reason if isinstance(reason, str) else ""
        command.define_experiment.definition.CopyFrom(definition)
        return await obeyed(command, idempotency_key, wait_ms, 201)

    @routes.post(
        "/{experiment_id:path}/start",
        summary="Start an experiment: from then on its definition stands",
        responses={200: answer(ExperimentRecord, "The record, running."), 202: PENDING, **FAILURES}
        | failures(problems.NOT_FOUND),
        openapi_extra=body(Reason, optional=True),
    )
    async def start(
        experiment_id: str, request: Request, idempotency_key: Key = None, wait_ms: Wait = None
    ) -> Response:
        def act(command: Command) -> None:
            command.start_experiment.experiment_id = experiment_id

        return await about(experiment_id, act, request, idempotency_key, wait_ms)

    @routes.post(
        "/{experiment_id:path}/stop",
        summary="Stop an experiment for good; its figures stay",
        responses={200: answer(ExperimentRecord, "The record, stopped."), 202: PENDING, **FAILURES}
        | failures(problems.NOT_FOUND),
        openapi_extra=body(Reason, optional=True),
    )
    async def stop(experiment_id: str, request: Request, idempotency_key: Key = None, wait_ms: Wait = None) -> Response:
        def act(command: Command) -> None:
            command.stop_experiment.experiment_id = experiment_id

        return await about(experiment_id, act, request, idempotency_key, wait_ms)

    return routes


def read_definition(written: dict[str, object]) -> ExperimentDefinition:
    """The definition in protobuf's JSON form, by the contract's names. Raises InvalidField for another form."""
    definition = ExperimentDefinition()
    try:
        ParseDict(written, definition)
    except (ParseError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InvalidField("definition", str(error), "an ExperimentDefinition of experiment.proto") from error
    check_id("experiment_id", definition.experiment_id)
    return definition

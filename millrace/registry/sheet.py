"""Everything that is known of one version, as plain values: from ``model-events``, from MLflow, from its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from millrace.enums import name_of
from millrace.errors import MillraceError
from millrace.registry.as_json import event_as_dict
from millrace.registry.gates import GATE_PREFIX, GATES_TAG, PASSED, gates_of
from millrace.registry.history import History
from millrace.registry.registry import CODE_TAG, SCHEMA_TAG
from millrace.registry.view import RegisteredVersion, RegistryView, VersionRun
from millrace.v1.model_pb2 import ModelEvent, ModelEventType

Sheet = dict[str, Any]

_INPUT = "input_"


def sheet(
    version: str,
    history: History,
    view: RegistryView | None = None,
    run: VersionRun | None = None,
    weights: Mapping[str, float] | None = None,
) -> Sheet:
    """The sheet of a version, as JSON has it; what is not known is null.

    Parameters
    ----------
    view, run
        What MLflow says; None: it was not asked, or is away.
    weights
        Column -> standardised weight; None: the files are not at hand.

    Raises
    ------
    MillraceError
        Nobody knows the version; the message names those that are known.
    """
    registered = registered_version(version, view)
    events = history.of(version)
    if registered is None and not events:
        raise MillraceError(history.unknown(version))
    first = history.versions.get(version) or history.refused.get(version)
    tags = dict(registered.tags) if registered else {}
    return {
        "model": history.model_name,
        "version": version,
        "state": _state(version, history, events),
        "aliases": [alias for alias, target in view.aliases.items() if target == version] if view else None,
        "registered_at_ms": first.at_ms if first else None,
        "reason": first.reason if first else None,
        "events": [_event(event) for event in events],
        "gates": _gates(tags) if registered else None,
        "tags": {tag: value for tag, value in tags.items() if not tag.startswith((GATE_PREFIX, GATES_TAG))},
        "window": _window(run),
        "run": _run(run),
        "lineage": _lineage(version, history, registered, run, events),
        "weights": _weights(weights),
    }


def registered_version(version: str, view: RegistryView | None) -> RegisteredVersion | None:
    """The version as the registry holds it."""
    known: Sequence[RegisteredVersion] = view.versions if view else ()
    return next((one for one in known if one.version == version), None)


def _state(version: str, history: History, events: Sequence[ModelEvent]) -> str:
    if version == history.champion:
        return "champion"
    if version in history.refused:
        return "failed a gate"
    last = events[-1].type if events else ModelEventType.MODEL_EVENT_TYPE_UNSPECIFIED
    if last == ModelEventType.MODEL_EVENT_TYPE_CHALLENGER:
        return "challenger"
    if last == ModelEventType.MODEL_EVENT_TYPE_REJECTED:
        return "rejected"
    return "former champion" if version in history.former else "registered"


def _event(event: ModelEvent) -> dict[str, Any]:
    kind = name_of(ModelEventType.DESCRIPTOR, event.type).replace("_", " ")
    return {"what": kind, **event_as_dict(event), "figures": dict(event.figures)}


def _gates(tags: Mapping[str, str]) -> dict[str, Any] | None:
    """None for a version that was not trained."""
    verdict = tags.get(GATES_TAG)
    if verdict is None:
        return None
    found = [
        {"name": gate.name, "passed": gate.passed, "reason": gate.reason, "figures": dict(gate.figures)}
        for gate in gates_of(tags)
    ]
    return {"passed": verdict == PASSED, "verdict": verdict, "gates": found}


def _window(run: VersionRun | None) -> dict[str, Any] | None:
    """What it was trained on; None for a version that was not trained, or whose run is not known."""
    if run is None or f"{_INPUT}topic_id" not in run.params:
        return None
    numbers = {name: int(run.metrics[name]) for name in ("outcomes", "examples", "clicks") if name in run.metrics}
    return {
        "topic_id": run.params[f"{_INPUT}topic_id"],
        "from_ms": _whole(run.params.get(f"{_INPUT}from_ms")),
        "to_ms": _whole(run.params.get(f"{_INPUT}to_ms")),
        "since_ms": _whole(run.params.get("since_ms")),
        "offsets": {
            name.removeprefix(_INPUT): [int(end) for end in bounds.split("-")]
            for name, bounds in run.params.items()
            if name.removeprefix(_INPUT).isdigit()
        },
        **numbers,
    }


def _run(run: VersionRun | None) -> dict[str, Any] | None:
    if run is None:
        return None
    return {
        "run_id": run.run_id,
        "status": run.status,
        "started_ms": run.started_ms,
        "seconds": (run.ended_ms - run.started_ms) / 1_000 if run.ended_ms else None,
        "params": {name: value for name, value in run.params.items() if not name.startswith(_INPUT)},
        "metrics": dict(run.metrics),
        "plots": list(run.plots),
    }


def _lineage(
    version: str,
    history: History,
    registered: RegisteredVersion | None,
    run: VersionRun | None,
    events: Sequence[ModelEvent],
) -> dict[str, Any]:
    """Where it comes from, and what came of it."""
    tags = registered.tags if registered else {}
    source = history.versions.get(version) or history.refused.get(version)
    return {
        "trained_beside": (run.params.get("champion") or None) if run else None,
        "replaced": [event.previous_version for event in events if event.previous_version],
        "replaced_by": [
            event.model_version for event in history.events if event.previous_version == version and event.model_version
        ],
        "checkpoints": [name for name, event in history.checkpoints.items() if event.model_version == version],
        "code_version": tags.get(CODE_TAG) or (run.params.get("code_version") if run else None),
        "feature_schema": tags.get(SCHEMA_TAG),
        "run_id": (registered.run_id if registered else source.run_id if source else "") or None,
        "artifact_uri": (registered.artifact_uri if registered else source.artifact_uri if source else "") or None,
        "sha256": (registered.sha256 if registered else source.sha256.hex() if source else "") or None,
    }


def _weights(weights: Mapping[str, float] | None) -> dict[str, float] | None:
    """The largest first."""
    if weights is None:
        return None
    return dict(sorted(weights.items(), key=lambda one: -abs(one[1])))


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None

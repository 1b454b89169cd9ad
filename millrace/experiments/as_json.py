"""An experiment for JSON: its record and what follows from it, the same of the command line and of the gateway."""

from __future__ import annotations

import math

from google.protobuf.json_format import MessageToDict

from millrace.experiments.outlook import (
    explained,
    in_words,
    items_shown,
    on_guardrails,
    relative_intervals,
    remaining_ms,
)
from millrace.v1.experiment_pb2 import Experiment


def experiment_as_dict(experiment: Experiment) -> dict[str, object]:
    """The record by the contract's names, intervals, and what is known in words; what is not known (NaN) is null."""
    content: dict[str, object] = MessageToDict(experiment, preserving_proto_field_name=True)
    known = relative_intervals(experiment)
    content["intervals"] = {name: {"effect": e, "low": low, "high": high} for name, (e, low, high) in known.items()}
    left = {name: remaining_ms(experiment, name) for name in known}
    content["remaining_ms"] = {name: ms if math.isfinite(ms) else None for name, ms in left.items()}
    content["in_words"] = in_words(experiment)
    content["guardrails"] = {
        arm: {
            name: {"worse": worse, "surely": surely, "borne": borne} for name, (worse, surely, borne) in rails.items()
        }
        for arm, rails in on_guardrails(experiment).items()
    }
    content["explained_by_earlier_activity"] = explained(experiment)
    content["items_shown"] = items_shown(experiment)
    standing = content.get("decision")
    if isinstance(standing, dict):
        content["decision"] = {key: None if value == "NaN" else value for key, value in standing.items()}
    return content

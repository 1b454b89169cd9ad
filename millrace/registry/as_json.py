"""What has happened to a model's versions, for JSON: the same of the command line and of the gateway."""

from __future__ import annotations

from millrace.registry.ledger import Ledger
from millrace.v1.model_pb2 import ModelEvent


def event_as_dict(event: ModelEvent) -> dict[str, object]:
    """A promotion or rollback; what it does not have is null."""
    return {
        "version": event.model_version,
        "at_ms": event.at_ms,
        "reason": event.reason,
        "previous_version": event.previous_version or None,
        "checkpoint_id": event.checkpoint_id or None,
    }


def checkpoint_as_dict(event: ModelEvent) -> dict[str, object]:
    """A checkpoint of the learner."""
    figures = event.figures
    return {
        "checkpoint_id": event.checkpoint_id,
        "version": event.model_version,
        "at_ms": event.at_ms,
        "epoch": int(figures["epoch"]),
        "sequence": int(figures["sequence"]),
        "examples": int(figures["examples"]),
        "log_loss": figures["log_loss"],
        "reign_id": event.reign_id,
        "run_id": event.run_id,
        "artifact_uri": event.artifact_uri,
        "sha256": event.sha256.hex(),
    }


def ledger_as_dict(ledger: Ledger) -> dict[str, object]:
    """All versions, and who serves."""
    return {
        "model": ledger.model_name,
        "champion": event_as_dict(ledger.reign) if ledger.reign else None,
        "former_champions": list(ledger.former),
        "versions": [
            {
                "version": version,
                "champion": version == ledger.champion,
                "registered_at_ms": event.at_ms,
                "reason": event.reason,
                "run_id": event.run_id,
                "artifact_uri": event.artifact_uri,
                "sha256": event.sha256.hex(),
            }
            for version, event in ledger.versions.items()
        ],
        "failed_a_gate": [
            {"version": version, "at_ms": event.at_ms, "reason": event.reason, "figures": dict(event.figures)}
            for version, event in ledger.refused.items()
        ],
    }

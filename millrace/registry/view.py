"""What the registry says, as values: what decisions are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CHAMPION = "champion"
"""Alias of the version that serves: a projection of topic ``model-events``, written by the orchestrator only."""

CHALLENGER = "challenger"
"""Alias of the version that a retraining has in an experiment, while it is there; a projection too."""


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version as the registry holds it.

    Attributes
    ----------
    step_id
        Id of the step that made it: made again, the step finds it instead of making another.
    sha256
        SHA-256 of the portable weights, hexadecimal.
    """

    version: str
    run_id: str
    artifact_uri: str
    step_id: str
    sha256: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VersionRun:
    """The run that made a version.

    Attributes
    ----------
    started_ms, ended_ms
        Unix milliseconds; ``ended_ms`` is None while it is open.
    plots
        Paths of its pictures among its artifacts.
    """

    run_id: str
    status: str
    started_ms: int
    ended_ms: int | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    plots: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RegistryView:
    """A registered model as the registry holds it. ``aliases``: alias -> version; ``versions`` ascending."""

    versions: tuple[RegisteredVersion, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def made_by(self, step_id: str) -> RegisteredVersion | None:
        """The version that a step made; the lowest, should a stalled process have made it a second time."""
        return next((version for version in self.versions if version.step_id == step_id), None)

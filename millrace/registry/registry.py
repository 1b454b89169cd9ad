"""MLflow's registry, as much of it as Millrace uses: versions with portable files, and aliases.

``import mlflow`` takes seconds, so it happens when the first request is made, never when this is imported.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from millrace.errors import InfrastructureError, MillraceError
from millrace.registry.gates import against_serving
from millrace.registry.view import RegisteredVersion, RegistryView, VersionRun
from millrace.settings import MlflowSettings

if TYPE_CHECKING:
    from millrace.ranking.model import RankingModel

# Folders of a run's artifacts that hold the version and its pictures, and tags of a version.
ARTIFACT_PATH = "model"
PLOTS_PATH = "plots"
STEP_TAG = "millrace.step_id"
SHA256_TAG = "millrace.sha256"
SCHEMA_TAG = "millrace.feature_schema"
CODE_TAG = "millrace.code_version"
SINCE_TAG = "millrace.since_ms"

# MLflow quotes the whole chain of causes and, from the server, SQL.
_PROBLEM_MAX_CHARS = 240

_ABSENT = "RESOURCE_DOES_NOT_EXIST"
_PRESENT = "RESOURCE_ALREADY_EXISTS"


class Registry:
    """A thin typed layer over ``MlflowClient``. Every method raises InfrastructureError when MLflow is away.

    Errors come fast (one repetition of a request instead of MLflow's seven with minutes of pauses): who calls
    is a reconciler or a person, and both try again themselves.
    """

    def __init__(self, mlflow: MlflowSettings) -> None:
        self.mlflow = mlflow

    def create_model(self, name: str) -> None:
        """Make the registered model and the experiment that holds its runs, unless they are there."""
        with self.errors("create the registered model"):
            unless(_PRESENT, lambda: self.client.create_registered_model(name))
            unless(_PRESENT, lambda: self.client.create_experiment(name))

    def view(self, name: str) -> RegistryView:
        """The versions and aliases of a model; an empty view if the registry does not know it."""
        with self.errors("list versions"):
            model = unless(_ABSENT, lambda: self.client.get_registered_model(name))
            if model is None:
                return RegistryView()
            versions = sorted(map(_version, self._pages(name)), key=lambda version: int(version.version))
            return RegistryView(tuple(versions), dict(model.aliases))

    def run(self, run_id: str) -> VersionRun | None:
        """The run that made a version; None if the registry does not hold it any more."""
        with self.errors(f"read run {run_id}"):
            found = unless(_ABSENT, lambda: self.client.get_run(run_id))
            if found is None:
                return None
            pictures = self.client.list_artifacts(run_id, PLOTS_PATH)
            return VersionRun(
                run_id=run_id,
                status=found.info.status,
                started_ms=found.info.start_time,
                ended_ms=found.info.end_time,
                params=dict(found.data.params),
                metrics=dict(found.data.metrics),
                tags=dict(found.data.tags),
                plots=tuple(picture.path for picture in pictures),
            )

    def look_at(self, run_id: str, into: Path) -> Path:
        """The files of a version in a folder inside ``into``, to look at and not to serve: no gate is asked."""
        with self.errors(f"fetch the files of run {run_id}"):
            return Path(self.client.download_artifacts(run_id, ARTIFACT_PATH, str(into)))

    def log_version(self, name: str, model: RankingModel, step_id: str, reason: str) -> RegisteredVersion:
        """Store a model's portable files as artifacts of a new run, and a version that points to them.

        Not idempotent by itself: callers look for the step's version first (``RegistryView.made_by``).
        """
        from millrace.registry.ranking_flavor import describe

        self.create_model(name)
        with self.errors("log a version"), tempfile.TemporaryDirectory() as folder:
            digest = model.save(Path(folder))
            describe(Path(folder), model)
            experiment = self.client.get_experiment_by_name(name)
            run = self.client.create_run(experiment.experiment_id, run_name=reason, tags={STEP_TAG: step_id})
            run_id: str = run.info.run_id
            self.client.log_artifacts(run_id, folder, ARTIFACT_PATH)
            self.client.set_terminated(run_id)
            tags = {STEP_TAG: step_id, SHA256_TAG: digest, SCHEMA_TAG: model.feature_schema}
            return self.create_version(name, run_id, reason, tags)

    def create_version(self, name: str, run_id: str, reason: str, tags: Mapping[str, str]) -> RegisteredVersion:
        """Make a version of a run whose artifacts are complete. It is there with all of its tags, or not at all."""
        with self.errors("make a version"):
            entity = self.client.create_model_version(
                name,
                source=f"runs:/{run_id}/{ARTIFACT_PATH}",
                run_id=run_id,
                description=reason,
                tags=dict(tags),
                await_creation_for=0,  # the files are there already: nothing to wait for
            )
            return _version(entity)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias to a version. The orchestrator only.

        Raises
        ------
        MillraceError
            The version failed a gate, or there is none.
        """
        with self.errors(f"set alias {alias}"):
            self._fit_to_serve(name, version)
            self.client.set_registered_model_alias(name, alias, version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Point an alias to no version. The orchestrator only."""
        with self.errors(f"delete alias {alias}"):
            self.client.delete_registered_model_alias(name, alias)

    def download(self, name: str, version: str, into: Path) -> None:
        """Copy the files of a version into an existing folder, to serve it.

        Raises
        ------
        MillraceError
            The version failed a gate, or there is none.
        """
        with self.errors(f"fetch version {version} of {name}"):
            entity = self._fit_to_serve(name, version)
            with tempfile.TemporaryDirectory(dir=into) as scratch:
                self.client.download_artifacts(entity.run_id, ARTIFACT_PATH, scratch)
                for path in (Path(scratch) / ARTIFACT_PATH).iterdir():
                    path.rename(into / path.name)

    def _fit_to_serve(self, name: str, version: str) -> Any:
        """The version's entity, unless a gate is against it."""
        entity = unless(_ABSENT, lambda: self.client.get_model_version(name, version))
        if entity is None:
            raise MillraceError(f"the registry holds no version {version} of model {name!r}")
        problem = against_serving(entity.tags)
        if problem:
            raise MillraceError(f"version {version} of model {name!r} must not serve: {problem}")
        return entity

    def _pages(self, name: str) -> list[Any]:
        """Entities of all versions; the server hands them out in pages."""
        found: list[Any] = []
        token: str | None = None
        while True:
            page = self.client.search_model_versions(f"name = '{name}'", page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    @cached_property
    def client(self) -> Any:
        """MLflow's client, which has no usable types. Its HTTP settings exist as environment variables only."""
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(math.ceil(self.mlflow.timeout_ms / 1_000))
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=self.mlflow.tracking_uri, registry_uri=self.mlflow.tracking_uri)

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """MLflow's many exceptions become one that says what could not be done and where."""
        _ = self.client  # sets MLflow's variables before anything of it is imported
        import requests
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, requests.RequestException, OSError) as error:
            problem = shorten(str(error) or type(error).__name__, _PROBLEM_MAX_CHARS)
            raise InfrastructureError(
                "mlflow", f"cannot {what} at {self.mlflow.tracking_uri} ({problem}); is the server up?"
            ) from error


def unless(code: str, call: Callable[[], Any]) -> Any:
    """The call's answer; None if MLflow answers with this error code."""
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as error:
        if error.error_code == code:
            return None
        raise


def _version(entity: Any) -> RegisteredVersion:
    return RegisteredVersion(
        version=str(entity.version),
        run_id=entity.run_id or "",
        artifact_uri=entity.source or "",
        step_id=entity.tags.get(STEP_TAG, ""),
        sha256=entity.tags.get(SHA256_TAG, ""),
        tags=dict(entity.tags),
    )

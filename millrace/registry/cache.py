"""Versions of a model on this machine's disk, so that serving starts and rolls back without MLflow."""

from __future__ import annotations

from pathlib import Path

from millrace.errors import InvalidField
from millrace.registry.folders import FolderCache
from millrace.registry.mlflow_process import TIMEOUT_S, MlflowProcess
from millrace.settings import MlflowSettings, home

# A rollback to any of the last ten champions is live without a download (design, section 6).
KEPT = 10


def default_directory(model_name: str) -> Path:
    """Where versions of a model are kept on this machine."""
    return home() / "models" / model_name


class ModelCache:
    """Versions of one model in a folder that is called like the model.

    MLflow is never imported here: its import holds the interpreter's lock for seconds, so a version is fetched by a
    process of its own (``python -m millrace.registry.transfer``). A version becomes visible complete or not at all;
    several processes may share the folder.

    Parameters
    ----------
    directory
        The folder; its last part is the registered model's name.
    mlflow
        Where MLflow is; None: as the environment of the fetching process says.
    keep
        Versions kept, the most recently ensured ones.
    timeout_s
        Longest time of one download, seconds.
    """

    def __init__(
        self, directory: Path, mlflow: MlflowSettings | None = None, keep: int = KEPT, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.directory = directory
        self._mlflow = mlflow
        self._timeout_s = timeout_s
        self._folders = FolderCache(directory, _is_version, keep)

    def path(self, version: str) -> Path | None:
        """The folder of a version; None if it is not here."""
        return self._folders.path(_checked(version))

    def versions(self) -> list[str]:
        """Versions on disk, the most recently ensured first."""
        return self._folders.names()

    def ensure(self, version: str) -> Path:
        """The folder of a version, fetched from MLflow unless it is here. Blocks for seconds: call it in a thread.

        Raises
        ------
        InfrastructureError
            MLflow is away, does not know the version, or did not deliver in time; nothing has changed on disk.
        """
        return self._folders.ensure(_checked(version), lambda folder: self._fetch(version, folder))

    def _fetch(self, version: str, into: Path) -> None:
        name = self.directory.name
        MlflowProcess(
            f"fetching version {version} of {name}",
            "millrace.registry.transfer",
            ["fetch-version", "--model", name, "--version", version, "--into", str(into)],
            self._mlflow,
            self._timeout_s,
        ).wait()


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _checked(version: str) -> str:
    """The version, which becomes part of a path: MLflow numbers versions from 1."""
    if not _is_version(version):
        raise InvalidField("model_version", repr(version), "a number as the registry gives it")
    return version

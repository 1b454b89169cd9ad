"""Versions of a model on this machine's disk, so that serving starts and rolls back without MLflow."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from millrace.errors import InfrastructureError, InvalidField
from millrace.settings import MlflowSettings, home

# A rollback to any of the last ten champions is live without a download (design, section 6).
KEPT = 10

_INCOMING = ".incoming-"
# A download that was killed leaves its folder behind. No download lives for an hour: FETCH_TIMEOUT_S ends it.
_ABANDONED_AFTER_S = 3_600.0
# `import mlflow` takes 2-6 s of it on a busy small machine, 50 MB of parameters (the most there may be) a few more.
FETCH_TIMEOUT_S = 60.0


def default_directory(model_name: str) -> Path:
    """Where versions of a model are kept on this machine."""
    return home() / "models" / model_name


class ModelCache:
    """Versions of one model in a folder that is called like the model.

    MLflow is never imported here: its import takes seconds and holds the interpreter's lock, so a version is
    fetched by a process of its own (``python -m millrace.registry.fetch``). A version becomes visible by one
    rename, complete or not at all; several processes may share the folder.

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
        self,
        directory: Path,
        mlflow: MlflowSettings | None = None,
        keep: int = KEPT,
        timeout_s: float = FETCH_TIMEOUT_S,
    ) -> None:
        self.directory = directory
        self.mlflow = mlflow
        self.keep = keep
        self.timeout_s = timeout_s

    def path(self, version: str) -> Path | None:
        """The folder of a version; None if it is not here."""
        folder = self.directory / _checked(version)
        return folder if folder.is_dir() else None

    def versions(self) -> list[str]:
        """Versions on disk, the most recently ensured first."""
        if not self.directory.is_dir():
            return []
        folders = [folder for folder in self.directory.iterdir() if folder.name.isdigit()]
        return [folder.name for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)]

    def ensure(self, version: str) -> Path:
        """The folder of a version, fetched from MLflow unless it is here. Blocks for seconds: call it in a thread.

        Raises
        ------
        InfrastructureError
            MLflow is away, does not know the version, or did not deliver in time; nothing has changed on disk.
        """
        folder = self.directory / _checked(version)
        if not folder.is_dir():
            self._fetch(version, folder)
        os.utime(folder)
        self._prune()
        return folder

    def _fetch(self, version: str, folder: Path) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        incoming = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self.directory))
        try:
            self._run_fetch(version, incoming)
            _sync(incoming)
            # Fails when another process was faster (the folder is there and not empty): its copy is as good.
            with contextlib.suppress(OSError):
                incoming.rename(folder)
            if not folder.is_dir():
                raise InfrastructureError("mlflow", f"version {version} could not be put into {folder}")
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def _run_fetch(self, version: str, into: Path) -> None:
        command = [sys.executable, "-m", "millrace.registry.fetch"]
        command += ["--model", self.directory.name, "--version", version, "--into", str(into)]
        environment = dict(os.environ)
        if self.mlflow is not None:
            environment["MLFLOW_TRACKING_URI"] = self.mlflow.tracking_uri
            environment["MLFLOW_TIMEOUT_MS"] = str(self.mlflow.timeout_ms)
        try:
            subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=self.timeout_s,
                check=True,
                text=True,
            )
        except subprocess.TimeoutExpired as error:
            problem = f"version {version} of {self.directory.name} did not arrive within {self.timeout_s:g} s"
            raise InfrastructureError("mlflow", problem) from error
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines()
            reason = lines[-1] if lines else f"exit status {error.returncode}"
            problem = f"version {version} of {self.directory.name} could not be fetched: {reason}"
            raise InfrastructureError("mlflow", problem) from error

    def _prune(self) -> None:
        for version in self.versions()[self.keep :]:
            shutil.rmtree(self.directory / version, ignore_errors=True)
        for folder in self.directory.glob(f"{_INCOMING}*"):
            with contextlib.suppress(FileNotFoundError):  # its own process is done with it
                if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S:
                    shutil.rmtree(folder, ignore_errors=True)


def _checked(version: str) -> str:
    """The version, which becomes part of a path: MLflow numbers versions from 1."""
    if not (version.isascii() and version.isdigit()):
        raise InvalidField("model_version", repr(version), "a number as the registry gives it")
    return version


def _sync(folder: Path) -> None:
    """Files reach the disk before the rename that shows them: a power cut leaves no empty version behind."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())

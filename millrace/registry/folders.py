"""Folders on this machine's disk that appear complete or not at all, and of which the newest are kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_INCOMING = ".incoming-"
# A fill that was killed leaves its folder behind. None lives for an hour.
_ABANDONED_AFTER_S = 3_600.0


class FolderCache:
    """Folders inside one folder.

    A folder becomes visible by one rename. Several processes may share the cache: while one fills a folder, the
    others that want one wait for it, and find theirs filled or fill it themselves.

    Parameters
    ----------
    directory
        Where they are; made when the first comes.
    is_name
        Whether a name may become a path here.
    keep
        How many are kept, the most recently ensured ones.
    """

    def __init__(self, directory: Path, is_name: Callable[[str], bool], keep: int) -> None:
        self.directory = directory
        self.keep = keep
        self._is_name = is_name

    def path(self, name: str) -> Path | None:
        """The folder; None if it is not here."""
        folder = self.directory / name
        return folder if self._is_name(name) and folder.is_dir() else None

    def names(self) -> list[str]:
        """What is here, the most recently ensured first."""
        if not self.directory.is_dir():
            return []
        folders = [folder for folder in self.directory.iterdir() if self._is_name(folder.name)]
        return [folder.name for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)]

    def ensure(self, name: str, fill: Callable[[Path], None]) -> Path:
        """The folder, filled first unless it is here; whatever ``fill`` raises leaves nothing behind."""
        folder = self.directory / name
        if not folder.is_dir():
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._alone():
                if not folder.is_dir():
                    self._fill(folder, fill)
        os.utime(folder)
        self._prune()
        return folder

    def drop(self, name: str) -> None:
        """Remove a folder, in one step for everybody who looks."""
        with contextlib.suppress(FileNotFoundError):
            gone = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self.directory))
            with contextlib.suppress(FileNotFoundError):
                (self.directory / name).rename(gone / name)
            shutil.rmtree(gone, ignore_errors=True)

    def _fill(self, folder: Path, fill: Callable[[Path], None]) -> None:
        incoming = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self.directory))
        try:
            fill(incoming)
            _sync(incoming)
            incoming.rename(folder)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        handle = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _prune(self) -> None:
        for name in self.names()[self.keep :]:
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for folder in self.directory.glob(f"{_INCOMING}*"):
            with contextlib.suppress(FileNotFoundError):  # its own process is done with it
                if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S:
                    shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Files reach the disk before the rename that shows them: a power cut leaves no empty folder behind."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())

"""Jars that are there stay, missing and damaged ones are fetched: on artifacts that need no network."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.embedded.jars import fetch


@dataclass
class Artifact:
    """What jgo gives for a jar; ``resolve`` fetches only what is not there, as jgo's does."""

    cached_path: Path
    fetches: int = field(default=0)
    comes_damaged: bool = False

    def resolve(self) -> Path:
        if not self.cached_path.exists():
            self.fetches += 1
            if self.comes_damaged:
                self.cached_path.write_bytes(b"not a jar")
            else:
                with zipfile.ZipFile(self.cached_path, "w") as jar:
                    jar.writestr("A.class", bytes(10_000))
        return self.cached_path


def test_only_missing_and_damaged_jars_are_fetched(tmp_path: Path) -> None:
    missing, whole, cut = (Artifact(tmp_path / name) for name in ("missing.jar", "whole.jar", "cut.jar"))
    whole.resolve()
    cut.resolve()
    # A download that was killed: the beginning of the file is there.
    cut.cached_path.write_bytes(cut.cached_path.read_bytes()[:40])
    said: list[str] = []

    assert list(fetch([missing, whole, cut], said.append)) == [
        missing.cached_path,
        whole.cached_path,
        cut.cached_path,
    ]
    assert (missing.fetches, whole.fetches, cut.fetches) == (1, 1, 2)
    assert all(zipfile.is_zipfile(path) for path in tmp_path.iterdir())
    assert [line.partition(" (")[0] for line in said] == [
        "resolving Kafka's jars: 1 of 2",
        "resolving Kafka's jars: 2 of 2",
    ]


def test_a_jar_that_comes_damaged_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(zipfile.BadZipFile, match=r"bad\.jar is damaged"):
        list(fetch([Artifact(tmp_path / "bad.jar", comes_damaged=True)], lambda line: None))

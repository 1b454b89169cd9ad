"""The cache of versions, without a registry: what is on disk, what stays, what never shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from millrace.errors import InfrastructureError, InvalidField
from millrace.ranking.first import first_ranker
from millrace.registry.cache import ModelCache, default_directory
from millrace.settings import MlflowSettings
from tests.processes import PATIENCE_S

AWAY = MlflowSettings(tracking_uri="http://127.0.0.1:1", timeout_ms=1_000)


def put(cache: ModelCache, version: str, at: float) -> None:
    folder = cache.directory / version
    first_ranker().save(folder)
    os.utime(folder, (at, at))


def test_what_is_on_disk_needs_no_registry(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "ranker", AWAY)
    assert cache.path("1") is None
    assert cache.versions() == []
    put(cache, "1", at=1)
    assert cache.ensure("1") == cache.path("1") == tmp_path / "ranker" / "1"


def test_without_the_registry_a_missing_version_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "ranker", AWAY)
    with pytest.raises(
        InfrastructureError, match=r"mlflow: fetching version 3 of ranker failed: .* http://127\.0\.0\.1:1"
    ):
        cache.ensure("3")
    assert list(cache.directory.iterdir()) == []


def test_a_download_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "ranker", AWAY, timeout_s=0.01)
    with pytest.raises(InfrastructureError, match=r"fetching version 3 of ranker took longer than 0\.01 s"):
        cache.ensure("3")
    assert list(cache.directory.iterdir()) == []


def test_the_versions_ensured_last_are_kept(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "ranker", AWAY, keep=2)
    for version, at in (("1", 30.0), ("2", 10.0), ("3", 20.0)):
        put(cache, version, at)
    assert cache.versions() == ["1", "3", "2"]
    cache.ensure("2")
    assert cache.versions() == ["2", "1"]


def test_remains_of_a_killed_download_are_invisible_and_go_away(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "ranker", AWAY)
    put(cache, "1", at=1)
    for name, at in ((".incoming-old", 1.0), (".incoming-young", None)):
        (cache.directory / name).mkdir()
        if at is not None:
            os.utime(cache.directory / name, (at, at))
    assert cache.versions() == ["1"]
    cache.ensure("1")
    assert sorted(folder.name for folder in cache.directory.iterdir()) == [".incoming-young", "1"]


@pytest.mark.parametrize("version", ["", "../1", "1/..", "v1", "1\n", "²"])
def test_only_numbers_become_paths(tmp_path: Path, version: str) -> None:
    with pytest.raises(InvalidField, match="model_version"):
        ModelCache(tmp_path / "ranker", AWAY).ensure(version)


def test_the_default_folder_is_called_like_the_model(millrace_home: Path) -> None:
    assert default_directory("ranker") == millrace_home / "models" / "ranker"


def test_neither_cache_nor_decisions_import_mlflow() -> None:
    """The serving process and `millrace models` stay free of an import that takes seconds."""
    modules = "millrace.registry.cache, millrace.registry.asking, millrace.registry.controller, millrace.cli.models"
    check = f"import sys, {modules}; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False, timeout=PATIENCE_S).returncode == 0

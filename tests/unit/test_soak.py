"""The parts of a soak: intervals that hold what they promise, rules, samples of real processes, the document."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from benchmarks.soak import figures
from benchmarks.soak.__main__ import RESULTS
from benchmarks.soak.document import DOCUMENT, NOT_MEASURED, groups, processes, write
from benchmarks.soak.figures import Slope
from benchmarks.soak.samples import ProcessSamples, Soak, load, save

AT_S = [5.0 * number for number in range(120)]
GROWTH = 12.0  # an hour


def memory(random: np.random.Generator, rho: float) -> npt.NDArray[np.float64]:
    """Memory that grows, with noise that resembles what came before it."""
    noise = random.normal(size=len(AT_S)) * (1 - rho**2) ** 0.5
    for place in range(1, len(noise)):
        noise[place] += rho * noise[place - 1]
    grown: npt.NDArray[np.float64] = 100 + GROWTH * np.array(AT_S) / 3600 + noise
    return grown


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_intervals_hold_the_truth_also_where_samples_resemble_each_other(rho: float) -> None:
    """95 % promised. That 92 % are seen of 500 where it is 95 happens in two of 1,000 such tests."""
    random = np.random.default_rng(11)
    found = [figures.slope(AT_S, memory(random, rho).tolist()) for _ in range(500)]
    assert np.mean([one.low < GROWTH < one.high for one in found]) > 0.92


def test_a_line_without_noise_is_known_exactly() -> None:
    level = figures.slope(AT_S, [7.0] * len(AT_S))
    assert (level.low, level.per_hour, level.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)
    found = figures.slope(AT_S, (GROWTH * np.array(AT_S) / 3600).tolist())
    assert found.per_hour == pytest.approx(GROWTH)
    assert found.high - found.low < 1e-6


def test_rules() -> None:
    assert figures.memory(Slope(5.0, 1.0, 9.0), 100.0) == "flat"
    assert figures.memory(Slope(5.0, -9.0, 19.0), 100.0) == "unclear"
    assert figures.memory(Slope(15.0, 11.0, 19.0), 100.0) == "grows"
    assert figures.descriptors([20] * 30 + [22] * 10) == "flat"
    assert figures.descriptors(list(range(20, 60))) == "grows"
    assert figures.lag([100, 0, 40, 90, 30, 10]) == "flat"
    assert figures.lag([10 * number for number in range(100)]) == "grows"


def test_a_process_is_sampled_with_those_that_it_started() -> None:
    alone, together = ProcessSamples(), ProcessSamples()
    child = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    alone.take(os.getpid())
    with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        together.take(os.getpid())
    assert together.pss_mib[0] <= together.rss_mib[0]
    assert together.descriptors[0] >= alone.descriptors[0] + 3
    assert together.threads[0] > alone.threads[0] - 1
    assert (together.pids, len(together.rss_mib)) == ([os.getpid()], 1)
    with pytest.raises(psutil.NoSuchProcess):
        together.take(process.pid)


def a_soak(growth: float) -> Soak:
    soak = Soak("2026-11-27", "a machine", 10.0, 60.0)
    noise = np.random.default_rng(3).normal(size=40)
    for number in range(40):
        soak.take(5.0 * number, {}, {"updater": 10 + number % 3, **({"late": 5} if number > 20 else {})})
    soak.processes["steady"] = ProcessSamples([1], [51.0] * 40, (50 + 0.01 * noise).tolist(), [9] * 40, [4] * 40)
    leaking = (50 + growth * np.array(soak.at_s) / 3600 + 0.01 * noise).tolist()
    soak.processes["leaking"] = ProcessSamples([2], [51.0] * 40, leaking, [9] * 40, [4] * 40)
    soak.processes["again"] = ProcessSamples([3, 4], [51.0] * 40, [50.0] * 40, [9] * 40, [4] * 40)
    return soak


def test_what_is_kept_comes_back_and_what_grows_stands_out(tmp_path: Path) -> None:
    soak = a_soak(growth=60.0)
    save(soak, tmp_path / "soak.json")
    assert load(tmp_path / "soak.json") == soak
    assert [line.verdict for line in processes(soak)] == ["flat", "grows", "grows"]
    assert [line.verdict for line in groups(soak)] == ["flat", "flat"]
    assert soak.lag["late"][:22] == [0] * 21 + [5]
    write(soak, tmp_path / "soak.md")
    text = (tmp_path / "soak.md").read_text()
    assert "| leaking | 52 | 51 | +" in text
    assert "**grows**" in text
    assert (tmp_path / "soak" / "soak.svg").exists()


def test_the_page_is_what_the_results_say(tmp_path: Path) -> None:
    write(load(RESULTS), tmp_path / "soak.md")
    assert DOCUMENT.read_text() == (tmp_path / "soak.md").read_text(), "python -m benchmarks.soak --document-only"
    write(None, tmp_path / "nothing.md")
    assert NOT_MEASURED in (tmp_path / "nothing.md").read_text()

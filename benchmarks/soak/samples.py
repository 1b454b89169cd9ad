"""What a soak keeps: samples of each process and each group, as they were taken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

KIB_A_MIB = 1024


@dataclass(slots=True)
class ProcessSamples:
    """Of a process together with those that it started, one value a sample.

    Attributes
    ----------
    rss_mib, pss_mib
        Resident memory; in the second, pages that processes share are shared out among them.
    pids
        More than one if it was started anew.
    """

    pids: list[int] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    pss_mib: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def take(self, pid: int) -> None:
        """Look at the process now.

        Raises
        ------
        psutil.NoSuchProcess
            It is gone.
        """
        main = psutil.Process(pid)
        rss = pss = 0.0
        open_now = threads = 0
        for one in (main, *main.children(recursive=True)):
            # One that it started may end while it is looked at.
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                memory = _memory_kib(one.pid)
                rss += memory["Rss"] / KIB_A_MIB
                pss += memory["Pss"] / KIB_A_MIB
                open_now += one.num_fds()
                threads += one.num_threads()
        if pid not in self.pids:
            self.pids.append(pid)
        self.rss_mib.append(round(rss, 2))
        self.pss_mib.append(round(pss, 2))
        self.descriptors.append(open_now)
        self.threads.append(threads)


@dataclass(slots=True)
class Soak:
    """A whole soak.

    Attributes
    ----------
    pages_per_s
        What simulated shoppers look at.
    warm_up_s
        Time before the first sample.
    at_s
        Time of each sample, seconds from the first.
    lag
        Records that each group has not committed yet, a value a sample.
    """

    measured_on: str
    machine: str
    pages_per_s: float
    warm_up_s: float
    at_s: list[float] = field(default_factory=list)
    processes: dict[str, ProcessSamples] = field(default_factory=dict)
    lag: dict[str, list[int]] = field(default_factory=dict)

    def take(self, at_s: float, pids: Mapping[str, int], lag: Mapping[str, int]) -> None:
        """Take a sample of each process, and of each group's lag."""
        for name, pid in pids.items():
            self.processes.setdefault(name, ProcessSamples()).take(pid)
        for group, records in lag.items():
            # A group that was not there before had nothing to read.
            self.lag.setdefault(group, [0] * len(self.at_s)).append(records)
        self.at_s.append(round(at_s, 1))
        for records_of in self.lag.values():
            records_of += [0] * (len(self.at_s) - len(records_of))


def save(soak: Soak, file: Path) -> None:
    """Write it, a line for each list."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = asdict(soak)
    lines = [f"{json.dumps(name)}: {_plain(value)}" for name, value in content.items()]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def load(file: Path) -> Soak | None:
    """What was saved; None if nothing was."""
    if not file.exists():
        return None
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    processes = {name: ProcessSamples(**one) for name, one in content.pop("processes").items()}
    return Soak(**content, processes=processes)


def _plain(value: object) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{\n" + ",\n".join(f" {json.dumps(name)}: {json.dumps(one)}" for name, one in value.items()) + "\n}"


def _memory_kib(pid: int) -> Mapping[str, int]:
    """``Rss`` and ``Pss`` of one process, KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    lines = (line.split() for line in text.splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) for words in lines}

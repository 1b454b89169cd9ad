"""``python -m benchmarks.soak``: run the pipeline, sample it, write what was found."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import psutil

from benchmarks.environment import Say
from benchmarks.processor_time import home_of_its_own
from benchmarks.report import machine
from benchmarks.soak.document import DOCUMENT, groups, processes, write
from benchmarks.soak.samples import Soak, load, save
from deploy.embedded import scrape
from deploy.embedded.member import log_tail
from deploy.embedded.pipeline import PROCESSES, SIMULATE, Pipeline, pipeline
from deploy.embedded.supervision import DEAD_STATES
from millrace.cli._embedded import interrupt_on_sigterm, progress, require_embedded
from millrace.cli._output import quiet_logs
from millrace.errors import MillraceError
from millrace.inspection.lag import LagWatch
from millrace.settings import home, settings

RESULTS = Path(__file__).parents[1] / "results" / "soak.json"
WARM_UP_SHARE, WARM_UP_MIN_S = 0.2, 60.0
"""Before the first sample: tables fill, code is compiled, the JVM takes its heap."""
START_TIMEOUT_S = 600.0
"""On a machine that others keep busy; what crashes is noticed at once."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.2),
    default=10.0,
    show_default=True,
    envvar="SOAK_MINUTES",
    show_envvar=True,
    help="How long it is sampled, after a warm-up of a fifth of that, and at least a minute.",
)
@click.option("--rate", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Pages per second.")
@click.option("--every", type=click.FloatRange(min=0.5), default=5.0, show_default=True, help="Seconds a sample.")
@click.option("--document-only", is_flag=True, help="Run nothing; write docs/soak.md from the results.")
def main(minutes: float, rate: float, every: float, document_only: bool) -> None:
    """Run the whole pipeline with simulated shoppers and look whether memory, descriptors or lag grow.

    Writes benchmarks/results/soak.json, docs/soak.md and its plot. Exit status 1 if something grows or was started
    anew. It runs in a folder of its own, which is gone afterwards; Ctrl-C stops all of it and writes nothing.
    """
    if document_only:
        write(load(RESULTS))
        return
    require_embedded()
    quiet_logs()
    interrupt_on_sigterm()
    try:
        with progress() as say:
            soak = run(minutes, rate, every, say)
    except KeyboardInterrupt:
        click.echo("stopped before its time: nothing was written", err=True)
        sys.exit(130)
    except (MillraceError, psutil.NoSuchProcess) as error:
        raise click.ClickException(str(error)) from error
    save(soak, RESULTS)
    write(soak)
    found = [*processes(soak), *groups(soak)]
    for line in found:
        click.echo(line.text)
    click.echo(f"written: {RESULTS}, {DOCUMENT}")
    sys.exit(any(line.verdict == "grows" for line in found))


def run(minutes: float, rate: float, every_s: float, say: Say) -> Soak:
    """A soak of the pipeline.

    Raises
    ------
    MillraceError
        A part does not come up, or ended.
    """
    warm_up_s = max(WARM_UP_MIN_S, minutes * 60 * WARM_UP_SHARE)
    soak = Soak(time.strftime("%Y-%m-%d", time.gmtime()), machine(), rate, warm_up_s)
    with home_of_its_own(), pipeline(settings(), rate, say) as running:
        _wait_ready(running, say)
        members = {member.name: member.pid for member in running.stack.status()}
        groups_of = LagWatch(running.kafka)
        _say_until(time.monotonic() + warm_up_s, every_s, "warm-up", say)
        began, number = time.monotonic(), 0
        while time.monotonic() < began + minutes * 60 + every_s / 2:
            pids = members | {name: info.pid for name, info in running.supervisor.processes().items()}
            if dead := [name for name, pid in pids.items() if not pid]:
                raise _ended(running, dead)
            soak.take(time.monotonic() - began, pids, _lag(groups_of))
            number += 1
            say(_summary(soak, minutes))
            time.sleep(max(0.0, began + number * every_s - time.monotonic()))
        say("stopping")
    return soak


def _lag(watch: LagWatch) -> Mapping[str, int]:
    """Records that each group has not committed."""
    lag: Counter[str] = Counter()
    for (group, _topic, _partition), standing in watch.look().standings.items():
        lag[group] += standing.lag
    return lag


def _summary(soak: Soak, minutes: float) -> str:
    memory = sum(one.pss_mib[-1] for one in soak.processes.values())
    more = memory - sum(one.pss_mib[0] for one in soak.processes.values())
    group, most = max(((name, records[-1]) for name, records in soak.lag.items()), key=lambda at: at[1])
    at = f"{soak.at_s[-1] / 60:.1f} of {minutes:g} min"
    return f"{at}: {memory:,.0f} MiB in all ({more:+.1f}), most lag {most} ({group})"


def _wait_ready(running: Pipeline, say: Say) -> None:
    """Until every process says that it does its work."""
    give_up = time.monotonic() + START_TIMEOUT_S
    while True:
        if dead := [name for name, info in running.supervisor.processes().items() if info.state in DEAD_STATES]:
            raise _ended(running, dead)
        ready = {one.process for one in scrape.all_announcements(home() / "run") if scrape.readiness(one.metrics)[0]}
        missing = [name for name in (*PROCESSES, SIMULATE) if name not in ready]
        if not missing:
            return
        if time.monotonic() > give_up:
            raise MillraceError(f"not ready after {START_TIMEOUT_S:g} s: {', '.join(missing)}")
        say(f"waiting for {', '.join(missing)}")
        time.sleep(1.0)


def _ended(running: Pipeline, names: Sequence[str]) -> MillraceError:
    """The folder with the logs is gone afterwards: the end of the first one's goes with the error."""
    return MillraceError(f"{', '.join(names)} ended; the end of the log:\n{log_tail(running.log(names[0]))}")


def _say_until(end: float, every_s: float, what: str, say: Say) -> None:
    while (left_s := end - time.monotonic()) > 0:
        say(f"{what}: {left_s:.0f} s left")
        time.sleep(min(every_s, left_s))


if __name__ == "__main__":
    main()

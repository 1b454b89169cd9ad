"""The training job: a version from scratch, with the story of how it came about, and the gates' verdict.

    outcomes (window) ──► disk ──► search, fit, measure ──► files ──► MLflow run ──► gates ──► version

The version is made at the very end, with all of its tags: before that there is a run and nothing else. A job that is
killed leaves no version; started again with the same id it begins anew, or finds what it made.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import structlog

from millrace.drift.storing import REFERENCE_FILE
from millrace.errors import MillraceError
from millrace.evaluation import plots
from millrace.learning.state import STATE_FILE, LearnerState
from millrace.ranking.features import FEATURE_NAMES, FEATURE_SCHEMA
from millrace.ranking.first import first_ranker
from millrace.ranking.model import RankingModel
from millrace.registry.code_version import code_version
from millrace.registry.gates import Gate, gate_tags
from millrace.registry.journal import read_ledger
from millrace.registry.ledger import Ledger
from millrace.registry.ranking_flavor import describe
from millrace.registry.registry import ARTIFACT_PATH, CODE_TAG, SCHEMA_TAG, SHA256_TAG, SINCE_TAG, Registry
from millrace.registry.training_runs import TrainingRun
from millrace.registry.view import RegisteredVersion
from millrace.settings import DAY_MS, Settings, home
from millrace.stream.fenced import TIMEOUT_S
from millrace.stream.reader import TopicReader
from millrace.stream.window import Window, check_window
from millrace.topics import MODEL_EVENTS, OUTCOMES
from millrace.training import drawings, fit, gates, golden
from millrace.training.change import count, enough, place
from millrace.training.intake import Intake, NotEnough
from millrace.training.measure import ALL, Line, Measured, measure
from millrace.training.reference import count_values, known_from, reference_since, settled_before
from millrace.training.slots import SlotFile
from workers.retrain_orchestrator.contenders import champion_before, popularity
from workers.retrain_orchestrator.progress import Progress
from workers.retrain_orchestrator.reading import newest_window, read
from workers.retrain_orchestrator.scratch import scratch
from workers.retrain_orchestrator.signals import Cancellation
from workers.retrain_orchestrator.training_erasures import Erasures
from workers.retrain_orchestrator.training_note import note

log = structlog.stdlib.get_logger(__name__)

NEW, CHAMPION, POPULARITY = "new", "champion", "popularity"
SINCE = "since_ms"
"""Parameter of a run, and word of its ``input.json``."""

GOLDEN_ROWS = 1_000
"""Logged slots that the loaded version has to score as the trained one does."""
PROBE_TIMEOUT_S = 600.0
"""Loading takes two seconds, and compiling what answers requests a minute, the first time on a machine; on one where
others keep all cores busy it took two."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a job is to do.

    Attributes
    ----------
    step_id
        Names the job; a version that it has made already is not made again.
    window
        The input; None: the outcomes of the time that the settings say.
    since_ms
        What was served since then is of the changed world, Unix milliseconds; 0 if nothing changed.
    """

    model_name: str
    step_id: str
    reason: str
    seed: int = 0
    window: Window | None = None
    since_ms: int = 0


@dataclass(frozen=True)
class Trained:
    """A fitted model, and what it was measured by."""

    state: LearnerState
    search: fit.Search
    measured: Measured
    # Whom the gates compare it with, and how people call it.
    against: str
    against_name: str
    parts: fit.Parts
    # Labels of what was served before are all known.
    settled_ms: int


def train(settings: Settings, asked: Asked, cancellation: Cancellation) -> RegisteredVersion:
    """Train and register a version.

    Raises
    ------
    NotEnough, UnusableData
        See there; the run in MLflow says so too.
    InfrastructureError, MillraceError
        Kafka, Redis or MLflow does not answer, or something that only a person can mend.
    """
    plots.check()
    registry = Registry(settings.mlflow)
    made = registry.view(asked.model_name).made_by(asked.step_id)
    if made is not None:
        log.info("made already", version=made.version)
        return made
    with TopicReader(settings.kafka, [MODEL_EVENTS], "beginning", settings.stream) as reader:
        ledger = read_ledger(asked.model_name, reader, TIMEOUT_S)
    if ledger.reign is None:
        raise MillraceError(f"model {asked.model_name!r} has no champion yet; start the retrain orchestrator first")
    window = _window(settings, asked)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(home()))
        with cancellation.held():
            tags = {CODE_TAG: code_version(), SCHEMA_TAG: FEATURE_SCHEMA}
            begun = TrainingRun(registry, asked.model_name, asked.step_id, asked.reason, tags)
            run = stack.enter_context(begun)
        return _Job(settings, asked, cancellation, registry, ledger, window, run, folder).do()


class _Job:
    """One job under way, once its run has begun."""

    def __init__(
        self,
        settings: Settings,
        asked: Asked,
        cancellation: Cancellation,
        registry: Registry,
        ledger: Ledger,
        window: Window,
        run: TrainingRun,
        folder: Path,
    ) -> None:
        self._settings, self._ours, self._asked = settings, settings.training, asked
        self._cancellation, self._registry, self._ledger = cancellation, registry, ledger
        self._window, self._run, self._folder = window, run, folder
        self._progress = Progress(cancellation.check)
        # When the first and the last outcome of the window were appended, Unix milliseconds.
        self._span_ms: tuple[int, int] | None = None
        # Outcomes from before their user's erasure: not learned.
        self._forgotten = 0

    def do(self) -> RegisteredVersion:
        self._describe()
        with SlotFile(self._folder / "slots", len(FEATURE_NAMES)) as slots:
            intake = self._read(slots)
            trained = self._fit(slots)
            files = self._files(slots, trained, intake)
            self._progress.begin("storing")
            digest = trained.state.model.save(files / ARTIFACT_PATH)
            describe(files / ARTIFACT_PATH, trained.state.model)
            self._run.files(files)
            verdicts = self._gates(slots, trained)
        self._run.note(self._note(trained, intake, verdicts))
        for gate in verdicts:
            (log.info if gate.passed else log.warning)("gate", gate=gate.name, passed=gate.passed, reason=gate.reason)
        tags = {SHA256_TAG: digest, SCHEMA_TAG: FEATURE_SCHEMA, CODE_TAG: code_version()}
        if self._asked.since_ms:
            tags[SINCE_TAG] = str(self._asked.since_ms)
        with self._cancellation.held(last=True):
            return self._run.register(tags | gate_tags(verdicts))

    def _describe(self) -> None:
        bounds = self._window.bounds
        self._run.params(
            {
                "seed": self._asked.seed,
                "feature_schema": FEATURE_SCHEMA,
                "features": len(FEATURE_NAMES),
                "champion": self._ledger.champion,
                "code_version": code_version(),
                **({SINCE: self._asked.since_ms} if self._asked.since_ms else {}),
                "input_topic_id": self._window.topic_id,
                **{f"input_{number}": f"{start}-{end}" for number, (start, end) in sorted(bounds.items())},
                **{f"setting_{name}": value for name, value in self._ours.model_dump().items()},
            }
        )

    def _read(self, slots: SlotFile) -> Intake:
        """The window's slots to disk."""
        self._progress.begin("reading outcomes", self._window.offsets)
        with Erasures(self._settings) as erasures:
            found = read(self._settings, self._window, self._folder, slots, erasures.of, self._progress.did)
        self._span_ms, self._forgotten = found.span_ms, found.forgotten
        found.intake.check()
        if self._span_ms is not None:
            self._run.params({"input_from_ms": self._span_ms[0], "input_to_ms": self._span_ms[1]})
        return found.intake

    def _fit(self, slots: SlotFile) -> Trained:
        parts = self._parts(slots)
        did, passes = self._progress.did, self._ours.passes_max
        self._progress.begin("searching", fit.search_work(parts, passes))
        found = fit.search(slots, parts, first_ranker(), passes, did)
        log.info("chosen", candidate=found.chosen.name, log_loss=round(found.losses[found.chosen], 5))
        self._progress.begin("fitting", (found.chosen.passes + 2) * parts.choosing)
        new = Line(fit.fit(found.chosen, slots, parts.choosing, first_ranker(), did, parts.change))
        contenders = {NEW: new, POPULARITY: popularity(slots, parts.choosing, did)}
        champion = champion_before(self._registry, self._ledger, slots, parts.choosing, self._folder / CHAMPION, did)
        if champion is not None:
            contenders[CHAMPION] = champion
        self._progress.begin("measuring", len(contenders) * (parts.newest - parts.choosing))
        settled_ms = settled_before(slots, self._settings.joiner.attribution_window_ms)
        known_ms = known_from(slots, parts.choosing) if parts.change else 0, settled_ms
        measured = measure(contenders, slots, parts.choosing, parts.newest, did, known_ms)
        learned = {number: end for number, (_, end) in self._window.bounds.items()}
        return Trained(
            state=new.ranker.state(0, learned, self._window.topic_id),
            search=found,
            measured=measured,
            against=CHAMPION if champion is not None else POPULARITY,
            against_name=f"champion {self._ledger.champion}" if champion is not None else POPULARITY,
            parts=parts,
            settled_ms=settled_ms,
        )

    def _parts(self, slots: SlotFile) -> fit.Parts:
        """Where the window's parts end: those of what came since the change, if there was one."""
        since_ms = self._asked.since_ms
        change = place(slots, since_ms) if since_ms else 0
        parts = fit.Parts.of(len(slots), self._ours.newest_share, change)
        if not count(slots, parts.choosing)[0]:
            raise NotEnough(f"next to nothing of topic {OUTCOMES.name} was served since the change: wait for more")
        if since_ms:
            log.info("learns a changed world", since_ms=since_ms, slots=len(slots) - change, of=len(slots))
        return parts

    def _files(self, slots: SlotFile, trained: Trained, intake: Intake) -> Path:
        """Everything that the run keeps but the weights, in a folder; metrics go to the run."""
        files = self._folder / "files"
        (files / ARTIFACT_PATH).mkdir(parents=True)
        self._progress.begin("counting features", len(slots))
        values = count_values(slots, trained.parts.choosing, trained.state.model, self._progress.did)
        since_ms = self._asked.since_ms if trained.parts.change else 0
        reference = reference_since(slots, values, trained.measured.hours[NEW], trained.settled_ms, since_ms)
        (files / ARTIFACT_PATH / REFERENCE_FILE).write_bytes(reference.to_bytes())
        (files / ARTIFACT_PATH / STATE_FILE).write_bytes(trained.state.to_bytes())
        measured, seed = trained.measured, self._asked.seed
        drawings.draw_calibration(files / "plots" / "calibration.png", measured, list(measured.losses))
        others = {trained.against: trained.against_name, POPULARITY: POPULARITY}
        drawings.draw_lift(files / "plots" / "lift-by-segment.png", measured, NEW, others, gates.LEVEL, seed)
        if values:
            drawings.draw_moved(files / "plots" / "feature-drift.png", values)
        candidates = [{**asdict(one), "log_loss": loss} for one, loss in trained.search.losses.items()]
        _write(files / "candidates.json", {"chosen": asdict(trained.search.chosen), "compared": candidates})
        _write(files / "input.json", self._window.words() | {SINCE: self._asked.since_ms})
        self._run.params({f"chosen_{name}": value for name, value in asdict(trained.search.chosen).items()})
        self._run.metrics(
            {
                **_figures(trained, seed),
                "outcomes": intake.outcomes,
                "examples": intake.examples,
                "clicks": intake.clicks,
                "outcomes_refused": intake.refused.total(),
                "outcomes_forgotten": self._forgotten,
                "outcomes_of_another_schema": intake.foreign.total(),
                **{f"moved_{each.name}": each.moved() for each in values},
            }
        )
        return files

    def _gates(self, slots: SlotFile, trained: Trained) -> list[Gate]:
        self._progress.begin("at the gates")
        measured, seed = trained.measured, self._asked.seed
        return [
            enough(slots, trained.parts, self._ours),
            *self._probe(slots, trained.state.model),
            gates.better(measured, NEW, trained.against, self._ours, seed, trained.against_name),
            gates.segments(measured, NEW, trained.against, self._ours, seed),
        ]

    def _note(self, trained: Trained, intake: Intake, verdicts: Sequence[Gate]) -> str:
        names = {NEW: "this version", CHAMPION: f"champion, version {self._ledger.champion}"}
        chosen, champion = trained.search.chosen.name, self._ledger.champion
        why, since_ms, measured = self._asked.reason, self._asked.since_ms, trained.measured
        return note(why, champion, intake, self._span_ms, since_ms, chosen, measured, names, verdicts)

    def _probe(self, slots: SlotFile, model: RankingModel) -> list[Gate]:
        """Load what arrived in MLflow in a process of its own."""
        arrived = self._folder / "arrived"
        arrived.mkdir()
        folder = self._run.fetch_model(arrived)
        rows = next(slots.blocks(max(len(slots) - GOLDEN_ROWS, 0), size=GOLDEN_ROWS))["features"]
        np.save(folder / golden.ROWS_FILE, rows, allow_pickle=False)
        command = [sys.executable, "-m", "millrace.training.golden", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
            output = done.stdout or done.stderr
        except subprocess.TimeoutExpired:
            output = f"not loaded within {PROBE_TIMEOUT_S:g} s"
        return gates.probed(output, model.score(np.ascontiguousarray(rows)).tolist())


def _window(settings: Settings, asked: Asked) -> Window:
    if asked.window is not None:
        check_window(settings.kafka, OUTCOMES, asked.window)
        window = asked.window
    else:
        window = newest_window(settings)
    if not window.offsets:
        days = settings.training.window_ms / DAY_MS
        raise NotEnough(
            f"topic {OUTCOMES.name} holds nothing of the last {days:g} days: there is nothing to learn from"
        )
    return window


def _figures(trained: Trained, seed: int) -> dict[str, float]:
    """Metrics of the run."""
    measured, chosen = trained.measured, trained.search.chosen
    found = {"choosing_log_loss": trained.search.losses[chosen]}
    for name in measured.losses:
        found[f"log_loss_{name}"] = measured.loss(name)
        found[f"calibration_error_{name}"] = measured.calibration[name].error
        if name != NEW:
            gain = measured.gain(NEW, name, ALL, gates.LEVEL, seed)
            found |= {f"gain_over_{name}": gain.value, f"gain_over_{name}_low": gain.low}
            found[f"gain_over_{name}_high"] = gain.high
    for group in measured.groups:
        if group != ALL:
            found |= {f"log_loss_{name}_{group}": measured.loss(name, group) for name in measured.losses}
    return found


def _write(path: Path, words: Mapping[str, object]) -> None:
    path.write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")

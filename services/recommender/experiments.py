"""Who sees which arm: follows topic ``experiments``, and has every arm's model in memory before it gets traffic.

Works in a thread, which waits for Kafka only. What is served is replaced as a whole; a request reads it once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from millrace.errors import MillraceError
from millrace.experiments.arms import LATEST, ArmPlan, read_arm
from millrace.experiments.assignment import Span, assign, takes_part
from millrace.experiments.definition import shares
from millrace.ranking.features import FEATURE_SCHEMA
from millrace.ranking.first import popularity_ranker
from millrace.ranking.model import RankingModel, UnusableModel
from millrace.registry.cache import ModelCache
from millrace.registry.checkpoints import CheckpointCache
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import EXPERIMENTS, MODEL_EVENTS, Topic
from millrace.v1.experiment_pb2 import Experiment, ExperimentState
from millrace.v1.model_pb2 import ModelEvent, ModelEventType
from services.recommender import metrics
from services.recommender.champion import LoadedModel
from services.recommender.prefetch import Fetch, Prefetch

log = structlog.stdlib.get_logger(__name__)

# How soon a start or a stop is seen, at the latest.
_POLL_S = 0.1
# How long the broker holds a question: records come at once in any case.
_FETCH_WAIT_MS = 500

RUNNING = ExperimentState.EXPERIMENT_STATE_RUNNING
DRAFT = ExperimentState.EXPERIMENT_STATE_DRAFT

# An arm whose settings this version of the service does not know: the registry numbers versions from 1.
UNREADABLE = ArmPlan(version="0", registered=True)

# Checkpoints of which a draft may name one are the last ten; one may come in between.
_CHECKPOINTS_REMEMBERED = 20


@dataclass(frozen=True, slots=True)
class Assigned:
    """The arm of one request.

    Attributes
    ----------
    propensity
        The exact probability with which this user got it.
    period
        Number of the period in whose shares it was drawn; 0 where shares never move.
    earlier_than_ms
        What the user did before this time is asked for: the start of the experiment, Unix ms. 0: it is not.
    served
        Whether the arm ranks; else the champion does in its place, and the answer says so.
    """

    experiment_id: str
    arm: str
    propensity: float
    plan: ArmPlan
    served: bool
    period: int = 0
    earlier_than_ms: int = 0


@dataclass(frozen=True, slots=True)
class RunningExperiment:
    """What assignment needs of a running experiment, and the models of its arms that are here, by arm.

    ``period`` is the number of the present one; None where shares never move. ``earlier_than_ms``: see ``Assigned``.
    """

    experiment_id: str
    salt: str
    layer: str
    span: Span
    shares: Mapping[str, float]
    plans: Mapping[str, ArmPlan]
    models: Mapping[str, LoadedModel] = field(default_factory=dict)
    period: int | None = None
    earlier_than_ms: int = 0


class ExperimentFollower:
    """The running experiments of one registered model.

    Attributes
    ----------
    running
        In the order in which they started. Replaced as a whole.
    problems
        Why an arm is not here, as ``experiment/arm`` -> reason.
    """

    def __init__(
        self,
        model_name: str,
        holdout: float,
        cache: ModelCache,
        checkpoints: CheckpointCache,
        kafka: KafkaSettings,
        stream: StreamSettings,
    ) -> None:
        self.running: Sequence[RunningExperiment] = ()
        self.problems: Mapping[str, str] = {}
        self._model_name = model_name
        self._holdout = holdout
        self._cache = cache
        self._checkpoints = checkpoints
        self._kafka = kafka
        self._stream = stream.model_copy(update={"fetch_wait_ms": _FETCH_WAIT_MS})
        self._records: dict[str, Experiment] = {}
        self._stored: dict[str, ModelEvent] = {}
        self._models: dict[str, LoadedModel] = {}
        self._prefetch = Prefetch()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="experiments", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        self._prefetch.close()
        self._thread.join(timeout=1.0)

    def assign(self, user_id: str, champion: LoadedModel | None) -> tuple[Assigned | None, LoadedModel | None]:
        """The user's arm and what ranks for it; None and the champion for a user of no experiment.

        Of experiments in several layers it is the first that started: one answer counts in one experiment.
        """
        for one in self.running:
            if takes_part(user_id, one.layer, one.span, self._holdout):
                drawn = assign(one.salt, user_id, one.shares, one.period)
                plan = one.plans[drawn.arm]
                model = champion if _follows_champion(plan, champion) else one.models.get(drawn.arm)
                served = model is not None
                assigned = Assigned(
                    experiment_id=one.experiment_id,
                    arm=drawn.arm,
                    propensity=drawn.propensity,
                    plan=plan,
                    served=served,
                    period=one.period or 0,
                    earlier_than_ms=one.earlier_than_ms,
                )
                return assigned, model if served else champion
        return None, champion

    def _follow(self) -> None:
        # Experiments first: they say which checkpoints matter, of all that ever were.
        with self._reader(EXPERIMENTS) as records, self._reader(MODEL_EVENTS) as events:
            while not self._stop.is_set():
                changed = False
                for record in records.poll(timeout_s=_POLL_S):
                    if isinstance(record.message, Experiment):
                        self._records[record.message.definition.experiment_id] = record.message
                        changed = True
                if not records.caught_up:
                    continue
                for record in events.poll(timeout_s=0.0):
                    if isinstance(record.message, ModelEvent):
                        self._note(record.message)
                if events.caught_up and (changed or self._waits()):
                    self._serve()

    def _reader(self, topic: Topic) -> TopicReader:
        return TopicReader(self._kafka, [topic], start="beginning", stream=self._stream)

    def _note(self, event: ModelEvent) -> None:
        if event.type == ModelEventType.MODEL_EVENT_TYPE_CHECKPOINTED and event.model_name == self._model_name:
            self._stored[event.checkpoint_id] = event
            wanted = {plan.checkpoint for one in self._live() for plan in _plans(one).values()}
            # Drafts may name the newest ones; of the others only what is wanted.
            for old in [name for name in list(self._stored)[:-_CHECKPOINTS_REMEMBERED] if name not in wanted]:
                del self._stored[old]

    def _live(self) -> list[Experiment]:
        """Those that run or may start, of this model."""
        mine = [one for one in self._records.values() if one.definition.model_name == self._model_name]
        return [one for one in mine if one.state in (RUNNING, DRAFT)]

    def _waits(self) -> bool:
        """Whether an arm is not here yet, or nothing was served so far."""
        return bool(self.problems) or len(self.running) != sum(one.state == RUNNING for one in self._live())

    def _serve(self) -> None:
        """Load what arms need and is on disk, have the rest fetched, and serve what runs."""
        wanted: dict[str, Fetch] = {}
        problems: dict[str, str] = {}
        running = []
        for experiment in sorted(self._live(), key=lambda one: (one.started_at_ms, one.definition.experiment_id)):
            models = {}
            for arm, plan in _plans(experiment).items():
                what = _what(plan)
                if what and what not in self._models:
                    self._want(what, plan, wanted)
                if what in self._models:
                    models[arm] = self._models[what]
                elif what:
                    reason = self._prefetch.problems.get(what, "on its way")
                    problems[f"{experiment.definition.experiment_id}/{arm}"] = f"{what}: {reason}"
            if experiment.state == RUNNING:
                running.append(_running(experiment, models))
        self._prefetch.want(wanted)
        if [one.experiment_id for one in running] != [one.experiment_id for one in self.running]:
            log.info("experiments", running=[one.experiment_id for one in running])
        self.running, self.problems = tuple(running), problems
        metrics.EXPERIMENTS.set(len(running))
        metrics.ARMS_MISSING.set(len(problems))
        used = {_what(plan) for one in self._live() for plan in _plans(one).values()}
        for what in self._models.keys() - used:
            del self._models[what]

    def _want(self, what: str, plan: ArmPlan, wanted: dict[str, Fetch]) -> None:
        """Load it, or have it fetched."""
        if what in self._prefetch.unusable:
            return
        if plan is UNREADABLE:
            self._prefetch.give_up(what, "its settings are of a newer kind")
            return
        try:
            model = self._local(plan)
        except UnusableModel as error:
            self._prefetch.give_up(what, str(error))
            return
        if model is not None:
            self._models[what] = model
            return
        if what in self._prefetch.here:
            # Somebody removed it.
            self._prefetch.again(what)
        if not plan.checkpoint:
            wanted[what] = partial(self._cache.ensure, plan.version)
        elif plan.checkpoint in self._stored:
            wanted[what] = partial(self._checkpoints.load, self._stored[plan.checkpoint])

    def _local(self, plan: ArmPlan) -> LoadedModel | None:
        if plan.popular:
            return LoadedModel("", popularity_ranker())
        if plan.checkpoint:
            event = self._stored.get(plan.checkpoint)
            state = self._checkpoints.local(event) if event is not None else None
            if state is None:
                return None
            return LoadedModel(state.model_version, _checked(state.model), state.epoch, state.sequence)
        folder = self._cache.path(plan.version)
        return None if folder is None else LoadedModel(plan.version, _checked(RankingModel.load(folder)))


def _follows_champion(plan: ArmPlan, champion: LoadedModel | None) -> bool:
    """Whether the arm is the champion as it learns."""
    return not plan.frozen and (not plan.version or (champion is not None and champion.version == plan.version))


def _what(plan: ArmPlan) -> str:
    """Name of what the arm needs beside the champion; empty if nothing."""
    if plan.popular:
        return "popularity"
    if plan.checkpoint:
        return "" if plan.checkpoint == LATEST else f"checkpoint {plan.checkpoint}"
    return f"version {plan.version}" if plan.version else ""


def _plans(experiment: Experiment) -> dict[str, ArmPlan]:
    """How each arm is served. The tracker has checked them; one of a newer kind is left out, and so not served."""
    plans = {}
    for arm in experiment.definition.arms:
        try:
            plans[arm.name] = read_arm(arm)
        except MillraceError as error:
            log.error("an arm cannot be served", arm=arm.name, problem=str(error))
            plans[arm.name] = UNREADABLE
    return plans


def _running(experiment: Experiment, models: Mapping[str, LoadedModel]) -> RunningExperiment:
    definition, periods = experiment.definition, experiment.periods
    by_arm = periods[-1].shares if periods else shares(definition).values()
    return RunningExperiment(
        experiment_id=definition.experiment_id,
        salt=definition.salt,
        layer=definition.layer,
        span=Span(experiment.layer_start, definition.traffic),
        shares=dict(zip(shares(definition), by_arm, strict=True)),
        plans=_plans(experiment),
        models=models,
        period=len(periods) - 1 if periods else None,
        earlier_than_ms=experiment.started_at_ms if definition.earlier_activity else 0,
    )


def _checked(model: RankingModel) -> RankingModel:
    if model.feature_schema != FEATURE_SCHEMA:
        raise UnusableModel(f"ranks by features {model.feature_schema}; this service computes {FEATURE_SCHEMA}")
    return model

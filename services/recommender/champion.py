"""Follows the champion: ``model-events`` says which version ranks, ``model-updates`` what it has learned since.

Works in a thread, which waits for Kafka only: what is not on disk is fetched by another one (``prefetch``). The service
ranks with what it has meanwhile, and starts with the last version on disk (as it was registered) when Kafka is away.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial

import structlog

from millrace.errors import MillraceError
from millrace.learning.serving import ServedLines, Taken
from millrace.ranking.features import FEATURE_SCHEMA
from millrace.ranking.model import RankingModel, UnusableModel
from millrace.registry.cache import ModelCache
from millrace.registry.checkpoints import CheckpointCache
from millrace.registry.ledger import Ledger
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.reader import TopicReader
from millrace.topics import MODEL_EVENTS, MODEL_UPDATES
from millrace.v1.model_pb2 import ModelEvent, ModelUpdate
from services.recommender import metrics
from services.recommender.prefetch import Fetch, Prefetch

log = structlog.stdlib.get_logger(__name__)

# Name of the file beside the versions that names the last champion.
_POINTER = "champion"
# Also how soon a promotion is seen, at the latest.
_POLL_S = 0.2
# How long the broker holds a question: records come at once in any case.
_FETCH_WAIT_MS = 500


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What ranks.

    Attributes
    ----------
    epoch, sequence
        Of the learner's last update that is included; 0 for a version as it was registered.
    """

    version: str
    model: RankingModel
    epoch: int = 0
    sequence: int = 0


class ChampionFollower:
    """The champion of one registered model, with its newest parameters.

    Attributes
    ----------
    current
        What ranks now; None until a version was loaded. Replaced as a whole: read it once for each request.
    problem
        Why the champion that the topic names is not the one that ranks; empty if it is.
    """

    def __init__(
        self,
        model_name: str,
        cache: ModelCache,
        checkpoints: CheckpointCache,
        kafka: KafkaSettings,
        stream: StreamSettings,
    ) -> None:
        self.model_name = model_name
        self.current: LoadedModel | None = None
        self.problem = "no champion yet"
        self._cache = cache
        self._checkpoints = checkpoints
        self._prefetch = Prefetch()
        self._kafka = kafka
        self._stream = stream.model_copy(update={"fetch_wait_ms": _FETCH_WAIT_MS})
        self._ledger = Ledger(model_name)
        self._lines = ServedLines(model_name)
        # What ``current`` is: reign (empty: the last champion on disk), epoch, sequence.
        self._serving = ("", 0, 0)
        self._kept = ""
        self._stop = threading.Event()
        self._load_last()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        self._prefetch.close()
        self._thread.join(timeout=1.0)

    def _load_last(self) -> None:
        pointer = self._cache.directory / _POINTER
        if not pointer.exists():
            return
        try:
            version = pointer.read_text(encoding="utf-8").strip()
            folder = self._cache.path(version)
            if folder is not None:
                self._use(LoadedModel(version, _checked(version, RankingModel.load(folder))), "")
        except (OSError, MillraceError) as error:
            log.warning("the last champion on disk cannot be used", problem=str(error))

    def _follow(self) -> None:
        with TopicReader(self._kafka, [MODEL_EVENTS, MODEL_UPDATES], start="beginning", stream=self._stream) as reader:
            while not self._stop.is_set():
                for record in reader.poll(timeout_s=_POLL_S):
                    if isinstance(record.message, ModelEvent):
                        self._ledger.apply(record.message)
                    elif isinstance(record.message, ModelUpdate):
                        self._take(record.message, record.append_time_ms if reader.caught_up else None)
                # Until all is read the champion, and its parameters, are those of the past.
                if reader.caught_up and self._ledger.reign is not None:
                    self._fetch_ahead(self._ledger.reign)
                    self._adopt(self._ledger.reign)

    def _take(self, update: ModelUpdate, append_time_ms: int | None) -> None:
        """Take a record (its append time, Unix ms, unless it is one of the past)."""
        taken = self._lines.apply(update)
        metrics.MODEL_UPDATES.labels(self.model_name, taken.value).inc()
        if taken is Taken.APPLIED and append_time_ms is not None:
            metrics.UPDATE_DELAY_SECONDS.observe(max(0.0, time.time() - append_time_ms / 1000))
        elif taken is Taken.REFUSED:
            log.warning("update refused, waiting for a snapshot", sequence=update.update.sequence)

    def _fetch_ahead(self, reign: ModelEvent) -> None:
        """Have the champion here, and every checkpoint that serves or that a rollback can choose."""
        wanted: dict[str, Fetch] = {}
        if reign.checkpoint_id:
            wanted[_checkpoint(reign)] = partial(self._checkpoints.load, reign)
        wanted[_version(reign)] = partial(self._cache.ensure, reign.model_version)
        for event in reversed(self._ledger.checkpoints.values()):
            wanted[_checkpoint(event)] = partial(self._checkpoints.load, event)
        self._prefetch.want(wanted)
        here = sum(_checkpoint(event) in self._prefetch.here for event in self._ledger.checkpoints.values())
        metrics.CHECKPOINTS.labels(self.model_name).set(here)

    def _adopt(self, reign: ModelEvent) -> None:
        """Serve the newest parameters of the reign: of its line, else what it begins with."""
        self._serve_line(reign)
        if not self._serves(reign):
            if reign.checkpoint_id and _checkpoint(reign) not in self._prefetch.unusable:
                self._serve_checkpoint(reign)
            else:
                # Of a checkpoint that is no use, the version that it is one of; so it is for the learner.
                self._serve_version(reign)
        if self._kept != reign.model_version and self._cache.path(reign.model_version) is not None:
            self._keep(reign.model_version)

    def _serves(self, reign: ModelEvent) -> bool:
        return self._serving[0] == reign.event_id

    def _serve_line(self, reign: ModelEvent) -> None:
        line = self._lines.of(reign.event_id)
        if line is None or line.template.feature_schema != FEATURE_SCHEMA:
            return
        if self._serving != (reign.event_id, line.epoch, line.sequence):
            self._use(LoadedModel(reign.model_version, line.model(), line.epoch, line.sequence), reign.event_id)

    def _serve_checkpoint(self, reign: ModelEvent) -> None:
        name, state = _checkpoint(reign), self._checkpoints.local(reign)
        if state is None:
            self._prefetch.again(name)
            self._wait(name)
            return
        try:
            model = _checked(reign.model_version, state.model)
        except UnusableModel as error:
            self._prefetch.give_up(name, str(error))
        else:
            self._use(LoadedModel(reign.model_version, model, state.epoch, state.sequence), reign.event_id)

    def _serve_version(self, reign: ModelEvent) -> None:
        name, folder = _version(reign), self._cache.path(reign.model_version)
        if folder is None or name in self._prefetch.unusable:
            if folder is None:
                self._prefetch.again(name)
            self._wait(name)
            return
        try:
            model = _checked(reign.model_version, RankingModel.load(folder))
        except UnusableModel as error:
            self._prefetch.give_up(name, str(error))
            self._wait(name)
        else:
            self._use(LoadedModel(reign.model_version, model), reign.event_id)

    def _wait(self, name: str) -> None:
        self.problem = f"{name}: {self._prefetch.problems.get(name, 'on its way')}"

    def _keep(self, version: str) -> None:
        """Have the next start begin with this version."""
        pointer = self._cache.directory / _POINTER
        part = pointer.with_suffix(".part")
        part.write_text(version, encoding="utf-8")
        part.replace(pointer)
        self._kept = version

    def _use(self, model: LoadedModel, reign_id: str) -> None:
        before = self.current
        self.current, self.problem = model, ""
        self._serving = (reign_id, model.epoch, model.sequence)
        metrics.MODEL_EPOCH.labels(self.model_name).set(model.epoch)
        metrics.MODEL_SEQUENCE.labels(self.model_name).set(model.sequence)
        if before is None or before.version != model.version:
            if before is not None:
                metrics.MODEL_VERSION.labels(self.model_name, before.version).set(0)
            metrics.MODEL_VERSION.labels(self.model_name, model.version).set(1)
            log.info(
                "ranking with",
                model=self.model_name,
                version=model.version,
                before=before.version if before else None,
            )


def _version(reign: ModelEvent) -> str:
    return f"version {reign.model_version}"


def _checkpoint(event: ModelEvent) -> str:
    return f"checkpoint {event.checkpoint_id}"


def _checked(version: str, model: RankingModel) -> RankingModel:
    if model.feature_schema != FEATURE_SCHEMA:
        raise UnusableModel(
            f"version {version} ranks by features {model.feature_schema}; this service computes {FEATURE_SCHEMA}"
        )
    return model

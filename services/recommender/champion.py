"""Follows the champion: ``model-events`` says which version ranks, ``model-updates`` what it has learned since.

Works in a thread. The service keeps ranking with what it has while a version is fetched, and starts with the last
version on disk (as it was registered) when Kafka or MLflow are away.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import structlog

from millrace.errors import MillraceError
from millrace.learning.serving import ServedLines, Taken
from millrace.ranking.features import FEATURE_SCHEMA
from millrace.ranking.model import RankingModel, UnusableModel
from millrace.registry.cache import ModelCache
from millrace.registry.checkpoints import CheckpointCache
from millrace.registry.ledger import Ledger
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.backoff import Backoff
from millrace.stream.reader import TopicReader
from millrace.topics import MODEL_EVENTS, MODEL_UPDATES
from millrace.v1.model_pb2 import ModelEvent, ModelUpdate
from services.recommender import metrics
from services.recommender.prefetch import Prefetch

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
        self._prefetch = Prefetch(model_name, checkpoints)
        self._kafka = kafka
        self._stream = stream.model_copy(update={"fetch_wait_ms": _FETCH_WAIT_MS})
        self._ledger = Ledger(model_name)
        self._lines = ServedLines(model_name)
        # What ``current`` is: reign (empty: the last champion on disk), epoch, sequence.
        self._serving = ("", 0, 0)
        self._kept = ""
        self._wanted: list[str] = []
        self._backoff = Backoff(stream.backoff_max_ms / 1000)
        self._tried, self._try_at = "", 0.0
        self._stop = threading.Event()
        self._load_last()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following; a download under way is left to end with its own time limit."""
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
                self.problem = ""
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
        """Have every checkpoint here that serves or that a rollback can choose."""
        wanted = [reign] if reign.checkpoint_id else []
        wanted += reversed(self._ledger.checkpoints.values())
        ids = [event.checkpoint_id for event in wanted]
        if ids != self._wanted:
            self._wanted = ids
            self._prefetch.want(wanted)

    def _adopt(self, reign: ModelEvent) -> None:
        """Serve the newest parameters of the reign: of its line, else what it begins with."""
        self._serve_line(reign)
        if reign.checkpoint_id and not self._serves(reign):
            self._serve_checkpoint(reign)
        self._serve_version(reign)

    def _serves(self, reign: ModelEvent) -> bool:
        return self._serving[0] == reign.event_id

    def _serve_line(self, reign: ModelEvent) -> None:
        line = self._lines.of(reign.event_id)
        if line is None or line.template.feature_schema != FEATURE_SCHEMA:
            return
        if self._serving != (reign.event_id, line.epoch, line.sequence):
            self._use(LoadedModel(reign.model_version, line.model(), line.epoch, line.sequence), reign.event_id)
            self.problem = ""

    def _serve_checkpoint(self, reign: ModelEvent) -> None:
        if reign.checkpoint_id in self._prefetch.unusable:
            return  # the version it is, and so it is for the learner
        state = self._checkpoints.local(reign)
        if state is None:
            self.problem = f"checkpoint {reign.checkpoint_id} is not here yet"
            return
        try:
            model = _checked(reign.model_version, state.model)
        except UnusableModel as error:
            self._prefetch.give_up(reign.checkpoint_id, str(error))
            return
        self._use(LoadedModel(reign.model_version, model, state.epoch, state.sequence), reign.event_id)
        self.problem = ""

    def _serve_version(self, reign: ModelEvent) -> None:
        """Serve the version as it was registered if nothing else does, and keep it for a start without Kafka."""
        version, served = reign.model_version, self._serves(reign)
        awaited = bool(reign.checkpoint_id) and reign.checkpoint_id not in self._prefetch.unusable
        if version != self._tried:
            self._tried, self._try_at = version, 0.0
        if ((served or awaited) and self._kept == version) or time.monotonic() < self._try_at:
            return
        try:
            folder = self._cache.ensure(version)
            if not (served or awaited):
                self._use(LoadedModel(version, _checked(version, RankingModel.load(folder))), reign.event_id)
                self.problem = ""
        except MillraceError as error:
            self._wait(version, error, served)
        else:
            self._backoff.reset()
            self._keep(version)

    def _keep(self, version: str) -> None:
        """Have the next start begin with this version."""
        pointer = self._cache.directory / _POINTER
        part = pointer.with_suffix(".part")
        part.write_text(version, encoding="utf-8")
        part.replace(pointer)
        self._kept = version

    def _wait(self, version: str, error: MillraceError, served: bool) -> None:
        if not served:
            self.problem = f"version {version}: {error}"
        pause_s = self._backoff.next()
        self._try_at = time.monotonic() + pause_s
        log.warning(
            "the champion cannot be loaded",
            version=version,
            problem=str(error),
            serving=self.current.version if self.current else None,
            again_in_s=round(pause_s, 1),
        )

    def _use(self, model: LoadedModel, reign_id: str) -> None:
        before = self.current
        self.current = model
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


def _checked(version: str, model: RankingModel) -> RankingModel:
    if model.feature_schema != FEATURE_SCHEMA:
        raise UnusableModel(
            f"version {version} ranks by features {model.feature_schema}; this service computes {FEATURE_SCHEMA}"
        )
    return model

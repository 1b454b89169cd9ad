"""Follows the champion: topic ``model-events`` says which version ranks, the cache on disk holds it.

Works in a thread. The service keeps ranking with the version that it has while another is fetched, and starts with
the last one on disk when Kafka or MLflow are away.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import structlog

from millrace.errors import MillraceError
from millrace.ranking.features import FEATURE_SCHEMA
from millrace.ranking.model import RankingModel, UnusableModel
from millrace.registry.cache import ModelCache
from millrace.registry.ledger import Ledger
from millrace.settings import KafkaSettings, StreamSettings
from millrace.stream.backoff import Backoff
from millrace.stream.reader import TopicReader
from millrace.topics import MODEL_EVENTS
from millrace.v1.model_pb2 import ModelEvent
from services.recommender import metrics

log = structlog.stdlib.get_logger(__name__)

# Name of the file beside the versions that names the last champion.
_POINTER = "champion"
# Also how soon a promotion is seen, at the latest.
_POLL_S = 0.2
# Promotions are rare: the broker need not be asked for one every few milliseconds.
_FETCH_WAIT_MS = 500


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A version that ranks."""

    version: str
    model: RankingModel


class ChampionFollower:
    """The champion of one registered model.

    Attributes
    ----------
    current
        What ranks now; None until a version was loaded. Replaced as a whole: read it once for each request.
    problem
        Why the champion that the topic names is not the one that ranks; empty if it is.
    """

    def __init__(self, model_name: str, cache: ModelCache, kafka: KafkaSettings, stream: StreamSettings) -> None:
        self.model_name = model_name
        self.current: LoadedModel | None = None
        self.problem = "no champion yet"
        self._cache = cache
        self._kafka = kafka
        self._stream = stream.model_copy(update={"fetch_wait_ms": _FETCH_WAIT_MS})
        self._ledger = Ledger(model_name)
        self._backoff = Backoff(stream.backoff_max_ms / 1000)
        self._stop = threading.Event()
        self._load_last()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following; a download under way is left to end with its own time limit."""
        self._stop.set()
        self._thread.join(timeout=1.0)

    def _load_last(self) -> None:
        pointer = self._cache.directory / _POINTER
        if not pointer.exists():
            return
        try:
            version = pointer.read_text(encoding="utf-8").strip()
            folder = self._cache.path(version)
            if folder is not None:
                self._use(version, folder)
                self.problem = ""
        except (OSError, MillraceError) as error:
            log.warning("the last champion on disk cannot be used", problem=str(error))

    def _follow(self) -> None:
        with TopicReader(self._kafka, [MODEL_EVENTS], start="beginning", stream=self._stream) as reader:
            while not self._stop.is_set():
                for record in reader.poll(timeout_s=_POLL_S):
                    if isinstance(record.message, ModelEvent):
                        self._ledger.apply(record.message)
                wanted = self._ledger.champion
                # Until all events are read the champion is one of the past.
                if reader.caught_up and wanted and (self.current is None or wanted != self.current.version):
                    self._change_to(wanted)

    def _change_to(self, version: str) -> None:
        try:
            self._use(version, self._cache.ensure(version))
        except MillraceError as error:
            self._wait(version, error)
        else:
            self._backoff.reset()
            self.problem = ""
            pointer = self._cache.directory / _POINTER
            part = pointer.with_suffix(".part")
            part.write_text(version, encoding="utf-8")
            part.replace(pointer)

    def _wait(self, version: str, error: MillraceError) -> None:
        self.problem = f"version {version}: {error}"
        pause_s = self._backoff.next()
        log.warning(
            "the champion cannot be loaded",
            version=version,
            problem=str(error),
            serving=self.current.version if self.current else None,
            again_in_s=round(pause_s, 1),
        )
        self._stop.wait(pause_s)

    def _use(self, version: str, folder: Path) -> None:
        model = RankingModel.load(folder)
        if model.feature_schema != FEATURE_SCHEMA:
            raise UnusableModel(
                f"version {version} ranks by features {model.feature_schema}; this service computes {FEATURE_SCHEMA}"
            )
        before = self.current
        if before is not None:
            metrics.MODEL_VERSION.labels(self.model_name, before.version).set(0)
        self.current = LoadedModel(version, model)
        metrics.MODEL_VERSION.labels(self.model_name, version).set(1)
        log.info("ranking with", model=self.model_name, version=version, before=before.version if before else None)

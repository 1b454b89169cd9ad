"""Records of ``model-updates``: updates and chunked snapshots, made and read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import structlog

from millrace.learning.state import LearnerState
from millrace.ranking.model import UnusableModel
from millrace.v1.model_pb2 import ModelUpdate, ParameterSnapshot

log = structlog.stdlib.get_logger(__name__)

CHUNK_BYTES = 200 * 1024
"""Well below the largest value that consumers take (256 KiB)."""
CHUNKS_MAX = 512
"""100 MB: 50 MB of serving parameters, and as much for the optimizer."""


def snapshot_records(model_name: str, state: LearnerState, created_at_ms: int) -> list[ModelUpdate]:
    """The chunks of a snapshot, in order."""
    content = state.to_bytes()
    pieces = [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
    digest = hashlib.sha256(content).digest()
    return [
        ModelUpdate(
            snapshot=ParameterSnapshot(
                model_name=model_name,
                model_version=state.model_version,
                epoch=state.epoch,
                sequence=state.sequence,
                chunk=number,
                chunks=len(pieces),
                payload=piece,
                sha256=digest,
                created_at_ms=created_at_ms,
                reign_id=state.reign_id,
            )
        )
        for number, piece in enumerate(pieces)
    ]


@dataclass(slots=True)
class SnapshotAssembler:
    """Puts chunks together. They come in order, written in one transaction; another order gives nothing."""

    _digest: bytes = b""
    _pieces: list[bytes] = field(default_factory=list)

    def add(self, chunk: ParameterSnapshot) -> LearnerState | None:
        """Take a chunk; the state once it was the last one. A damaged snapshot is logged and passed over."""
        if chunk.chunk == 0:
            self._digest, self._pieces = chunk.sha256, []
        elif chunk.sha256 != self._digest or chunk.chunk != len(self._pieces):
            self._pieces = []
            return None
        if not 0 < chunk.chunks <= CHUNKS_MAX:
            log.warning("snapshot passed over", reason=f"{chunk.chunks} chunks, not 1 to {CHUNKS_MAX}")
            return None
        self._pieces.append(chunk.payload)
        if len(self._pieces) < chunk.chunks:
            return None
        content, self._pieces = b"".join(self._pieces), []
        try:
            if hashlib.sha256(content).digest() != chunk.sha256:
                raise UnusableModel("SHA-256 does not match")
            return LearnerState.from_bytes(content)
        except UnusableModel as error:
            log.warning("snapshot passed over", epoch=chunk.epoch, sequence=chunk.sequence, reason=str(error))
            return None


@dataclass(slots=True)
class Lines:
    """What ``model-updates`` says of the lines of learning of one model.

    Attributes
    ----------
    epoch
        The highest seen; 0 if none was.
    newest
        reign_id -> the newest whole state of that reign.
    last
        The newest whole state of all.
    learned
        Partition of ``outcomes`` -> the next offset to learn after everything in the topic, the updates that came after
        the last state included.
    topic_id
        The broker's id of the topic ``outcomes`` that these offsets are of; empty if nothing was learned.
    """

    model_name: str
    epoch: int = 0
    newest: dict[str, LearnerState] = field(default_factory=dict)
    last: LearnerState | None = None
    learned: dict[int, int] = field(default_factory=dict)
    topic_id: str = ""
    _assembler: SnapshotAssembler = field(default_factory=SnapshotAssembler)

    def apply(self, record: ModelUpdate) -> None:
        """Take the next record of the topic; those of other models change nothing."""
        body = record.snapshot if record.WhichOneof("kind") == "snapshot" else record.update
        if body.model_name != self.model_name:
            return
        self.epoch = max(self.epoch, body.epoch)
        if isinstance(body, ParameterSnapshot):
            state = self._assembler.add(body)
            if state is not None:
                self.last = self.newest[state.reign_id] = state
                self._reached(dict(state.learned), state.topic_id)
        elif body.learned:
            reached = {position.partition: position.offset + 1 for position in body.learned}
            self._reached(reached, body.learned[0].topic_id)

    def _reached(self, learned: dict[int, int], topic_id: str) -> None:
        if topic_id:
            self.learned, self.topic_id = learned, topic_id

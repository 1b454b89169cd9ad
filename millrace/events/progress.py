"""Remembers how far a replay has come, so that it can go on after any end."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from millrace.errors import MillraceError
from millrace.settings import home


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay has come.

    Attributes
    ----------
    topic_id
        The broker's id of the topic that the rows went to: on another broker the replay starts at the beginning.
    rows
        Rows from the beginning that are done: acknowledged by the broker, or reported as bad.
    bad
        How many of them were bad.
    """

    topic_id: str
    rows: int = 0
    bad: int = 0


class ProgressFile:
    """The progress of one source, in ``home()/replay``."""

    def __init__(self, source: str) -> None:
        self.path = home() / "replay" / f"{source}.json"

    def load(self, topic_id: str) -> Progress:
        """The progress on this topic; the beginning if there is none."""
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return Progress(topic_id)
        try:
            found = Progress(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise MillraceError(f"{self.path} is damaged ({error}); --restart begins anew") from error
        return found if found.topic_id == topic_id else Progress(topic_id)

    def save(self, progress: Progress) -> None:
        """Write it so that a crash at any moment leaves the old or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(asdict(progress)))
        part.replace(self.path)

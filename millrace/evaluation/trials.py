"""Passes that a search has made: where it is interrupted, it goes on with the next one.

What a pass gives depends on nothing but what names the file and the pass, so that one that was made need not be made
again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from millrace.errors import MillraceError
from millrace.evaluation.checkpoint import DECIDING_SETTINGS, code_digest
from millrace.evaluation.paired import Blocks
from millrace.settings import Settings, home


class TrialFile:
    """The passes of one search, in ``home()/tune``, under a name made of everything that they depend on."""

    def __init__(self, settings: Settings, *what: object) -> None:
        groups = (getattr(settings, name).model_dump_json() for name in DECIDING_SETTINGS)
        words = json.dumps([code_digest(), *map(str, what), *groups])
        self.path = home() / "tune" / f"{blake2b(words.encode(), digest_size=8).hexdigest()}.json"
        self._passes: dict[str, dict[str, Any]] = {}
        try:
            self._passes = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            pass  # the search begins
        except ValueError as error:
            raise MillraceError(f"{self.path} is damaged ({error}); delete it, and the search begins anew") from error

    def get(self, events: int, choice: Mapping[str, float]) -> Blocks | None:
        """The pass over so many events with a choice of settings; None if it was not made."""
        found = self._passes.get(_name(events, choice))
        return None if found is None else Blocks.from_words(found)

    def keep(self, events: int, choice: Mapping[str, float], blocks: Blocks) -> None:
        """Keep a pass, so that a crash at any moment leaves the file as it was or as it will be."""
        self._passes[_name(events, choice)] = blocks.words()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self._passes), encoding="utf-8")
        part.replace(self.path)

    def drop(self) -> None:
        """The search is through."""
        self.path.unlink(missing_ok=True)


def _name(events: int, choice: Mapping[str, float]) -> str:
    return json.dumps([events, sorted(choice.items())])

"""Guards hold for the topics that they were written under; a topic made anew counts from 0 again.

``meta:topics`` maps the name of each input topic to the broker's id of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from millrace.errors import MillraceError
from millrace.features.store import FeatureStore
from millrace.features.user_state import without_guards
from millrace.topics import INTERACTIONS

TOPICS_KEY = "meta:topics"

# Keys of one step of the scan: some 10 ms of Redis.
_SCAN_STEP = 1000


def check_topics(store: FeatureStore, topic_ids: Mapping[str, str]) -> None:
    """Note the ids of topics that are new here.

    Raises
    ------
    MillraceError
        A topic has another id than the one that the guards in Redis are about.
    """
    for name, topic_id in topic_ids.items():
        store.ask("HSETNX", TOPICS_KEY, name, topic_id)
        known = store.ask("HGET", TOPICS_KEY, name).decode()
        if known != topic_id:
            raise MillraceError(
                f"topic {name} was made anew (its id is {topic_id}, features were written under {known}): its events "
                "would be taken for old ones. To keep the features and go on with the new topic, stop all feature "
                "updaters and run `python -m workers.feature_updater --accept-topics`"
            )


def accept_topics(store: FeatureStore, topic_ids: Mapping[str, str]) -> list[str]:
    """Drop the guards of topics that were made anew, and note their new ids. No feature updater may run meanwhile.

    Returns the names of these topics. Features stay as they are; events of the old topic that stand in the new one as
    well, with the same event_id, are still recognised as duplicates within the window.
    """
    renewed = []
    for name, topic_id in topic_ids.items():
        known = store.ask("HGET", TOPICS_KEY, name)
        if known is not None and known.decode() != topic_id:
            _drop_guards(store, ("u:*", "i:*") if name == INTERACTIONS.name else ("c:*",))
            renewed.append(name)
        store.ask("HSET", TOPICS_KEY, name, topic_id)
    return renewed


def _drop_guards(store: FeatureStore, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for keys in store.scan(pattern, _SCAN_STEP):
            if pattern == "u:*":
                states = store.ask_all(("HGET", key, "state") for key in keys)
                kept = [(key, without_guards(state)) for key, state in zip(keys, states, strict=True) if state]
                store.ask_all(("HSET", key, "state", state) for key, state in kept)
            else:
                store.ask_all(("HDEL", key, "guards") for key in keys)

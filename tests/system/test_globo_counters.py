"""Real clicks through the real pipeline: every counter in Redis equals a count over the file."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import cast

import pytest
import redis

from millrace.features.user_state import USER_FIELDS, decode_user, user_key
from millrace.settings import FeatureSettings, KafkaSettings, RecommenderClientSettings
from millrace.v1.interaction_pb2 import InteractionType
from tests.conftest import StartProcess
from tests.feature_support import connected, load_item

CLICKS = 20_000
CLICK = InteractionType.INTERACTION_TYPE_CLICK


def _counts() -> tuple[Counter[str], Counter[str]]:
    """Clicks of each user and of each article in the first part of the file."""
    path = RecommenderClientSettings().data / "globo" / "clicks_2017-10-01_10.csv.gz"
    users, articles = Counter[str](), Counter[str]()
    with gzip.open(path, "rt", newline="") as lines:
        for row in islice(csv.DictReader(lines), CLICKS):
            users[row["user_id"]] += 1
            articles[row["article_id"]] += 1
    return users, articles


@pytest.mark.system
def test_counters_equal_the_file(
    topics_applied: KafkaSettings, kafka_env: Mapping[str, str], redis_url: str, process: StartProcess
) -> None:
    env = {**kafka_env, "REDIS_URL": redis_url}
    worker = process("workers.feature_updater", env=env)
    replay = process("millrace", "replay", "--dataset", "globo", "--limit", str(CLICKS), env=env)
    assert replay.wait() == 0, replay.output()
    users, articles = _counts()
    store = redis.Redis.from_url(redis_url)
    features = connected(redis_url, empty=False)

    def taken() -> dict[str, int]:
        found = {article: load_item(features, article, FeatureSettings()) for article in articles}
        return {article: state.counts.clicks if state else 0 for article, state in found.items()}

    worker.until(lambda: sum(taken().values()) >= CLICKS, timeout_s=120, interval_s=0.5)

    assert taken() == articles
    raw = {user: cast("list[bytes | None]", store.hmget(user_key(user), USER_FIELDS)) for user in users}
    states = {user: decode_user(values) for user, values in raw.items()}
    assert {user: state.counts[CLICK] if state else 0 for user, state in states.items()} == users
    assert sum(1 for _ in store.scan_iter("i:*", count=1000)) == len(articles)
    assert sum(1 for _ in store.scan_iter("u:*", count=1000)) == len(users)
    features.close()
    assert worker.terminate() == 0, worker.output()

"""What each part of a pipeline does, and what it means when it is away: for people who did not build it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Part(NamedTuple):
    """A process, in words."""

    title: str
    does: str
    without: str


PARTS: Mapping[str, Part] = {
    "feature_updater": Part(
        "Feature updater",
        "Counts what users do into what is known of users and items.",
        "Answers do not know new clicks. Nothing is lost: it goes on where it was.",
    ),
    "outcome_joiner": Part(
        "Outcome joiner",
        "Finds out what became of each item shown: clicked, not clicked, or not seen.",
        "Nothing new is learned and experiments stand still. It goes on where it was.",
    ),
    "online_learner": Part(
        "Online learner",
        "Learns from every outcome and sends the model's new weights out.",
        "The model stays as it is. Outcomes wait to be learned.",
    ),
    "experiment_tracker": Part(
        "Experiment tracker",
        "Counts what comes of each arm of an experiment, and decides by rule.",
        "Experiments go on showing their arms, but nothing is counted or decided.",
    ),
    "drift_detector": Part(
        "Drift detector",
        "Compares today's traffic with what the model was made for.",
        "Nobody would notice a change of the world. Nothing else depends on it.",
    ),
    "retrain_orchestrator": Part(
        "Orchestrator",
        "Promotes model versions, rolls them back, and starts training.",
        "Promotions and rollbacks wait. What serves goes on serving.",
    ),
    "recommender": Part(
        "Recommender",
        "Answers what a user should see now.",
        "There are no recommendations: shops have to show something of their own.",
    ),
    "gateway": Part(
        "Gateway",
        "The HTTP API, and this console.",
        "Shops that integrate over HTTP are cut off. Those on Kafka and gRPC are not.",
    ),
    "simulate": Part(
        "Simulated shoppers",
        "People who do not exist, so that there is something to see.",
        "Only the demonstration stands still.",
    ),
}
LABELS: Mapping[str, str] = {
    "covisit": "follows the last items",
    "covisit_last": "follows the last item",
    "covisit_support": "follows how many of the last items",
    "covisit_log": "follows the last items (log)",
    "popularity_short": "popular right now",
    "popularity_long": "popular these days",
    "age": "how long it exists",
    "idle": "time since anybody used it",
    "seen_ago": "time since the user saw it",
    "seen_count": "how often the user saw it",
    "trend": "rising faster than it was",
    "click_through": "clicks per view",
    "approval": "likes against dislikes",
    "seen": "the user knows it",
    "from_trending_short": "among what is popular now",
    "from_trending_long": "among what is popular these days",
    "from_fresh": "new in the catalogue",
    "similar": "in sessions like this one",
    "similar_log": "in sessions like this one (log)",
    "similar_near_log": "near in sessions like this one",
    "after_log": "comes after this session's items",
    "before_log": "comes before this session's items",
    "after_newest_log": "comes right after the newest item",
    "newest": "it is the newest item itself",
    "in_sessions": "how often it is in sessions",
    "around": "stands around the last items",
    "around_log": "stands around the last items (log)",
    "context_device": "fits the device",
    "context_os": "fits the system",
    "context_country": "fits the country",
    "context_region": "fits the region",
    "context_referrer": "fits where the user came from",
    "context_placement": "fits the place on the page",
    "context_other": "fits the other circumstances",
    "user_activity": "how active the user is",
    "user_idle": "time since the user was here",
    "taste": "to the user's taste",
    "taste_session": "to the taste of this session",
    "intercept": "starting point",
}
SOURCES: Mapping[str, str] = {
    "neighbours": "often follows the user's last items",
    "trending_short": "popular right now",
    "trending_long": "popular these days",
    "session_knn": "from sessions like this one",
    "fresh": "new, shown to find out",
    "repeat": "the user was here before",
    "requested": "asked for",
}


def label(feature: str) -> str:
    """What a feature means."""
    return LABELS.get(feature, feature.replace("_", " "))


def label_of(column: str) -> str:
    """What a column of the model is: a feature, one beyond a value, or the product of two."""
    factors = [one.partition(">") for one in column.split("*")]
    return " × ".join(label(one) + (f" beyond {knot}" if knot else "") for one, _, knot in factors)


def source(name: str) -> str:
    """Where an item of an answer came from."""
    return SOURCES.get(name, name.replace("_", " "))

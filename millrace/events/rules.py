"""What a valid event, catalogue entry, request or command is: the comments of the contracts as code.

Clients call these before sending, services and workers call them again: nothing trusts its sender. Each
function returns None, or raises ``InvalidField`` that names the field as the contract does
(``requests[2].k``), what is wrong, and what is allowed.

Not checked here: that the bytes are protobuf, whose strings are UTF-8, and the size of a record
(``millrace.stream.codec``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from millrace.errors import InvalidField
from millrace.settings import MINUTE_MS
from millrace.v1.command_pb2 import Command
from millrace.v1.common_pb2 import Context
from millrace.v1.experiment_pb2 import GateEvidence
from millrace.v1.interaction_pb2 import Interaction, InteractionType
from millrace.v1.item_pb2 import Item
from millrace.v1.recommendation_service_pb2 import RecommendBatchRequest, RecommendRequest, RepeatPolicy

ID_MAX_BYTES = 256
TEXT_MAX_BYTES = 256
TITLE_MAX_BYTES = 1024
URL_MAX_BYTES = 2048
ATTRIBUTES_MAX = 32
TAGS_MAX = 64
K_MAX = 200
VIEWPORT_MAX = 200
LISTED_ITEMS_MAX = 1000
BATCH_MAX = 100

OCCURRED_MIN_MS = 631_152_000_000
"""1990-01-01. Below it a time is taken for seconds: today's seconds stand in 1970 when read as milliseconds."""
PUBLISHED_MIN_MS = 10_000_000_000
"""April 1970 (as seconds: the year 2286). Books and films are older than 1990, so that their bound is lower."""
TIME_MAX_MS = 10_000_000_000_000
"""The year 2286. Above it a time is taken for micro- or nanoseconds."""
FUTURE_MAX_MS = 5 * MINUTE_MS
"""How far a producer's clock may be ahead of the broker's."""
AMOUNT_MAX = 1e12
"""Largest price, payment or rating. A double keeps the cents of sums up to 9e13, and no sum reaches infinity."""

_ID_ALLOWED = f"1-{ID_MAX_BYTES} bytes of UTF-8 without control characters"
_TYPES_ALLOWED = ", ".join(name.removeprefix("INTERACTION_TYPE_") for name in InteractionType.keys()[1:])
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_CONTEXT_TEXTS = ("device", "os", "country", "region", "referrer", "placement")

_VIEW = InteractionType.INTERACTION_TYPE_VIEW
_PURCHASE = InteractionType.INTERACTION_TYPE_PURCHASE
_RATING = InteractionType.INTERACTION_TYPE_RATING
_CUSTOM = InteractionType.INTERACTION_TYPE_CUSTOM
_FORGET = InteractionType.INTERACTION_TYPE_FORGET

R = TypeVar("R", bound=Message)


def keeps_rules(event: Interaction) -> bool:
    """Whether an interaction breaks no rule, for readers beside the worker that refuses it (``check_interaction``)."""
    try:
        check_interaction(event)
    except InvalidField:
        return False
    return True


def check_interaction(event: Interaction) -> None:
    """Check everything of an interaction that needs no clock (see ``check_append_time``).

    This runs for every event in producers and workers, hence the plain code: about 2 µs, 4 µs with a full context.
    """
    kind = event.type
    if not _VIEW <= kind <= _FORGET:
        raise InvalidField("type", "missing" if kind == 0 else f"unknown value {kind}", _TYPES_ALLOWED)
    event_id, user_id, item_id, session_id, request_id = (
        event.event_id,
        event.user_id,
        event.item_id,
        event.session_id,
        event.request_id,
    )
    # Where all of them together are short and printable, each of them is: one check in place of five.
    if not (event_id and user_id and _is_plain(f"{event_id}{user_id}{item_id}{session_id}{request_id}")):
        check_id("event_id", event_id)
        check_id("user_id", user_id)
        _check_text("item_id", item_id)
        _check_text("session_id", session_id)
        _check_text("request_id", request_id)
    if kind != _FORGET:
        if not item_id:
            raise InvalidField("item_id", "missing", _ID_ALLOWED)
    elif item_id:
        raise InvalidField("item_id", _shown(item_id), "empty where type is FORGET, which erases the whole user")
    _check_time("occurred_at_ms", event.occurred_at_ms, OCCURRED_MIN_MS)
    if event.HasField("value"):
        _check_amount("value", event.value, least=0.0 if kind == _PURCHASE else -AMOUNT_MAX)
    elif kind == _RATING:
        raise InvalidField("value", "missing", "the rating, where type is RATING")
    custom_type = event.custom_type
    if kind == _CUSTOM:
        check_id("custom_type", custom_type)
    elif custom_type:
        raise InvalidField("custom_type", _shown(custom_type), "empty unless type is CUSTOM")
    if event.HasField("context"):
        _check_context(event.context)


def check_append_time(occurred_at_ms: int, append_time_ms: int) -> None:
    """Check that an event is not from the future, as of the broker's append time.

    Not as of now: a replay of the log must give the same verdict.
    """
    ahead_ms = occurred_at_ms - append_time_ms
    if ahead_ms > FUTURE_MAX_MS:
        raise InvalidField(
            "occurred_at_ms",
            f"{occurred_at_ms} is {ahead_ms / 1000:.0f} s ahead of the append time {append_time_ms}",
            f"at most {FUTURE_MAX_MS // 1000} s ahead",
        )


def check_item(item: Item) -> None:
    """Check a catalogue entry."""
    check_id("item_id", item.item_id)
    _check_text("title", item.title, TITLE_MAX_BYTES)
    _check_text("category", item.category)
    _check_list("tags", item.tags, TAGS_MAX, _check_text)
    if item.HasField("price"):
        _check_amount("price", item.price, least=0.0)
    if item.published_at_ms:
        _check_time("published_at_ms", item.published_at_ms, PUBLISHED_MIN_MS)
    _check_text("url", item.url, URL_MAX_BYTES)
    _check_text("image_url", item.image_url, URL_MAX_BYTES)
    _check_attributes("attributes", item.attributes)


def check_recommend_request(request: RecommendRequest) -> None:
    """Check a request for one user."""
    check_id("user_id", request.user_id)
    if not 1 <= request.k <= K_MAX:
        raise InvalidField("k", str(request.k), f"1 to {K_MAX}")
    if request.HasField("context"):
        _check_context(request.context)
    _check_text("session_id", request.session_id)
    _check_list("exclude_item_ids", request.exclude_item_ids, LISTED_ITEMS_MAX, check_id)
    _check_list("restrict_to_item_ids", request.restrict_to_item_ids, LISTED_ITEMS_MAX, check_id)
    if request.HasField("as_of_ms"):
        _check_time("as_of_ms", request.as_of_ms, OCCURRED_MIN_MS)
    _check_text("request_id", request.request_id)
    if request.repeat_policy not in RepeatPolicy.values():
        raise InvalidField("repeat_policy", f"unknown value {request.repeat_policy}", "LEARNED, EXCLUDE, or not set")
    if request.viewport > VIEWPORT_MAX:
        raise InvalidField("viewport", str(request.viewport), f"1 to {VIEWPORT_MAX}, or 0 for the service's setting")


def check_recommend_batch(batch: RecommendBatchRequest) -> None:
    """Check a request for several users; the error names the place in the batch."""
    if not 1 <= len(batch.requests) <= BATCH_MAX:
        raise InvalidField("requests", f"{len(batch.requests)} requests", f"1 to {BATCH_MAX}")
    for place, request in enumerate(batch.requests):
        try:
            check_recommend_request(request)
        except InvalidField as error:
            raise InvalidField(f"requests[{place}].{error.field}", error.problem, error.allowed) from None


# What each action of a command must name.
_COMMAND_IDS: Mapping[str, tuple[str, ...]] = {
    "retrain": ("model_name",),
    "trigger_update": ("model_name",),
    "promote": ("model_name", "model_version"),
    "roll_back": ("model_name",),
    "define_experiment": ("definition.experiment_id",),
    "start_experiment": ("experiment_id",),
    "stop_experiment": ("experiment_id",),
    "cancel_retrain": ("model_name",),
}


def check_command(command: Command) -> None:
    """Check that a command has its id and names its target."""
    check_id("command_id", command.command_id)
    _check_time("issued_at_ms", command.issued_at_ms, OCCURRED_MIN_MS)
    _check_text("issued_by", command.issued_by)
    _check_text("reason", command.reason, TITLE_MAX_BYTES)
    action = command.WhichOneof("action")
    if action is None:
        raise InvalidField("action", "missing", ", ".join(_COMMAND_IDS))
    for path in _COMMAND_IDS[action]:
        value = getattr(command, action)
        for name in path.split("."):
            value = getattr(value, name)
        check_id(f"{action}.{path}", value)
    if action == "roll_back":
        _check_text("roll_back.model_version", command.roll_back.model_version)
        _check_text("roll_back.checkpoint_id", command.roll_back.checkpoint_id)
    elif action == "start_experiment":
        _check_text("start_experiment.override_reason", command.start_experiment.override_reason, TITLE_MAX_BYTES)
        for place, one in enumerate(command.start_experiment.evidence):
            _check_evidence(f"start_experiment.evidence[{place}]", one)


def _check_evidence(field: str, evidence: GateEvidence) -> None:
    for name in ("model_version", "champion_version"):
        check_id(f"{field}.{name}", getattr(evidence, name))
    _check_text(f"{field}.refusal", evidence.refusal, TITLE_MAX_BYTES)
    for name in ("effect", "effect_low", "effect_high"):
        value = getattr(evidence, name)
        if not math.isfinite(value):
            raise InvalidField(f"{field}.{name}", repr(value), "a finite number")


def check_id(field: str, value: str) -> None:
    """Check an id: 1-256 bytes of UTF-8 without control characters; spaces are fine."""
    if not value:
        raise InvalidField(field, "missing", _ID_ALLOWED)
    if not _is_plain(value):
        _check_characters(field, value, ID_MAX_BYTES, _ID_ALLOWED)


def _check_text(field: str, value: str, max_bytes: int = TEXT_MAX_BYTES) -> None:
    if not _is_plain(value):
        _check_characters(field, value, max_bytes, f"at most {max_bytes} bytes of UTF-8 without control characters")


def _is_plain(value: str) -> bool:
    """Whether it is short printable ASCII: then it breaks no rule of any text (the common case, 0.1 µs)."""
    return len(value) <= TEXT_MAX_BYTES and value.isascii() and value.isprintable()


def _check_characters(field: str, value: str, max_bytes: int, allowed: str) -> None:
    if (size := len(value.encode())) > max_bytes:
        raise InvalidField(field, f"{size} bytes ({_shown(value)})", allowed)
    if found := _CONTROL.search(value):
        raise InvalidField(
            field, f"control character U+{ord(found[0]):04X} at {found.start()} ({_shown(value)})", allowed
        )


def _check_time(field: str, value: int, least: int) -> None:
    if least <= value <= TIME_MAX_MS:
        return
    if value == 0:
        problem = "missing"
    elif value < 0:
        problem = f"{value} is negative"
    elif value < least:
        problem = f"{value} looks like seconds"
    else:
        problem = f"{value} looks like micro- or nanoseconds"
    raise InvalidField(field, problem, f"Unix milliseconds, {least} to {TIME_MAX_MS}")


def _check_amount(field: str, value: float, least: float) -> None:
    if not least <= value <= AMOUNT_MAX:  # NaN fails every comparison
        problem = repr(value) if math.isfinite(value) else f"{value} is not finite"
        raise InvalidField(field, problem, f"{least:g} to {AMOUNT_MAX:g}")


def _check_context(context: Context) -> None:
    texts = (context.device, context.os, context.country, context.region, context.referrer, context.placement)
    if not _is_plain("".join(texts)):
        for name, value in zip(_CONTEXT_TEXTS, texts, strict=True):
            _check_text(f"context.{name}", value)
    _check_attributes("context.attributes", context.attributes)


def _check_attributes(field: str, attributes: Mapping[str, str]) -> None:
    if not attributes:
        return
    if len(attributes) > ATTRIBUTES_MAX:
        raise InvalidField(field, f"{len(attributes)} entries", f"at most {ATTRIBUTES_MAX}")
    for name in attributes:  # items() of a protobuf map takes four times as long
        value = attributes[name]
        if not _is_plain(name + value):
            _check_text(f"{field} key", name)
            _check_text(f"{field}[{name!r}]", value)


def _check_list(field: str, values: Sequence[str], most: int, check: Callable[[str, str], None]) -> None:
    if len(values) > most:
        raise InvalidField(field, f"{len(values)} entries", f"at most {most}")
    for place, value in enumerate(values):
        check(f"{field}[{place}]", value)


def _shown(value: str) -> str:
    """The value for a message, cut to what fits one line."""
    return repr(value) if len(value) <= 40 else f"{value[:40]!r}…"

"""The joiner: labels, waiting, windows, duplicates; and that a restart at any moment changes nothing."""

from __future__ import annotations

import random

import pytest

from millrace.errors import InvalidField
from millrace.outcomes.joiner import JoinerLimits, PartitionJoiner, Verdict
from millrace.outcomes.taken import PIECES, TakenWindow, hashed
from millrace.settings import MINUTE_MS
from millrace.v1.common_pb2 import Position
from millrace.v1.impression_pb2 import AnswerStatus, Impression
from millrace.v1.interaction_pb2 import Interaction
from millrace.v1.joiner_pb2 import JoinerState
from millrace.v1.outcome_pb2 import Outcome
from tests.outcome_support import T0, act, check_frames, impression, labels

LIMITS = JoinerLimits(window_ms=30 * MINUTE_MS, grace_ms=5_000, dedup_window=1_000, open_max=1_000)
ITEMS = [f"item-{number}" for number in range(20)]
APPENDED = T0 + 10 * 365 * 24 * 60 * MINUTE_MS


class Log:
    """Feeds a joiner record by record."""

    def __init__(self, limits: JoinerLimits = LIMITS) -> None:
        self.joiner = PartitionJoiner(limits)
        self.offset = 0
        self.outcomes: list[Outcome] = []

    def show(self, request_id: str, user: str = "u", items: list[str] = ITEMS, at_ms: int = T0) -> bool:
        return self.take(impression(request_id, user, items, at_ms))

    def take(self, shown: Impression) -> bool:
        self.offset += 1
        opened = self.joiner.impression(shown, Position(topic="impressions", offset=self.offset), APPENDED)
        self._collect()
        return opened

    def do(self, event: Interaction) -> Verdict:
        self.offset += 1
        verdict = self.joiner.interaction(event, self.offset, APPENDED)
        self._collect()
        return verdict

    def pass_time(self, at_ms: int) -> None:
        """Somebody else does something then."""
        self.do(act("somebody", "elsewhere", at_ms=at_ms))

    def labels(self) -> dict[str, str]:
        check_frames(self.outcomes)
        return {item: label for (_, item), label in labels(self.outcomes).items()}

    def _collect(self) -> None:
        self.outcomes += self.joiner.outcomes
        self.joiner.outcomes.clear()


def test_a_click_is_positive_at_once_and_the_rest_when_the_window_closes() -> None:
    log = Log()
    log.show("r")
    assert log.do(act("u", "item-3", at_ms=T0 + 1_000, request_id="r")) is Verdict.LABELLED
    assert log.labels() == {"item-3": "positive"}
    positive = log.outcomes[0].slots[0]
    assert positive.slot.rank == 3
    assert positive.interaction_at_ms == T0 + 1_000
    log.pass_time(T0 + LIMITS.window_ms - 1)
    assert len(log.outcomes) == 1
    log.pass_time(T0 + LIMITS.window_ms)
    found = log.labels()
    assert [item for item in ITEMS if found[item] == "negative"] == ITEMS[:3]
    assert [item for item in ITEMS if found[item] == "unseen"] == ITEMS[4:]
    assert [outcome.final for outcome in log.outcomes] == [False, True]
    assert log.joiner.open_count == 0


def test_without_click_or_view_the_viewport_was_seen() -> None:
    log = Log()
    log.show("r")
    log.pass_time(T0 + LIMITS.window_ms)
    assert [item for item, label in log.labels().items() if label == "negative"] == ITEMS[:10]


def test_views_say_what_was_seen() -> None:
    log = Log()
    log.show("r")
    assert log.do(act("u", "item-12", "view", request_id="r")) is Verdict.VIEWED
    assert log.do(act("u", "item-12", "view", request_id="r")) is Verdict.REPEATED
    assert log.do(act("u", "item-0", "view")) is Verdict.VIEWED
    log.pass_time(T0 + LIMITS.window_ms)
    assert [item for item, label in log.labels().items() if label == "negative"] == ["item-0", "item-12"]


def test_a_slot_is_decided_once() -> None:
    log = Log()
    log.show("r")
    assert log.do(act("u", "item-1", "dislike", request_id="r")) is Verdict.LABELLED
    assert log.do(act("u", "item-1", "click", request_id="r")) is Verdict.REPEATED
    assert log.do(act("u", "item-2", "click", request_id="r")) is Verdict.LABELLED
    assert log.do(act("u", "item-2", "purchase", request_id="r")) is Verdict.REPEATED
    assert log.labels() == {"item-1": "negative", "item-2": "positive"}


def test_the_last_slot_decided_is_final() -> None:
    log = Log()
    log.show("r", items=["a", "b"])
    log.do(act("u", "a", request_id="r"))
    log.do(act("u", "b", request_id="r"))
    assert [(outcome.first, outcome.final) for outcome in log.outcomes] == [(True, False), (False, True)]
    assert log.joiner.open_count == 0
    log.pass_time(T0 + LIMITS.window_ms)
    assert len(log.outcomes) == 2


def test_a_click_without_a_name_belongs_to_the_newest_answer_that_shows_the_item() -> None:
    log = Log()
    log.show("old", items=["a", "b"])
    log.show("new", items=["b", "c"], at_ms=T0 + 1)
    log.show("others", user="other", items=["a", "b", "c"], at_ms=T0 + 2)
    log.do(act("u", "b"))
    log.do(act("u", "a"))
    assert list(labels(log.outcomes)) == [("new", "b"), ("old", "a")]
    assert log.do(act("u", "nowhere")) is Verdict.ORGANIC
    assert [event.item_id for event, _ in log.joiner.organic] == ["nowhere"]


def test_a_click_waits_for_its_answer() -> None:
    log = Log()
    assert log.do(act("u", "item-4", at_ms=T0 + 10, request_id="r")) is Verdict.WAITING
    assert log.joiner.waiting_count == 1
    log.show("r")
    assert log.labels() == {"item-4": "positive"}
    assert log.joiner.waiting_count == 0


def test_a_click_whose_answer_never_comes_is_organic_after_the_grace() -> None:
    log = Log()
    log.do(act("u", "item-4", request_id="lost"))
    log.pass_time(T0 + LIMITS.grace_ms)
    log.joiner.organic.clear()
    log.pass_time(T0 + LIMITS.grace_ms + 1)
    assert "item-4" in [event.item_id for event, _ in log.joiner.organic]
    assert log.joiner.waiting_count == 0


def test_a_click_after_the_window_is_late() -> None:
    log = Log()
    log.show("r")
    log.pass_time(T0 + LIMITS.window_ms)
    assert log.do(act("u", "item-4", request_id="r")) is Verdict.LATE
    assert log.labels()["item-4"] == "negative"


def test_duplicates_change_nothing() -> None:
    log = Log()
    assert log.show("r")
    assert not log.show("r")
    click = act("u", "item-1", event_id="e")
    assert log.do(click) is Verdict.LABELLED
    log.show("r2", at_ms=T0 + 1)
    # Without the rule it would belong to the newer answer.
    assert log.do(click) is Verdict.DUPLICATE
    assert log.do(act("other", "item-1", event_id="e")) is Verdict.ORGANIC
    log.pass_time(T0 + 2 * LIMITS.window_ms)
    assert not log.show("r", at_ms=T0 + 2 * LIMITS.window_ms)
    assert len(labels(log.outcomes)) == 40


@pytest.mark.parametrize(
    ("event", "field"), [(act("u", "not shown", request_id="r"), "item_id"), (act("x", "a", request_id="r"), "user_id")]
)
def test_what_does_not_fit_its_answer_is_refused_and_can_come_again(event: Interaction, field: str) -> None:
    log = Log()
    log.show("r", items=["a"])
    for _ in range(2):
        with pytest.raises(InvalidField) as refused:
            log.do(event)
        assert refused.value.field == field
    early = Log()
    early.do(event)
    early.show("r", items=["a"])
    [(held, misplaced)] = early.joiner.misplaced
    assert held.event_id == event.event_id
    assert misplaced.error.field == field
    assert misplaced.offset == 1


def test_a_user_who_wants_to_be_forgotten_leaves_nothing_open() -> None:
    log = Log()
    log.show("r")
    log.show("r2", user="v", at_ms=T0)
    log.do(act("u", "x", request_id="waits"))
    forget = act("u", "", "forget")
    assert log.do(forget) is Verdict.FORGOTTEN
    log.pass_time(T0 + LIMITS.window_ms)
    assert {outcome.user_id for outcome in log.outcomes} == {"v"}
    assert log.joiner.waiting_count == 0


def test_the_clock_moves_on_while_nothing_happens_and_no_producer_can_push_it() -> None:
    log = Log()
    log.show("r")
    ahead = act("somebody", "x", at_ms=T0 + LIMITS.window_ms)
    log.joiner.interaction(ahead, 9, append_time_ms=T0 + 1_000)
    log._collect()
    assert not log.outcomes
    log.joiner.idle(100.0)
    log.joiner.idle(100.0 + (LIMITS.window_ms - 1_001) / 1_000)
    log._collect()
    assert not log.outcomes
    log.joiner.idle(100.5 + LIMITS.window_ms / 1_000)
    log._collect()
    assert len(log.labels()) == 20


def test_an_answer_of_an_experiment_that_shows_nothing_is_decided_when_its_window_closes() -> None:
    """Not before: an arm whose answers fail would show its users earlier than the others."""
    log = Log()
    for request_id, experiment_id in (("failed", "e"), ("of nothing", "")):
        failed = impression(request_id, "u", [])
        failed.status, failed.experiment_id = AnswerStatus.ANSWER_STATUS_FAILED, experiment_id
        log.take(failed)
        assert log.do(act("u", ITEMS[0], request_id=request_id)) == Verdict.LATE
    assert log.do(act("u", ITEMS[0])) == Verdict.ORGANIC
    log.pass_time(T0 + LIMITS.window_ms - 1)
    assert log.outcomes == []
    log.pass_time(T0 + LIMITS.window_ms)
    (outcome,) = log.outcomes
    assert (outcome.request_id, list(outcome.slots), outcome.first, outcome.final) == ("failed", [], True, True)
    assert outcome.impression.status == AnswerStatus.ANSWER_STATUS_FAILED
    assert log.joiner.open_count == 0


def test_too_many_open_answers_close_early_the_oldest_first() -> None:
    log = Log(JoinerLimits(30 * MINUTE_MS, 5_000, 1_000, open_max=100))
    for number in range(101):
        log.show(f"r{number}", at_ms=T0 + number, items=["a"])
    assert log.joiner.open_count == 100
    assert log.joiner.closed_early == 1
    assert log.outcomes[0].request_id == "r0"


def test_the_window_of_ids_forgets_the_oldest_and_survives_a_restart() -> None:
    window = TakenWindow(1_000)
    kept: dict[int, JoinerState] = {}
    for number in range(5_000):
        window.add(hashed(str(number)))
        if number % 37 == 0:
            kept.update({place: JoinerState(taken=taken) for place, taken in window.changes()})
    kept.update({place: JoinerState(taken=taken) for place, taken in window.changes()})
    again = TakenWindow(1_000)
    for state in random.Random(1).sample(list(kept.values()), len(kept)):
        again.load(state.taken)
    assert len(kept) == PIECES
    for number in range(5_000):
        assert (hashed(str(number)) in window) == (hashed(str(number)) in again)
        assert hashed(str(number)) in window or number < 4_000
    assert len(window) == len(again) <= 1_024


def happenings(seed: int, count: int = 400) -> list[Impression | Interaction]:
    """A random log: answers, interactions of every kind with and without names, early, late, twice, wrong."""
    chance = random.Random(seed)
    log: list[Impression | Interaction] = []
    at_ms = T0
    for number in range(count):
        at_ms += chance.choice((10, 1_000, 20_000))
        user = f"u{chance.randrange(5)}"
        if chance.random() < 0.25:
            shown = impression(f"r{number}", user, chance.sample(ITEMS, 6), at_ms, viewport=3)
            if chance.random() < 0.1:
                failed = impression(f"failed {number}", user, [], at_ms)
                failed.experiment_id = "e"
                log.append(failed)
            late = chance.random() < 0.2
            log.append(shown)
            if late and len(log) > 1:
                log[-1], log[-2] = log[-2], log[-1]
        else:
            named = [one for one in log[-30:] if isinstance(one, Impression)]
            about = chance.choice(named) if named and chance.random() < 0.8 else None
            kind = chance.choices(("click", "view", "dislike", "purchase"), (5, 5, 1, 1))[0]
            shows = about is not None and about.slots and chance.random() < 0.95
            item = chance.choice(about.slots).item_id if about and shows else chance.choice(ITEMS)
            event = act(
                about.user_id if about else user,
                item,
                kind,  # type: ignore[arg-type]
                at_ms,
                request_id=about.request_id if about and chance.random() < 0.7 else "",
                event_id=f"e{number}",
            )
            if chance.random() < 0.05:
                event.request_id = f"r{number + 1}"
            log.append(event)
            if chance.random() < 0.1:
                log.append(event)
    log.append(act("last", "last", at_ms=at_ms + 2 * LIMITS.window_ms, event_id="last"))
    return log


def play(log: list[Impression | Interaction], restart_at: frozenset[int]) -> tuple[list[bytes], list[str]]:
    """Outcomes and refusals; before some records everything but what a commit wrote is lost."""
    joiner = PartitionJoiner(LIMITS)
    kept: dict[str, JoinerState] = {}
    outcomes: list[bytes] = []
    refused: list[str] = []
    for offset, one in enumerate(log):
        if offset in restart_at:
            joiner = PartitionJoiner.restored(LIMITS, kept)
        try:
            if isinstance(one, Impression):
                joiner.impression(one, Position(offset=offset), APPENDED)
            else:
                joiner.interaction(one, offset, APPENDED)
        except InvalidField as error:
            refused.append(f"{offset} {error}")
        refused += [f"{misplaced.offset} {misplaced.error}" for _, misplaced in joiner.misplaced]
        joiner.misplaced.clear()
        outcomes += [outcome.SerializeToString(deterministic=True) for outcome in joiner.outcomes]
        outcomes += [event.SerializeToString(deterministic=True) for event, _ in joiner.organic]
        joiner.outcomes.clear()
        joiner.organic.clear()
        # A commit after each record, written and read as bytes.
        for key, state in joiner.changes():
            if state is None:
                del kept[key]  # a tombstone for nothing would be a defect
            else:
                kept[key] = JoinerState.FromString(state.SerializeToString())
    return outcomes, refused


@pytest.mark.parametrize("seed", range(30))
def test_restarts_change_nothing(seed: int) -> None:
    log = happenings(seed)
    chance = random.Random(seed)
    restarts = frozenset(chance.sample(range(len(log)), 40))
    outcomes, refused = play(log, frozenset())
    assert play(log, restarts) == (outcomes, refused)
    assert len(outcomes) > 100


@pytest.mark.parametrize("seed", range(10))
def test_every_slot_shown_is_decided_once(seed: int) -> None:
    log = happenings(seed)
    joiner = PartitionJoiner(LIMITS)
    for offset, one in enumerate(log):
        try:
            if isinstance(one, Impression):
                joiner.impression(one, Position(offset=offset), APPENDED)
            else:
                joiner.interaction(one, offset, APPENDED)
        except InvalidField:
            continue
    check_frames(joiner.outcomes)
    shown = {(one.request_id, slot.item_id) for one in log if isinstance(one, Impression) for slot in one.slots}
    assert set(labels(joiner.outcomes)) == shown

"""What one experiment has seen in one partition. Users have one partition, so that tallies add up.

    outcome ──all slots of the answer decided──► figures and comparisons of its arm
       └──served_at──► when purchases of the user count ◄── purchase

An answer counts once all of its slots are decided: clicks are known at once and their absence only when a window
closes, so that an answer half known would look better than it was. Everything depends on the order inside the
partition alone: the same log gives the same figures, to the digit, however partitions were interleaved.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from millrace.errors import InvalidField
from millrace.events.rules import FUTURE_MAX_MS
from millrace.experiments.assignment import TOLERANCE, assign
from millrace.experiments.definition import COVERAGE, is_thompson, outcomes
from millrace.experiments.measures import Answered, Measures
from millrace.experiments.participants import Participant
from millrace.experiments.periods import Allocation
from millrace.v1.experiment_pb2 import ArmFigures, ExperimentDefinition
from millrace.v1.impression_pb2 import AnswerStatus, Fallback, Impression
from millrace.v1.outcome_pb2 import Label, Outcome
from millrace.v1.tracker_pb2 import (
    TrackedAnswer,
    TrackedFigures,
    TrackedPeriod,
    TrackedUser,
    TrackerState,
    WaitingPurchase,
)

# Upper ends of the places of serve_counts, microseconds: 100 * 2^(i / 2), to 1.6 s; the last place is open.
SERVE_BOUNDS = tuple(100 * 2 ** (place / 2) for place in range(29))

# Named once: looking an enum's value up costs as much as the rest of a slot.
_POSITIVE = Label.LABEL_POSITIVE
_SEEN = (_POSITIVE, Label.LABEL_NEGATIVE)
_LABELS = (*_SEEN, Label.LABEL_UNSEEN)
_FALLBACKS = (
    Fallback.FALLBACK_NO_MODEL,
    Fallback.FALLBACK_FEATURES_UNAVAILABLE,
    Fallback.FALLBACK_ARM_UNAVAILABLE,
)
_BAD = (AnswerStatus.ANSWER_STATUS_DEGRADED, AnswerStatus.ANSWER_STATUS_FAILED)


@dataclass(slots=True)
class HalfKnown:
    """An answer of which some slots are decided.

    Attributes
    ----------
    slots, clicks
        That count as seen, and those of them with a click.
    item_ids
        Of the decided slots; empty where coverage is not looked at.
    """

    slots: int = 0
    clicks: int = 0
    item_ids: list[str] = field(default_factory=list)


class Tally:
    """Figures, comparisons and users of one experiment in one partition.

    Attributes
    ----------
    figures
        By arm; ``statistics`` are written by :meth:`parts` only.
    measures
        What the arms are compared by.
    newest_ms
        Event time of the newest outcome, Unix milliseconds; 0 before.
    """

    def __init__(self, definition: ExperimentDefinition, partition: int, allocation: Allocation) -> None:
        self._id = definition.experiment_id
        self._partition = partition
        self._window_ms = definition.conversion_window_ms
        self._slow_micros = definition.guardrails.slow_micros
        self._allocation = allocation
        self._salt, self._moves = definition.salt, is_thompson(definition)
        self._covers = COVERAGE in outcomes(definition)
        self.figures = {
            arm.name: ArmFigures(name=arm.name, weight=arm.share, serve_counts=[0] * (len(SERVE_BOUNDS) + 1))
            for arm in definition.arms
        }
        self.measures = Measures(definition, allocation)
        self.newest_ms = 0
        # By number and arm, under THOMPSON.
        self._came: dict[int, dict[str, int]] = {}
        self._users: dict[str, Participant] = {}
        # By request_id, the oldest first.
        self._answers: dict[str, HalfKnown] = {}
        # Purchases that wait: append time and user, the oldest first.
        self._waiting: deque[tuple[int, str]] = deque()
        self._changed_users: set[str] = set()
        self._changed_answers: set[str] = set()

    @property
    def users(self) -> int:
        """Users in memory."""
        return len(self._users)

    @property
    def answers(self) -> int:
        """Answers of which some slots are decided."""
        return len(self._answers)

    def knows(self, user: str) -> bool:
        """Whether something is known of the user."""
        return user in self._users

    def outcome(self, outcome: Outcome, append_time_ms: int) -> bool:
        """Take an outcome; False if it is the rest of an answer whose first slots were never seen, and is left out.

        Raises
        ------
        InvalidField
            It cannot be of this experiment; nothing has changed.
        """
        impression = outcome.impression
        self._check(outcome, append_time_ms)
        before = self._answers.pop(outcome.request_id, None)
        if before is None and not outcome.first:
            return False
        answer = before or HalfKnown()
        for decided in outcome.slots:
            if decided.label in _SEEN:
                answer.slots += 1
                answer.clicks += decided.label == _POSITIVE
        if self._covers:
            answer.item_ids.extend(decided.slot.item_id for decided in outcome.slots)
        user = self._users.setdefault(outcome.user_id, Participant())
        user.arm, served_at_ms = impression.arm, impression.served_at_ms
        if user.earlier is None and impression.HasField("earlier_activity"):
            user.earlier = impression.earlier_activity
        user.expose(user.arm, impression.period, served_at_ms, served_at_ms + self._window_ms)
        self._attribute(user)
        if before is not None or not outcome.final:
            self._changed_answers.add(outcome.request_id)
        if outcome.final:
            self._count(outcome.user_id, user, impression, answer)
        else:
            self._answers[outcome.request_id] = answer
        self._changed_users.add(outcome.user_id)
        self.newest_ms = max(self.newest_ms, outcome.decided_at_ms)
        return True

    def purchase(self, user_id: str, event_id: str, at_ms: int, value: float, append_time_ms: int) -> None:
        """Take a purchase: it counts if it follows an answer in time, now or when such an answer comes to be known."""
        user = self._users.setdefault(user_id, Participant())
        if not user.buy(WaitingPurchase(event_id=event_id, at_ms=at_ms, value=value, since_ms=append_time_ms)):
            return
        self._attribute(user)
        if user.purchases:
            self._waiting.append((append_time_ms, user_id))
        self._changed_users.add(user_id)

    def expire(self, before_ms: int) -> None:
        """Let go of purchases that were appended before, Unix ms: no answer came that they could follow from."""
        while self._waiting and self._waiting[0][0] < before_ms:
            _, user_id = self._waiting.popleft()
            user = self._users.get(user_id)
            if user is None:
                continue
            user.purchases = [one for one in user.purchases if one.since_ms >= before_ms]
            if not user.arm and not user.purchases:
                del self._users[user_id]
            self._changed_users.add(user_id)

    def drop_answers(self, most: int) -> int:
        """Let go of the oldest half-known answers beyond so many; how many. The rest of them is left out."""
        dropped = 0
        while len(self._answers) > most:
            request_id = next(iter(self._answers))
            del self._answers[request_id]
            self._changed_answers.add(request_id)
            dropped += 1
        return dropped

    def forget(self, user_id: str) -> None:
        """Erase a user; what the user contributed to the sums names nobody and stays."""
        if self._users.pop(user_id, None) is not None:
            self.measures.forget(user_id)
            self._changed_users.add(user_id)

    def parts(self) -> Iterator[tuple[str, TrackerState | None]]:
        """Everything that changed since the last call, by key; None where a part ended."""
        for request_id in self._changed_answers:
            yield self._answer_key(request_id), self._answer_part(request_id)
        for user_id in self._changed_users:
            yield self._user_key(user_id), self._user_part(user_id)
        for item in self.measures.changed_items():
            item.experiment_id, item.partition = self._id, self._partition
            yield self._item_key(item.item_id), TrackerState(item=item)
        yield f"f\0{self._id}\0{self._partition}", TrackerState(figures=self._figures_part())
        self._changed_answers.clear()
        self._changed_users.clear()

    def ends(self) -> Iterator[str]:
        """Keys of everything that stands of this tally."""
        yield f"f\0{self._id}\0{self._partition}"
        yield from map(self._answer_key, self._answers.keys() | self._changed_answers)
        yield from map(self._user_key, self._users.keys() | self._changed_users)
        yield from map(self._item_key, self.measures.item_ids())

    def restore(self, state: TrackerState) -> None:
        """Take back a part that :meth:`parts` gave."""
        part = state.WhichOneof("part")
        if part == "answer":
            answer = state.answer
            self._answers[answer.request_id] = HalfKnown(answer.slots, answer.clicks, list(answer.item_ids))
        elif part == "user":
            self._restore_user(state.user)
        elif part == "item":
            self.measures.restore_item(state.item)
        elif part == "figures":
            self.newest_ms = state.figures.newest_ms
            self._came = {one.number: dict(zip(self.figures, one.users, strict=True)) for one in state.figures.periods}
            for figures in state.figures.figures:
                self.figures[figures.name].CopyFrom(figures)
                self.measures.restore_figures(figures)

    def came_in(self, period: int) -> list[int]:
        """Users who came in the period, by arm."""
        came = self._came.get(period, {})
        return [came.get(arm, 0) for arm in self.figures]

    def restored(self) -> None:
        """All parts are back."""
        waiting = [(one.since_ms, name) for name, user in self._users.items() for one in user.purchases]
        self._waiting = deque(sorted(waiting))

    def _check(self, outcome: Outcome, append_time_ms: int) -> None:
        impression, user_id = outcome.impression, outcome.user_id
        arm, period = impression.arm, impression.period
        shares = self._allocation.shares(period)
        share = shares.get(arm)
        if share is None:
            raise InvalidField("impression.arm", repr(arm), ", ".join(shares))
        if abs(impression.propensity - share) > TOLERANCE:
            raise InvalidField("impression.propensity", f"{impression.propensity:g}", f"{share:g}, the share of {arm}")
        if self._moves:
            drawn = assign(self._salt, user_id, shares, period).arm
            if arm != drawn:
                raise InvalidField("impression.arm", repr(arm), f"{drawn!r}, the user's arm in period {period}")
        else:
            known = self._users.get(user_id)
            if known is not None and known.arm and known.arm != arm:
                raise InvalidField("impression.arm", f"{arm!r}, after {known.arm!r}", "one arm for a user")
        if outcome.decided_at_ms > append_time_ms + FUTURE_MAX_MS:
            ahead_s = (outcome.decided_at_ms - append_time_ms) / 1_000
            allowed = f"at most {FUTURE_MAX_MS // 1_000} s ahead"
            raise InvalidField("decided_at_ms", f"{ahead_s:.0f} s ahead of the append time", allowed)
        for place, decided in enumerate(outcome.slots):
            if decided.label not in _LABELS:
                raise InvalidField(f"slots[{place}].label", str(decided.label), "POSITIVE, NEGATIVE or UNSEEN")

    def _count(self, user_id: str, user: Participant, impression: Impression, answer: HalfKnown) -> None:
        arm, period = impression.arm, impression.period
        figures = self.figures[arm]
        bad = impression.fallback in _FALLBACKS or impression.status in _BAD
        figures.users += user.counts_in(arm)
        if self._moves and user.comes_in(period):
            came = self._came.setdefault(period, {})
            came[arm] = came.get(arm, 0) + 1
        figures.impressions += 1
        figures.slots += answer.slots
        figures.clicks += answer.clicks
        figures.failures += bad
        figures.serve_counts[bisect_right(SERVE_BOUNDS, impression.serve_micros)] += 1
        slow = impression.serve_micros > self._slow_micros
        answered = Answered(answer.slots, answer.clicks, bad, slow, answer.item_ids, period, user.earlier)
        self.measures.take(user_id, arm, answered)

    def _attribute(self, user: Participant) -> None:
        for arm, value in user.attribute() if user.purchases else ():
            figures = self.figures[arm]
            figures.conversions += 1
            figures.conversion_value += value
            self.measures.bought(arm, value)

    def _answer_key(self, request_id: str) -> str:
        return f"a\0{self._id}\0{request_id}"

    def _user_key(self, user_id: str) -> str:
        return f"u\0{self._id}\0{user_id}"

    def _item_key(self, item_id: str) -> str:
        return f"i\0{self._id}\0{self._partition}\0{item_id}"

    def _answer_part(self, request_id: str) -> TrackerState | None:
        if request_id not in self._answers:
            return None
        answer = self._answers[request_id]
        return TrackerState(
            answer=TrackedAnswer(
                experiment_id=self._id,
                request_id=request_id,
                partition=self._partition,
                slots=answer.slots,
                clicks=answer.clicks,
                item_ids=answer.item_ids,
            )
        )

    def _user_part(self, user_id: str) -> TrackerState | None:
        user = self._users.get(user_id)
        if user is None:
            return None
        part = TrackedUser(
            experiment_id=self._id,
            user_id=user_id,
            partition=self._partition,
            sums=self.measures.of_user(user_id),
        )
        user.put(part)
        return TrackerState(user=part)

    def _restore_user(self, user: TrackedUser) -> None:
        self._users[user.user_id] = Participant.of(user)
        self.measures.restore_user(user.user_id, user.sums)

    def _figures_part(self) -> TrackedFigures:
        for arm, figures in self.figures.items():
            for name, value in self.measures.statistics(arm).items():
                figures.statistics[name] = value
        return TrackedFigures(
            experiment_id=self._id,
            partition=self._partition,
            figures=self.figures.values(),
            newest_ms=self.newest_ms,
            periods=[TrackedPeriod(number=period, users=self.came_in(period)) for period in sorted(self._came)],
        )

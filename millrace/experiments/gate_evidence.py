"""What the gate judges: figures of a version on the champion's answers in random order. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from millrace.errors import MillraceError
from millrace.experiments.gate import too_few
from millrace.experiments.off_policy import Estimate
from millrace.experiments.policy_values import line_up, policy_values
from millrace.experiments.shuffled import ShuffledAnswer, ShuffledAnswers
from millrace.ranking.features import FEATURE_SCHEMA
from millrace.ranking.model import RankingModel
from millrace.v1.experiment_pb2 import GateEvidence, PolicyValue


def measure(answers: ShuffledAnswers, load: Callable[[], RankingModel]) -> GateEvidence:
    """What a version would have earned. Its name, times and positions are left to the caller, who read the answers.

    Parameters
    ----------
    load
        Gives the version; it is called if there are enough answers. A MillraceError is a reason to refuse.
    """
    found = answers.answers
    evidence = GateEvidence(
        answers=len(found),
        users=len({one.user_id for one in found}),
        slots=sum(len(one.places) for one in found),
        clicks=sum(int(one.clicked.sum()) for one in found),
    )
    evidence.refusal = too_few(evidence)
    if evidence.refusal and answers.others:
        evidence.refusal += f"; {answers.others:,} of other versions, or with other features, do not count"
    if not evidence.refusal:
        try:
            _compare(evidence, found, load())
        except MillraceError as error:
            evidence.refusal = str(error)
    return evidence


def _compare(evidence: GateEvidence, answers: Sequence[ShuffledAnswer], model: RankingModel) -> None:
    if model.feature_schema != FEATURE_SCHEMA:
        evidence.refusal = f"it ranks by features {model.feature_schema}, and {FEATURE_SCHEMA} are logged"
        return
    values = policy_values(line_up(answers, model))
    effect = values.effect
    evidence.effective, evidence.refusal = effect.effective, values.refusal
    if not values.refusal:
        evidence.version.extend(_by_estimator(values.version))
        evidence.champion.extend(_by_estimator(values.champion))
        evidence.effect, evidence.effect_low, evidence.effect_high = effect.value, effect.low, effect.high


def _by_estimator(estimates: Mapping[str, Estimate]) -> list[PolicyValue]:
    return [PolicyValue(estimator=name, value=one.value, low=one.low, high=one.high) for name, one in estimates.items()]

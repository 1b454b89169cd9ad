"""Which generators proposed a candidate, as bits: arrays of bits are what candidate generation works on."""

from __future__ import annotations

from functools import cache

from millrace.v1.impression_pb2 import CandidateSource

NEIGHBOURS = 1 << CandidateSource.CANDIDATE_SOURCE_NEIGHBOURS
SESSIONS = 1 << CandidateSource.CANDIDATE_SOURCE_SESSION_KNN
TRENDING_SHORT = 1 << CandidateSource.CANDIDATE_SOURCE_TRENDING_SHORT
TRENDING_LONG = 1 << CandidateSource.CANDIDATE_SOURCE_TRENDING_LONG
FRESH = 1 << CandidateSource.CANDIDATE_SOURCE_FRESH
REPEAT = 1 << CandidateSource.CANDIDATE_SOURCE_REPEAT
REQUESTED = 1 << CandidateSource.CANDIDATE_SOURCE_REQUESTED

# From the one that says most about this user's next step to the one that says least.
_ORDER = (SESSIONS, NEIGHBOURS, REPEAT, TRENDING_SHORT, TRENDING_LONG, FRESH, REQUESTED)


@cache
def sources_of(bits: int) -> tuple[CandidateSource.ValueType, ...]:
    """The generators in a candidate's bits, the most telling first."""
    return tuple(CandidateSource.ValueType(bit.bit_length() - 1) for bit in _ORDER if bits & bit)

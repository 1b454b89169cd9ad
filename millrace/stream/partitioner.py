"""Which partition a key belongs to: what librdkafka's ``murmur2_random`` and Java's default partitioner say.

Clients need not know it, their producers do it. It is for who looks for one user's records: they meet in one partition
number of interactions, impressions and outcomes.
"""

from __future__ import annotations

_SEED, _MULTIPLIER = 0x9747B28C, 0x5BD1E995
_WORD = 0xFFFFFFFF


def partition_of(key: str, partitions: int) -> int:
    """Number of the partition, of so many, where records with the key stand (the key is not empty)."""
    return (_murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def _murmur2(data: bytes) -> int:
    """MurmurHash2 for 32 bits (A. Appleby, 2008) with the seed that Kafka chose."""
    whole = len(data) - len(data) % 4
    state = _SEED ^ len(data)
    for place in range(0, whole, 4):
        part = int.from_bytes(data[place : place + 4], "little") * _MULTIPLIER & _WORD
        part = (part ^ part >> 24) * _MULTIPLIER & _WORD
        state = state * _MULTIPLIER & _WORD ^ part
    if whole < len(data):
        state = (state ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _WORD
    state = (state ^ state >> 13) * _MULTIPLIER & _WORD
    return state ^ state >> 15

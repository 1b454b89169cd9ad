"""The policies that are compared in one run, and which shopper meets which."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from millrace.errors import MillraceError
from millrace.simulation.catalogue import Ints

Policy = Literal["recommended", "popular", "random"]
_FORM = re.compile(
    r"(?:(?P<name>[\w-]+)=)?(?P<policy>recommended|popular|random)(?:@(?P<target>.+?:\d+))?(?::(?P<share>[\d.]+))?"
)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to fill pages.

    Attributes
    ----------
    policy
        ``recommended``: a recommender is asked. ``popular``: the storefront shows its most clicked items.
        ``random``: any items.
    target
        gRPC address of the recommender; empty: the one of the settings.
    share
        Of the shoppers, in proportion to the other arms' shares.
    """

    name: str
    policy: Policy
    target: str = ""
    share: float = 1.0


def parse_arm(text: str) -> Arm:
    """``[NAME=]POLICY[@HOST:PORT][:SHARE]``, for example ``popular:0.1`` or ``new=recommended@localhost:50052``."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise MillraceError(
            f"--arm {text}: expected [NAME=]POLICY[@HOST:PORT][:SHARE] where POLICY is recommended, popular or random"
        )
    policy, target = cast("Policy", found["policy"]), found["target"] or ""
    if target and policy != "recommended":
        raise MillraceError(f"--arm {text}: only recommended asks a service; leave out @{target}")
    try:
        share = float(found["share"] or 1)
    except ValueError:
        share = 0.0
    if share <= 0:
        raise MillraceError(f"--arm {text}: the share must be a number above 0")
    return Arm(found["name"] or policy, policy, target, share)


def parse_arms(texts: Sequence[str]) -> list[Arm]:
    """All arms; one that recommends where none is given."""
    arms = [parse_arm(text) for text in texts] or [Arm("recommended", "recommended")]
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names):
        raise MillraceError(f"--arm: two arms are called {max(names, key=names.count)}; name them: NAME=POLICY")
    return arms


def assign(arms: Sequence[Arm], shoppers: int, seed: int) -> Ints:
    """Place of the arm of each shopper: int64[shoppers]. A hash: it depends on the seed and the shopper's number."""
    shares = np.cumsum([arm.share for arm in arms])
    digests = b"".join(hashlib.blake2b(f"{seed}:{n}".encode(), digest_size=8).digest() for n in range(shoppers))
    places = np.frombuffer(digests, np.uint64) / 2**64
    chosen: Ints = np.searchsorted(shares, places * shares[-1], side="right")
    return chosen.clip(max=len(arms) - 1)

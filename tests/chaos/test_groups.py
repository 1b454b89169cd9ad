"""One broker, groups of workers that change, a broker that ends and comes back, a clock that jumps: all under load."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.reliability_document import BROKER_RESTARTS, CLOCK_JUMPS, GROUPS, UPGRADE
from tests.chaos.answered_shop import AnsweredShop, Group
from tests.chaos.forking import Forking
from tests.chaos.impatient import Brokers
from tests.chaos.losing_redis import LosingRedis
from tests.chaos.members import CLOCK_SEED, JUMPS, LATER
from tests.chaos.results import report, times

SEED = 20_261_129
# As many partitions as there are processes at most, so that each of them gets some.
MOST = 4
GROWTHS, RESTARTS, JUMPED, UPGRADES = times(), 2 * times(), 10 * times(), times()
REPLICAS = 3


class Stack:
    """A broker, a Redis, and what is done in the shop over them by the tests of this module."""

    def __init__(self, brokers: Brokers, redis: LosingRedis) -> None:
        self.brokers, self.shop = brokers, AnsweredShop(brokers.kafka, redis, SEED)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, kafka_jars: tuple[Path, ...]) -> Iterator[Stack]:
    redis = LosingRedis(tmp_path_factory.mktemp("redis"))
    with Brokers(tmp_path_factory.mktemp("kafka"), kafka_jars, partitions=MOST) as brokers:
        stack = Stack(brokers, redis)
        yield stack
        stack.shop.close()
    redis.close()


@pytest.fixture(scope="module")
def forking(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    with Forking(tmp_path_factory.mktemp("members"), "tests.chaos.members:member", stack.shop.env) as forking:
        yield forking


class Result:
    """What a test finds: set inside of the block, reported after it."""

    def __init__(self) -> None:
        self.faults = 0
        self.recovered: list[float] = []


@contextmanager
def under_load(stack: Stack, fault: str, groups: Sequence[Group]) -> Iterator[Result]:
    """Events flow in the block, in which faults are caused; then all that ever flowed is what the ledger says."""
    result = Result()
    with stack.shop.acting():
        stack.shop.moves(*groups)
        yield result
    ledger = stack.shop.end(*groups)
    report(fault, result.faults, stack.shop.found(ledger), result.recovered)
    stack.shop.assert_equals(ledger)


def two_groups(forking: Forking, env: Mapping[str, str] | None = None) -> list[Group]:
    """A feature updater and a joiner, each alone."""
    groups = [Group(forking, worker) for worker in ("feature_updater", "outcome_joiner")]
    for group in groups:
        group.join(env)
    return groups


@pytest.mark.timeout(600 + 120 * GROWTHS)
def test_groups_grow_to_four_and_shrink(stack: Stack, forking: Forking) -> None:
    chance, groups = random.Random(SEED), two_groups(forking)
    with under_load(stack, GROUPS, groups) as result:
        for _ in range(GROWTHS):
            for _ in range(MOST - 1):
                for group in groups:
                    group.join()
                result.recovered.append(stack.shop.moves(*groups))
            for leaves in range(MOST - 1):
                for group in groups:
                    group.leave(chance.choice(group.members), killed=leaves % 2 == 0)
                result.recovered.append(stack.shop.moves(*groups))
            result.faults += 2 * (MOST - 1) * len(groups)


@pytest.mark.timeout(600 + 60 * JUMPED)
def test_the_clocks_of_workers_jump(stack: Stack, forking: Forking) -> None:
    groups = two_groups(forking, {CLOCK_SEED: str(SEED)})
    with under_load(stack, CLOCK_JUMPS, groups) as result:
        members = [member for group in groups for member in group.members]
        for member in members:
            member.until(lambda member=member: member.output().count(JUMPS) >= JUMPED)  # type: ignore[misc]
        stack.shop.moves(*groups)
        result.faults = sum(member.output().count(JUMPS) for member in members)


@pytest.mark.chaos
@pytest.mark.timeout(600 + 120 * UPGRADES)
def test_processes_are_upgraded_and_rolled_back_one_at_a_time(stack: Stack, forking: Forking) -> None:
    groups = two_groups(forking)
    for group in groups:
        for _ in range(REPLICAS - 1):
            group.join()
    with under_load(stack, UPGRADE, groups) as result:
        for _ in range(UPGRADES):
            for release in ({LATER: "1"}, {}):
                for _ in range(REPLICAS):
                    for group in groups:
                        group.join(release)
                        group.leave(group.members[0], killed=False)
                        result.faults += 1
                    result.recovered.append(stack.shop.moves(*groups))


@pytest.mark.timeout(600 + 60 * RESTARTS)
def test_the_broker_restarts_and_nobody_else(stack: Stack, forking: Forking) -> None:
    groups = two_groups(forking)
    [node] = stack.brokers.nodes
    with under_load(stack, BROKER_RESTARTS, groups) as result:
        for restart in range(RESTARTS):
            if restart % 2 == 0:
                stack.brokers.kill(node)
            else:
                stack.brokers.stop(node)
            stack.brokers.start(node)
            result.recovered.append(stack.shop.moves(*groups))
            result.faults += 1

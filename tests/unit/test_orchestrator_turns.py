"""The orchestrator's wiring without a broker: credentials, turns, threads."""

from __future__ import annotations

import asyncio
import threading

import faust
import pytest

from millrace.errors import InfrastructureError
from millrace.registry.asking import promote
from millrace.registry.controller import Controller
from millrace.registry.journal import Journal
from millrace.registry.registry import Registry
from millrace.settings import KafkaSettings, MlflowSettings, RetrainSettings, StreamSettings
from millrace.v1.command_pb2 import Command
from workers.retrain_orchestrator import brokers
from workers.retrain_orchestrator.contest import Surroundings
from workers.retrain_orchestrator.retrainer import Retrainer
from workers.retrain_orchestrator.turns import Turns, in_thread

COMMAND = promote("ranker", "1", "me", "")


class Scripted(Controller):
    """A controller that fails a number of times, then settles what it is asked for."""

    def __init__(self, failures: int) -> None:
        kafka, stream = KafkaSettings(), StreamSettings()
        super().__init__("ranker", Journal(kafka, stream, "ranker"), Registry(MlflowSettings()))
        self.failures = failures
        self.calls: list[str] = []

    def reconcile(self) -> None:
        self.calls.append("reconcile")
        self._fail()

    def answer(self, command: Command) -> bool:
        self.calls.append("answer")
        self._fail()
        return command is COMMAND

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise InfrastructureError("mlflow", "away")

    def stand_by(self) -> None:
        self.calls.append("stand by")


class Idle(Retrainer):
    """A retrainer without a retraining."""

    def __init__(self, controller: Scripted) -> None:
        nothing = Surroundings(tuple, lambda key, command: None, tuple)
        super().__init__(RetrainSettings(), controller, nothing, tuple)

    def step(self) -> None:
        """Nothing is open."""


def turns_of(controller: Scripted) -> Turns:
    return Turns(controller, Idle(controller), interval_s=0.001)


async def test_a_command_is_tried_until_it_is_settled() -> None:
    controller = Scripted(failures=2)
    turns = turns_of(controller)
    assert await turns.answer(COMMAND, lambda: True)
    assert controller.calls == ["answer"] * 3
    assert turns.readiness().missing == ["mlflow: away"]
    assert await turns.reconcile()
    assert turns.readiness().ready


async def test_a_command_is_left_to_the_process_whose_turn_it_became() -> None:
    """Not acknowledged either: the broker hands it to that one."""
    controller = Scripted(failures=10)
    leading = iter([True, True, False])
    assert not await turns_of(controller).answer(COMMAND, lambda: next(leading))
    assert controller.calls == ["answer"] * 2


async def test_readiness_tells_what_is_in_the_way() -> None:
    turns = turns_of(Scripted(failures=1))
    assert not turns.readiness().ready
    assert not await turns.reconcile()
    assert (turns.readiness().ready, turns.readiness().missing) == (False, ["mlflow: away"])
    assert await turns.reconcile()
    assert turns.readiness().ready
    await turns.stand_by()
    assert (turns.readiness().ready, turns.readiness().detail["leader"]) == (True, False)


async def test_after_a_rebalance_the_ledger_is_read_again() -> None:
    controller = Scripted(failures=0)
    turns = turns_of(controller)
    await turns.reconcile()
    turns.over()
    await turns.reconcile()
    await turns.reconcile()
    assert controller.calls == ["reconcile", "stand by", "reconcile", "reconcile"]


async def test_a_command_does_not_wait_for_a_registry_that_hangs() -> None:
    hangs, release = threading.Event(), threading.Event()

    class Hanging(Scripted):
        def reconcile(self) -> None:
            hangs.set()
            release.wait()

    turns = turns_of(Hanging(failures=0))
    reconciling = asyncio.create_task(turns.reconcile())
    await asyncio.to_thread(hangs.wait)
    assert await turns.answer(COMMAND, lambda: True)
    assert not reconciling.done()
    release.set()
    assert await reconciling


async def test_a_thread_hands_back_results_and_errors_and_holds_nobody_up() -> None:
    assert await in_thread(int, "7") == 7
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "seven")
    release = threading.Event()
    waiting = asyncio.create_task(in_thread(release.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    release.set()


def test_brokers_and_credentials_in_fausts_words() -> None:
    plain = KafkaSettings(bootstrap_servers="one:9092, two:9092")
    assert brokers.urls(plain) == ["kafka://one:9092", "kafka://two:9092"]
    assert brokers.credentials(plain) is None
    encrypted = brokers.credentials(KafkaSettings(security_protocol="SSL"))
    assert isinstance(encrypted, faust.SSLCredentials)
    for protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
        named = brokers.credentials(
            KafkaSettings.model_validate(
                {
                    "security_protocol": protocol,
                    "sasl_mechanism": "SCRAM-SHA-512",
                    "sasl_username": "u",
                    "sasl_password": "p",
                }
            )
        )
        assert isinstance(named, faust.SASLCredentials)
        assert (named.protocol.value, named.mechanism.value) == (protocol, "SCRAM-SHA-512")
        assert (named.username, named.password) == ("u", "p")

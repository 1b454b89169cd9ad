"""A pipe to each master of a Redis Cluster, and which one has the key that is asked for.

Who serves what is read when the first key is asked for, and anew after every failure: a master that is gone, a key that
has moved. Until then answers fail as they do without Redis.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from redis.crc import key_slot

from millrace.errors import InfrastructureError
from millrace.redis_address import ClusterAddress, Node
from millrace.redis_cluster import Topology, parse_slots
from millrace.settings import RedisSettings
from services.recommender.redis_pipe import RedisPipe, Reply

# Many requests fail at once, and a replica takes over within seconds.
_READ_EVERY_S = 0.25
_CLUSTER_SLOTS = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n"


class RedisPipes:
    """Asks the masters; connects when first asked, and again after a failure.

    Parameters
    ----------
    timeout_s
        As of :class:`RedisPipe`.
    """

    def __init__(self, redis: RedisSettings, address: ClusterAddress, timeout_s: float) -> None:
        self._redis = redis
        self._address = address
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        # Asked in turn, for one may be cut off from the others and tell of the past.
        self._known: deque[Node] = deque(address.nodes)
        self._pipes: dict[Node, RedisPipe] = {}
        self._owners: Sequence[RedisPipe] = ()
        self._reading: asyncio.Task[None] | None = None
        self._read_at = float("-inf")

    def ask(self, key: bytes, command: bytes, promptly: bool = True) -> asyncio.Future[Reply]:
        """The reply to a command about a key: see ``RedisPipe.ask``."""
        if not self._owners:
            return self._loop.create_task(self._ask_later(key, command))
        answer = self._owners[key_slot(key)].ask(command, promptly)
        if answer.done():
            self._look(answer)
        else:
            answer.add_done_callback(self._look)
        return answer

    async def close(self) -> None:
        """Close the connections; what waits fails."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        for pipe in self._pipes.values():
            await pipe.close()

    async def _ask_later(self, key: bytes, command: bytes) -> Reply:
        """The same where nobody is known yet."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.shield(self._read())
                if not self._owners:
                    raise InfrastructureError("redis", f"no node of {self._shown()} tells who serves what")
                return await self.ask(key, command)
        except TimeoutError as error:
            raise InfrastructureError("redis", f"no node of {self._shown()} answers in time") from error

    def _look(self, answer: asyncio.Future[Reply]) -> None:
        """After a failure, find out who serves what now."""
        failed = not answer.cancelled() and answer.exception() is not None
        if failed and time.monotonic() >= self._read_at + _READ_EVERY_S:
            self._read()

    def _read(self) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._read_at = time.monotonic()
            self._reading = self._loop.create_task(self._find_out())
        return self._reading

    async def _find_out(self) -> None:
        """Ask nodes in turn until one answers; without any, all stays as it was."""
        for _ in range(len(self._known)):
            node = self._known[0]
            self._known.rotate(-1)
            try:
                reply = await self._pipe(node).ask(_CLUSTER_SLOTS, promptly=False)
                topology = parse_slots(cast("list[list[Any]]", reply), node)
            except InfrastructureError:
                continue
            await self._use(topology)
            return

    async def _use(self, topology: Topology) -> None:
        masters = [self._pipe(node) for node in topology.masters]
        self._owners = [masters[place] for place in topology.owners]
        self._known = deque(dict.fromkeys((*self._known, *topology.masters, *topology.replicas)))
        for node in self._pipes.keys() - set(topology.masters):
            await self._pipes.pop(node).close()

    def _pipe(self, node: Node) -> RedisPipe:
        if node not in self._pipes:
            settings = self._redis.model_copy(update={"url": self._address.url(node)})
            self._pipes[node] = RedisPipe(settings, self._timeout_s)
        return self._pipes[node]

    def _shown(self) -> str:
        return ", ".join(map(str, self._address.nodes))

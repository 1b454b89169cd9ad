"""The masters of a Redis Cluster as one store: each key has its master, and what is sent to them comes in lots.

Three rules make it one, beside those of a single connection (``redis_link``):

1. The connections to all masters are made together, as the cluster lies then, and lost together: whatever one of them
   says that is no answer (MOVED, ASK, CLUSTERDOWN, READONLY, silence) ends all.
2. A lot of script calls is sent when the one before it was done by every master. The order that one connection gives
   for nothing is otherwise lost: what is sent to two masters may be done by one of them only.
3. A lot is done when every replica that is in step has it (WAIT), so that a replica that takes over has it, too.

Decision 30 says why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from millrace.errors import InfrastructureError, MillraceError
from millrace.redis_address import ClusterAddress, Node
from millrace.redis_link import Argument, Call, Command, Link, Pending, parse_info, scanned
from millrace.settings import RedisSettings

NOBODY = -1


@dataclass(frozen=True, slots=True)
class Topology:
    """Who serves which keys.

    Attributes
    ----------
    masters
        Nodes that serve slots.
    replicas
        Nodes that stand by.
    owners
        For each slot the place of its node in ``masters``.
    """

    masters: tuple[Node, ...]
    replicas: tuple[Node, ...]
    owners: tuple[int, ...]


def parse_slots(reply: Iterable[Sequence[Any]], asked: Node) -> Topology:
    """The topology that CLUSTER SLOTS tells; ``asked``: who told it, and stands in it without a host.

    Raises
    ------
    InfrastructureError
        Nobody serves some of the slots.
    """

    def node(entry: Sequence[Any]) -> Node:
        return Node((entry[0] or b"").decode() or asked.host, entry[1])

    masters: dict[Node, int] = {}
    replicas: dict[Node, None] = {}
    owners = [NOBODY] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, master, *others in reply:
        place = masters.setdefault(node(master), len(masters))
        owners[first : last + 1] = [place] * (last + 1 - first)
        replicas.update((node(other), None) for other in others)
    if unserved := owners.count(NOBODY):
        raise InfrastructureError("redis", f"{asked}: nobody in the cluster serves {unserved} of its slots")
    return Topology(tuple(masters), tuple(replicas), tuple(owners))


class Lot(Pending):
    """Replies of several masters.

    Attributes
    ----------
    order
        The master of each command.
    sizes
        Commands whose replies, lists, are joined to one; none: they are left as they are.
    parts
        What is on its way from each master.
    awaited
        Replicas that have to have it, where the last reply of a master is their number.
    """

    __slots__ = ("awaited", "order", "parts", "sizes")

    def __init__(self, order: Sequence[int], sizes: Sequence[int], parts: Mapping[int, Pending]) -> None:
        super().__init__()
        self.count = len(sizes) or len(order)
        self.order = order
        self.sizes = sizes
        self.parts = parts
        self.awaited: dict[int, int] = {}


class _Identity(NamedTuple):
    """What changes when a master is started anew, replaced or, even for a moment, is none."""

    run_id: str
    role: str
    history: str


@dataclass(slots=True)
class _Master:
    """A master; ``replicas``: how many were in step with it when it was looked at last."""

    link: Link
    identity: _Identity | None = None
    replicas: int = 0


class Cluster:
    """The masters.

    Every method but ``connect`` and ``close`` raises InfrastructureError when a master fails, and from then on until
    ``connect`` is called again.

    Parameters
    ----------
    settings
        Time limit; a write that is not on its replicas after half of it has failed.
    address
        Some of the nodes.
    """

    def __init__(self, settings: RedisSettings, address: ClusterAddress) -> None:
        self._settings = settings
        self._address = address
        # Asked in turn, for one may be cut off from the others and tell of the past.
        self._known: deque[Node] = deque(address.nodes)
        self._masters: list[_Master] = []
        self._owners: Sequence[int] = ()
        self._lots: deque[Lot] = deque()

    @property
    def connected(self) -> bool:
        """Whether there are connections, as far as is known."""
        return bool(self._masters)

    def connect(self) -> None:
        """Find out who the masters are, and make all connections anew.

        Raises
        ------
        InfrastructureError
            No node answers, or a master does not.
        MillraceError
            What answers is no cluster.
        """
        self.close()
        topology = self._find_out()
        with self._together():
            self._masters = [_Master(self._link(node)) for node in topology.masters]
            self._owners = topology.owners
            for master in self._masters:
                master.link.connect()
            for master, (identity, replicas) in zip(self._masters, self._look(wait=False), strict=True):
                master.identity, master.replicas = identity, replicas
                self._check_role(master, identity)

    def close(self) -> None:
        """Close all connections."""
        for master in self._masters:
            master.link.close()
        self._masters = []
        self._lots.clear()

    def verify(self) -> None:
        """Check that the masters are the same, and that what they did is on their replicas."""
        with self._together():
            self._settle()
            for master, (identity, replicas) in zip(self._masters, self._look(wait=True), strict=True):
                if identity != master.identity:
                    raise InfrastructureError(
                        "redis", f"{master.link.address}: another server answers ({identity}, was {master.identity})"
                    )
                master.replicas = replicas

    def standing(self) -> Mapping[str, int]:
        """Each master, and how many replicas were in step with it when it was looked at last."""
        return {master.link.address: master.replicas for master in self._live()}

    def ask_all(self, commands: Iterable[Command]) -> list[Any]:
        """The replies to commands whose second word is a key; those about one key run in this order."""
        return self.receive(self._post((key_of(command), command) for command in commands))

    def ask_every(self, *command: Argument) -> list[Any]:
        """The replies of all masters to a command that is about no key."""
        with self._together():
            pending = [master.link.post([command]) for master in self._live()]
            return [master.link.receive(one)[0] for master, one in zip(self._masters, pending, strict=True)]

    def scan(self, pattern: str, step: int) -> Iterator[list[bytes]]:
        """The keys of a pattern, about ``step`` of all keys of a master looked at in a round trip."""
        for master in self._live():
            with self._together():
                yield from scanned(master.link, pattern, step)

    def send(self, sha: str, calls: Iterable[Call]) -> Lot:
        """Have a script run, when everything sent before is done, without waiting for it.

        A master takes keys of one slot in a call: each key has a call of its own, and replies are put together again.
        """
        with self._together():
            self._settle()
        sizes: list[int] = []

        def single() -> Iterator[tuple[bytes, Command]]:
            for keys, arguments in calls:
                sizes.append(len(keys))
                for key, argument in zip(keys, arguments, strict=True):
                    yield key, ("EVALSHA", sha, 1, key, argument)

        lot = self._post(single(), sizes, wait=True)
        self._lots.append(lot)
        return lot

    def receive(self, pending: Pending) -> list[Any]:
        """Wait for the replies to what was sent (and to everything that was sent to these masters before it)."""
        assert isinstance(pending, Lot)
        with self._together():
            if pending.replies is None:
                masters = self._live()
                replies = {place: masters[place].link.receive(part) for place, part in pending.parts.items()}
                for place, awaited in pending.awaited.items():
                    self._check_replicas(masters[place], awaited, replies[place][-1])
                pending.replies = joined(pending.order, pending.sizes, replies)
        return pending.replies

    def _post(self, commands: Iterable[tuple[bytes, Command]], sizes: Sequence[int] = (), *, wait: bool = False) -> Lot:
        """Send commands with their keys to their masters; ``sizes`` may be filled while commands are built."""
        with self._together():
            masters, owners = self._live(), self._owners
            order: list[int] = []
            shares: dict[int, list[Command]] = {}
            for key, command in commands:
                place = owners[key_slot(key)]
                order.append(place)
                shares.setdefault(place, []).append(command)
            awaited = {place: masters[place].replicas for place in shares if wait and masters[place].replicas}
            for place, replicas in awaited.items():
                shares[place].append(self._wait_for(replicas))
            lot = Lot(order, sizes, {place: masters[place].link.post(share) for place, share in shares.items()})
            lot.awaited = awaited
        return lot

    def _settle(self) -> None:
        """Wait until what was sent is done and on the replicas."""
        while self._lots:
            self.receive(self._lots.popleft())

    def _look(self, *, wait: bool) -> list[tuple[_Identity, int]]:
        """Who each master is, and how many replicas are in step; ``wait``: until these have everything done so far."""
        looks = []
        for master in self._live():
            waiting = [self._wait_for(master.replicas)] if wait and master.replicas else []
            looks.append(master.link.post([("INFO", "server"), ("INFO", "replication"), *waiting]))
        found = []
        for master, look in zip(self._masters, looks, strict=True):
            server, replication, *waited = master.link.receive(look)
            if waited:
                self._check_replicas(master, master.replicas, waited[0])
            facts = {**parse_info(server), **parse_info(replication)}
            identity = _Identity(*(facts.get(name, "") for name in ("run_id", "role", "master_replid")))
            found.append((identity, _in_step(facts)))
        return found

    def _wait_for(self, replicas: int) -> Command:
        return "WAIT", replicas, self._settings.timeout_ms // 2

    @staticmethod
    def _check_replicas(master: _Master, awaited: int, found: int) -> None:
        if found < awaited:
            raise InfrastructureError(
                "redis", f"{master.link.address}: {found} of {awaited} replicas have what was written (WAIT)"
            )

    @staticmethod
    def _check_role(master: _Master, identity: _Identity) -> None:
        if identity.role != "master":
            raise InfrastructureError("redis", f"{master.link.address} was named as a master, and is a {identity.role}")

    def _find_out(self) -> Topology:
        """What the next node says that answers."""
        problem: InfrastructureError | None = None
        for _ in range(len(self._known)):
            node = self._known[0]
            self._known.rotate(-1)
            link = self._link(node)
            try:
                link.connect()
                if link.info("server").get("redis_mode") != "cluster":
                    raise MillraceError(f"{link.address} is no node of a cluster: REDIS_URL={link.address}")
                topology = parse_slots(link.ask("CLUSTER", "SLOTS"), node)
            except InfrastructureError as error:
                problem = error
                continue
            finally:
                link.close()
            self._known = deque(dict.fromkeys((*self._known, *topology.masters, *topology.replicas)))
            return topology
        assert problem is not None, "an address has at least one node"
        raise problem

    def _link(self, node: Node) -> Link:
        return Link(self._settings.model_copy(update={"url": self._address.url(node)}))

    def _live(self) -> Sequence[_Master]:
        if not self._masters:
            nodes = ",".join(map(str, self._address.nodes))
            raise InfrastructureError("redis", f"no connection to the cluster of {nodes}")
        return self._masters

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Closes all connections when something goes wrong with one."""
        try:
            yield
        except BaseException:
            self.close()
            raise


def key_of(command: Command) -> bytes:
    """The key of a command that has one.

    >>> key_of(("HGET", "u:somebody", "state"))
    b'u:somebody'
    """
    if len(command) < 2:
        raise ValueError(f"{command[0]!r} is about no key: ask_every")
    key = command[1]
    return key if isinstance(key, bytes) else str(key).encode()


def joined(order: Sequence[int], sizes: Sequence[int], replies: Mapping[int, Sequence[Any]]) -> list[Any]:
    """Replies of masters in the order of the commands, and those of one call as one.

    Parameters
    ----------
    order
        The master of each command.
    sizes
        How many commands a call was divided into, for each call; empty: replies stay single.
    replies
        What each master answered, in its own order.

    Examples
    --------
    >>> joined([0, 1, 0], [], {0: [b"a", b"c"], 1: [b"b"]})
    [b'a', b'b', b'c']
    >>> joined([0, 1, 0], [2, 1], {0: [["a"], None], 1: [["b"]]})
    [['a', 'b'], None]
    """
    turns = {place: iter(some) for place, some in replies.items()}
    single = (next(turns[place]) for place in order)
    return [_one(list(islice(single, size))) for size in sizes] if sizes else list(single)


def _one(replies: Sequence[list[Any] | None]) -> list[Any] | None:
    """The reply to a call with several keys: a script answers for each, or for none."""
    answers = [answer for reply in replies if reply is not None for answer in reply]
    return answers or None


def _in_step(replication: Mapping[str, str]) -> int:
    """Replicas that receive what is written."""
    lines = (value for name, value in replication.items() if name.startswith("slave") and name[5:].isdigit())
    return sum("state=online" in line.split(",") for line in lines)

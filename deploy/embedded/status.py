"""How a member of the stack does, for people and for ``--json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.embedded.member import Member, NotReady, log_path, log_tail
from deploy.embedded.supervision import DEAD_STATES, ProcessInfo


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """How a member does.

    Attributes
    ----------
    state
        ``ready``: proved that it serves; ``starting``: runs and does not serve yet, or was just started again;
        ``dead``: crashed too often, or its supervisor is gone.
    pid
        0 when it does not run.
    problem
        Why it is not ready; empty when it is.
    log
        File with what it prints.
    log_end
        The last lines of that when it is not ready; empty when it is.
    """

    name: str
    state: Literal["ready", "starting", "dead"]
    pid: int
    port: int
    address: str
    problem: str
    log: Path
    log_end: str


def status_of(member: Member, process: ProcessInfo | None) -> MemberStatus:
    """Ask the member, and see what its supervisor says of its process (None: there is no supervisor)."""
    state: Literal["ready", "starting", "dead"] = "ready"
    problem = ""
    try:
        member.check()
    except NotReady as error:
        dead = process is None or process.state in DEAD_STATES
        state, problem = ("dead" if dead else "starting"), str(error)
    if process is None:
        state, problem = "dead", "its supervisor is gone; `millrace stack up` starts it again"
    log = log_path(member)
    return MemberStatus(
        name=member.name,
        state=state,
        pid=process.pid if process else 0,
        port=member.port,
        address=member.address,
        problem=problem,
        log=log,
        log_end=log_tail(log) if problem else "",
    )

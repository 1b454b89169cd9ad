"""``python -m tests.screenshots [HOST:PORT]``: pictures of the console into docs/console.

Of the gateway at an address, else of a pipeline of its own with simulated shoppers. It runs for two minutes, has a
version trained and promoted, gets a record that nobody can read, and then its shoppers want something else.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import click
from confluent_kafka import Producer

from millrace.topics import INTERACTIONS
from tests.browser import DESKTOP, PHONE, ROOT, Browser, browser
from tests.conftest import starting
from tests.recommending import wait_for

FOLDER = ROOT / "docs" / "console"
# So that charts have something to show: the first version serves after half a minute.
WARM_UP_S, LOOKED_AT_S = 120.0, 45.0
START_TIMEOUT_S = 240.0
# Tastes that changed are found within minutes; a version is trained within one.
TRAIN_TIMEOUT_S, DRIFT_TIMEOUT_S = 180.0, 420.0
FREE_PORTS = {f"MILLRACE_{name}_PORT": "0" for name in ("STACK_KAFKA", "STACK_REDIS", "STACK_MLFLOW", "RECOMMENDER")}
QUICK = {"DRIFT_CHECK_INTERVAL_MS": "10000", "RETRAIN_INTERVAL_HOURS": "0", "RETRAIN_COLLECT_MS": "10000"}
MODES = {"light": (DESKTOP, False), "dark": (DESKTOP, True), "phone": (PHONE, False)}


@click.command()
@click.argument("address", required=False)
def main(address: str | None) -> None:
    """Take the pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if address:
        take(address)
        return
    with running() as found:
        take(found)


@contextmanager
def running() -> Iterator[str]:
    """The address of a pipeline's gateway, once there is something to see."""
    with tempfile.TemporaryDirectory() as home, starting(Path(home)) as start:
        env = {"MILLRACE_HOME": home, "MILLRACE_GATEWAY_PORT": "0", **FREE_PORTS, **QUICK}
        child = start("millrace", "run", "--rate", "20", "--headless", env=env)
        announced = Path(home) / "run"
        wait_for(lambda: list(announced.glob("gateway-*.json")), "the gateway", START_TIMEOUT_S)
        [file] = announced.glob("gateway-*.json")
        address = json.loads(file.read_text())["http"]
        wait_for(lambda: _answers(address), "an answer of the model", START_TIMEOUT_S)
        time.sleep(WARM_UP_S)
        nobody_can_read(Path(home))
        asked = start(
            "millrace", "retrain", "--reason", "pictures", "--wait", "--timeout", str(TRAIN_TIMEOUT_S), env=env
        )
        asked.wait(TRAIN_TIMEOUT_S + 60)
        click.echo(asked.output())
        promoted = start("millrace", "models", "promote", "2", "--reason", "pictures", env=env)
        promoted.wait(60)
        click.echo(promoted.output())
        time.sleep(LOOKED_AT_S)
        [shoppers] = announced.glob("simulate-*.json")
        os.kill(int(shoppers.stem.rpartition("-")[2]), signal.SIGUSR1)
        yield str(address)
        child.terminate(60)


def nobody_can_read(home: Path) -> None:
    """Send a record that is no interaction: a dead letter."""
    lines = (home / "stack.env").read_text().splitlines()
    servers = dict(line.split("=", 1) for line in lines if "=" in line)["KAFKA_BOOTSTRAP_SERVERS"]
    producer = Producer({"bootstrap.servers": servers})
    producer.produce(INTERACTIONS.name, b"no protobuf", key=b"somebody")
    producer.flush(30)


def take(address: str) -> None:
    """Pictures of every page, once the model answers."""
    wait_for(lambda: _answers(address), "an answer of the model", START_TIMEOUT_S)
    with browser(address) as window:
        for mode in MODES:
            shape(window, mode)
            window.open("/")
            window.until(lambda: window.count(".state.ready") > 0)
            time.sleep(LOOKED_AT_S if mode == "light" else 5.0)
            save(window, "now", mode)
        user = lately(address)
        pages = {
            "topics": ("/console/topics/interactions", "[data-rows] tr"),
            "recommend": (f"/console/recommend?user={user}", ".answer li"),
            "story": (story(address, user), ".story"),
            "learning": ("/console/learning", ".weights tr"),
            "experiments": ("/console/experiments/live-learning", ".band"),
            "models": ("/console/models", "table"),
            "dead-letters": ("/console/dead-letters", ".letters tr"),
            "drift": ("/console/drift", ".evidence tr"),
        }
        for name, (path, there) in pages.items():
            for mode in MODES:
                shape(window, mode)
                window.open(path)
                await_one(window, there, name)
                # Rows that have just come shine for a second, charts need a few readings.
                time.sleep(8.0 if name == "learning" else 2.0)
                save(window, name, mode)
        for problem in window.problems():
            click.echo(problem, err=True)


def await_one(window: Browser, selector: str, name: str) -> None:
    """Wait for it as long as drift takes to be found."""
    wait_for(lambda: window.count(selector), name, DRIFT_TIMEOUT_S)


def shape(window: Browser, mode: str) -> None:
    size, dark = MODES[mode]
    window.shape(size, dark)


def save(window: Browser, name: str, mode: str) -> None:
    path = FOLDER / f"{name}-{mode}.png"
    window.picture(path)
    click.echo(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1_024} KB")


def lately(address: str) -> str:
    """A user who did something a few minutes ago: by then it is decided what became of it."""
    return _field(address, "/console/topics/interactions?kind=click&at=1+min+ago", 'class="id">')


def story(address: str, user: str) -> str:
    """The story of an answer of that user, with an end."""
    path = f"/console/topics/impressions?user={user}&at=10+min+ago"
    message = _field(address, path, 'href="/console/topics/impressions/')
    found = _field(address, f"/console/topics/impressions/{message}", 'data-load="')
    return found.replace("&amp;part=true", "").replace("&amp;", "&")


def _answers(address: str) -> bool:
    try:
        with urlopen(f"http://{address}/api/v1/recommend?user_id=nobody", timeout=30) as answer:
            return bool(json.load(answer)["model_version"])
    except HTTPError:
        # The recommender does not listen yet.
        return False


def _field(address: str, path: str, before: str) -> str:
    with urlopen(f"http://{address}{path}", timeout=30) as answer:
        text = str(answer.read().decode())
    return text.partition(before)[2].partition('"' if before.endswith(('="', "/")) else "<")[0]


if __name__ == "__main__":
    main()

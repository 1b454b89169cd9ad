"""The console in a real browser, at 1,000 clicks a second: by mouse and keyboard, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver.common.keys import Keys

from benchmarks.clicks import background_clicks
from millrace.stream.codec import encode
from millrace.topics import DRIFT_SIGNALS, INTERACTIONS
from millrace.v1.drift_pb2 import DriftChannel, DriftEvidence, DriftSignal, Histogram
from tests.browser import DESKTOP, PHONE, Browser, browser
from tests.gateway_stack import Running, StartStack
from tests.processes import in_time
from tests.stream_support import headers_of, read_all, send

pytestmark = pytest.mark.system

CLICKS_PER_S, LASTING_S = 1_000, 300.0
# As many as the page keeps, however many come.
ROWS_MAX = 200
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def running(gateway_stack: StartStack) -> Iterator[Running]:
    env = {"MILLRACE_JOINER_ATTRIBUTION_WINDOW_MS": "2000", "MILLRACE_GATEWAY_COMMAND_WAIT_MS": "100"}
    with gateway_stack(env, more=["outcome_joiner"]) as found:
        items = [{"item_id": f"item-{n}", "title": f"{HOSTILE} {n}", "category": "hats"} for n in range(50)]
        assert found.gateway.ask("POST", "/api/v1/items", items).status == 202
        arms = [{"name": "frozen", "share": 0.5, "control": True}, {"name": "live", "share": 0.5}]
        body = {"experiment_id": "live-or-not", "traffic": 0.5, "arms": arms}
        assert found.settled("/api/v1/mlops/experiments", "d-1", body).status == 201
        found.tell("REGISTERED", "2", reason="trained anew", model="ranker", figures={"better.gain": 0.012})
        shape = Histogram(edges=[0, 1, 2, 3], counts=[3, 5, 1])
        moved = DriftEvidence(name="age", method="energy", statistic=4, threshold=2, before=shape, after=shape)
        channel = DriftChannel.DRIFT_CHANNEL_INPUT
        signals = [
            DriftSignal(signal_id="s", model_name="ranker", channel=channel, at_ms=at, holds=True, evidence=[moved])
            for at in (1, 2)
        ]
        send(found.kafka, DRIFT_SIGNALS, [("ranker", *encode(signal)) for signal in signals])
        send(found.kafka, INTERACTIONS, [(HOSTILE, b"\xff\xfe", [("schema", b"millrace.v1.Interaction")])])
        with background_clicks(found.kafka, CLICKS_PER_S, LASTING_S):
            in_time(lambda: len(found.gateway.ask("GET", "/api/v1/recommend?user_id=user-1&k=8").json["items"]) == 8)
            yield found


@pytest.fixture(scope="module")
def window(running: Running) -> Iterator[Browser]:
    with browser(running.gateway.address) as found:
        yield found


def figure(window: Browser, chart: str) -> float:
    """What a chart says now; 0 while it says nothing."""
    text = window.text(f'[data-chart="{chart}"] [data-figure]').replace(",", "")
    return float(text) if text not in ("", "–") else 0.0


def test_now_shows_what_happens(window: Browser) -> None:
    window.shape(DESKTOP)
    window.open("/")
    window.until(lambda: figure(window, "rates.events") > CLICKS_PER_S / 2)
    window.until(lambda: figure(window, "freshness.features") > 0)
    window.until(lambda: window.count('[data-chart="rates.events"] path.line'))
    window.until(lambda: window.count(".state.ready") >= 6)
    window.until(lambda: "feature updater" in window.text(".lags"))
    assert window.problems() == []


def test_a_tail_of_a_thousand_a_second_is_bounded_and_can_be_held(window: Browser) -> None:
    window.open("/console/topics/interactions")
    window.until(lambda: "too fast to show" in window.text("[data-counts]"))
    window.until(lambda: window.count("[data-rows] tr") == ROWS_MAX)
    # The browser has time for its owner: by keyboard.
    window.tab_to("Pause")
    window.press(Keys.ENTER)
    assert window.text("[data-pause]") == "Go on"
    held = window.text("[data-rows] tr")
    window.run("return new Promise((done) => setTimeout(done, 600))")
    assert window.text("[data-rows] tr") == held
    assert window.count("[data-rows] tr") == ROWS_MAX
    window.press(Keys.ENTER)
    window.until(lambda: window.text("[data-rows] tr") not in ("", held))
    assert window.problems() == []


def test_a_message_is_found_and_opened(running: Running, window: Browser) -> None:
    event = {"user_id": "needle", "item_id": "item-1", "type": "like"}
    assert running.gateway.ask("POST", "/api/v1/event", event).status == 202
    window.open("/console/topics/interactions")
    window.one('input[name="user"]').send_keys("needle", Keys.ENTER)
    window.until(lambda: "user=needle" in window.driver.current_url)
    window.one('input[name="at"]').send_keys("1 h ago", Keys.ENTER)
    window.until(lambda: "at=1" in window.driver.current_url)
    window.one("[data-rows] a").click()
    window.until(lambda: "INTERACTION_TYPE_LIKE" in window.text("pre"))
    assert "needle" in window.text(".facts")
    assert window.problems() == []


def test_a_click_changes_the_next_answer_in_place(window: Browser) -> None:
    window.open("/console/recommend")
    window.one('input[name="user"]').send_keys("me", Keys.ENTER)
    window.one(".answer li")
    assert "Nothing is known of this user" in window.text("[data-answer]")
    assert HOSTILE in window.text("[data-answer]"), "a title is shown as it is written"
    window.run("window.mark = 'the same page'")
    window.all('[data-deed] button[aria-label^="Click"]')[1].click()
    window.until(lambda: "which knows it, was ready after" in window.text(".verdict"))
    assert "Ranked by version" in window.text("[data-answer]")
    assert window.run("return window.mark") == "the same page"
    window.one('a[href^="/console/story"]')
    window.all("main a")[-1].click()
    window.until(lambda: "What was learned" in window.text(".story"))
    assert window.problems() == []


def test_a_version_is_promoted_by_keyboard_after_a_second_question(running: Running, window: Browser) -> None:
    window.open("/console/models")
    window.tab_to("Promote … version 2")
    window.press(Keys.ENTER)
    window.until(lambda: "Promote version 2?" in window.text("h1"))
    window.one('input[name="reason"]').send_keys("a test")
    assert [one for one in running.commands() if one.HasField("promote")] == []
    window.press(Keys.TAB)
    assert window.focused() == "Promote it"
    window.press(Keys.ENTER)
    window.until(lambda: "not done yet" in window.text("h1"))
    [command] = {one.command_id: one for one in running.commands() if one.HasField("promote")}.values()
    assert (command.promote.model_version, command.reason) == ("2", "a test")
    # A page that is open shows what becomes of it.
    window.open("/console/models")
    running.tell("PROMOTED", "2", command.command_id, model="ranker", previous_version="1")
    window.until(lambda: "Champion: version 2" in window.text("main"))
    assert window.problems() == []


def test_a_dead_letter_is_replayed_by_keyboard_after_a_second_question(running: Running, window: Browser) -> None:
    window.open("/console/dead-letters")
    window.one(".letters a").click()
    window.until(lambda: "Put aside by" in window.text("h1"))
    window.tab_to("Replay …")
    window.press(Keys.ENTER)
    window.until(lambda: "Replay one message of interactions?" in window.text("h1"))
    assert window.inaccessible() == []
    window.tab_to("Replay it")
    window.press(Keys.ENTER)
    window.until(lambda: "Replayed one message of interactions" in window.text("h1"))
    marks = [headers_of(one).get("dlq.mark") for one in read_all(running.kafka, INTERACTIONS.dlq)]
    assert marks.count(b"replayed") == 1
    # Asked again, from a page that was left open, it is not done again.
    window.driver.back()
    window.one("button.primary").click()
    window.until(lambda: "Nothing was left to replay" in window.text("h1"))
    assert window.problems() == []


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/", ".lags"),
        ("/console/topics", "[data-rows] tr"),
        ("/console/topics/interactions?at=1+h+ago", "[data-rows] tr"),
        ("/console/recommend?user=me", ".answer li"),
        ("/console/learning", "#weights"),
        ("/console/experiments", ".list li"),
        ("/console/experiments/live-or-not", "table"),
        ("/console/models", "table"),
        ("/console/models/confirm?action=promote&version=2", "form"),
        ("/console/drift", ".evidence"),
        ("/console/dead-letters", ".letters a"),
    ],
)
def test_pages_are_for_everybody(window: Browser, path: str, there: str) -> None:
    """On a desk and on a phone, in light and in dark; axe has nothing serious to say, nor the browser."""
    for size, dark in ((DESKTOP, False), (PHONE, True)):
        window.shape(size, dark)
        window.open(path)
        window.one(there)
        assert window.inaccessible() == []
        assert not window.too_wide()
    assert window.problems() == []

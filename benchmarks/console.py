"""The ops console in headless Chromium while clicks come in: how soon a person sees something.

Painted first is what the browser says it is (``first-contentful-paint`` of the Paint Timing of W3C), from the start of
the navigation. The limit is the same browser with a page that nobody has to be asked for. Needs ``make browser``.
"""

from __future__ import annotations

from benchmarks import seed
from benchmarks.clicks import background_clicks
from benchmarks.environment import Say, process, servers
from benchmarks.report import Row, latency_row
from tests.browser import DESKTOP, Browser, browser

ITEMS, USERS = 10_000, 2_000
CLICKS_PER_S, LASTING_S, ROUNDS = 1_000, 300.0, 8
PAGES = (
    "/",
    "/console/topics",
    "/console/topics/interactions?at=1+min+ago",
    "/console/recommend?user=reader-1",
    "/console/learning",
    "/console/drift",
    "/console/experiments",
    "/console/models",
    "/console/dead-letters",
)
_BARE = "data:text/html,<p>nothing</p>"
_PAINTED = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def run(say: Say, bootstrap_servers: str = "", redis_url: str = "") -> list[Row]:
    """The row ``console.first_paint_ms``: every page, opened in turn so many times."""
    with servers(say, bootstrap_servers, redis_url) as at:
        say("putting items, users and a champion in")
        seed.publish_items(at.kafka, seed.item_states(ITEMS))
        seed.write_users(at.redis.url, USERS, ITEMS)
        seed.promote_first_ranker(at.kafka)
        with process("workers.feature_updater", at), process("services.recommender", at) as recommender:
            recommender.wait_ready()
            variables = {"MILLRACE_GATEWAY_PORT": "0", "MILLRACE_RECOMMENDER_TARGET": recommender.announced["grpc"]}
            with process("services.gateway", at, **variables) as gateway:
                gateway.wait_ready()
                say(f"opening {len(PAGES)} pages at {CLICKS_PER_S:,} clicks/s")
                with background_clicks(at.kafka, CLICKS_PER_S, LASTING_S), browser(gateway.announced["http"]) as window:
                    return [_measured(window)]


def _measured(window: Browser) -> Row:
    window.shape(DESKTOP)
    painted, bare = [], []
    for _ in range(ROUNDS):
        for page in PAGES:
            window.open(page)
            painted.append(_first_paint_ms(window))
        window.driver.get(_BARE)
        bare.append(_first_paint_ms(window))
    if problems := window.problems():
        raise RuntimeError(f"the browser's log: {problems[0]}")
    return latency_row("console.first_paint_ms", painted, sorted(bare)[len(bare) // 2])


def _first_paint_ms(window: Browser) -> float:
    return float(window.until(lambda: window.run(_PAINTED)))

"""What the routes work with: made together, closed together."""

from __future__ import annotations

from dataclasses import dataclass

from millrace.client import AsyncEventProducer, AsyncRecommenderClient
from millrace.registry.ledger import Ledger
from millrace.settings import Settings
from millrace.stream.http import Readiness
from services.gateway.backlog import Backlog
from services.gateway.commands import CommandDesk
from services.gateway.console.console import Console
from services.gateway.features import FeatureReader
from services.gateway.intake import Intake
from services.gateway.problems import NOT_FOUND, Problem
from services.gateway.views import Views

# How long the broker holds a question of a view: records come at once in any case.
_FETCH_WAIT_MS = 500


@dataclass(frozen=True, slots=True)
class Parts:
    """Connections and views. To be made, used and closed on one event loop."""

    settings: Settings
    events: AsyncEventProducer
    intake: Intake
    recommender: AsyncRecommenderClient
    features: FeatureReader
    backlog: Backlog
    views: Views
    desk: CommandDesk
    console: Console

    @classmethod
    def make(cls, settings: Settings) -> Parts:
        """Everything; nothing has to be there yet. Views are read once they are started."""
        own = settings.gateway
        events = AsyncEventProducer(
            settings.kafka,
            queue_max=own.events_pending_max,
            delivery_timeout_s=own.delivery_timeout_ms / 1_000,
        )
        views = Views(settings.kafka, settings.stream.model_copy(update={"fetch_wait_ms": _FETCH_WAIT_MS}))
        return cls(
            settings,
            events,
            Intake(events, own),
            AsyncRecommenderClient(settings.client.recommender_target, timeout_s=own.recommend_timeout_ms / 1_000),
            FeatureReader(settings.redis),
            Backlog(settings.kafka),
            views,
            CommandDesk(settings.kafka, views, own.delivery_timeout_ms / 1_000),
            Console(settings),
        )

    def ledger_of(self, model: str) -> Ledger:
        """What has happened to a registered model, that of the settings if it is not named. Raises Problem."""
        name = model or self.settings.orchestrator.model_name
        found = self.views.ledgers.get(name)
        if found is None:
            raise Problem(NOT_FOUND, f"no model {name!r} has a version")
        return found

    def readiness(self) -> Readiness:
        """Ready once the views are read: then the broker is there. From any thread."""
        missing = self.views.missing
        target = self.recommender.target
        return Readiness(not missing, missing, {"recommender": target, "experiments": len(self.views.experiments)})

    async def close(self) -> None:
        """Send what is left, then let go of everything."""
        try:
            await self.events.close()
        finally:
            await self.console.close()
            await self.views.close()
            await self.recommender.close()
            await self.features.close()
            self.backlog.close()

"""What settings must hold together for guards to do their work."""

from __future__ import annotations

from millrace.errors import MillraceError
from millrace.settings import DAY_MS, FeatureSettings
from millrace.topics import INTERACTIONS

# A broker deletes whole segments, so that a record may outlive its retention by the time that a segment is open: as
# made by `millrace topics apply` a fraction of the retention, at the broker's own default 7 days.
SEGMENT_MAX_MS = 7 * DAY_MS


def check_ttls(settings: FeatureSettings) -> None:
    """Refuse TTLs with which a key could expire before the last of its events can be delivered again.

    Such a key would come back without its guard, and count again what it had counted. Raises MillraceError.
    """
    least_ms = INTERACTIONS.retention_ms + SEGMENT_MAX_MS
    for variable, ttl_ms in (("USER_TTL_MS", settings.user_ttl_ms), ("ITEM_TTL_MS", settings.item_ttl_ms)):
        if ttl_ms <= least_ms:
            raise MillraceError(
                f"MILLRACE_FEATURES_{variable}={ttl_ms} must be above {least_ms} ({least_ms // DAY_MS} days): "
                f"interactions are kept for {INTERACTIONS.retention_ms // DAY_MS} days and may be delivered again"
            )

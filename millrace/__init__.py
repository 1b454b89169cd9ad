"""Millrace: real-time recommendations from a stream of clicks.

Start with ``proto/millrace/v1`` (the contracts), then one worker, for example ``workers/feature_updater``.
"""

from __future__ import annotations

__version__ = "0.1.0"

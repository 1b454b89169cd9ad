"""``make evaluate``: the figures of ``docs/quality.md``, measured by ``millrace evaluate`` on real data.

runs.py ──► measuring.py ──► results.py (quality.json) ──► document.py, drawings.py (docs/quality.md)
"""

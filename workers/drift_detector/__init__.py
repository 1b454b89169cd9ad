"""outcomes ──► drift_detector ──► drift-signals."""

"""outcomes ──► online_learner ──► model-updates."""

"""outcomes, interactions, commands ──► experiment_tracker ──► experiments."""

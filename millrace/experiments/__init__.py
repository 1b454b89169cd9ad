"""Experiments: who sees which arm, what is known while everyone looks, what follows. Pure: no clock, no client."""

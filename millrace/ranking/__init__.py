"""Candidates, features and the ranker: pure maths over arrays, without I/O."""

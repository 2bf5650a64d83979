"""Comparing two models: outputs, size, structure, latency, gates."""

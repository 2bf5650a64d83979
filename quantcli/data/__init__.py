"""Samples from ordinary files: one file per source kind, one grammar, one validation."""

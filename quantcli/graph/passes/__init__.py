"""Preparation passes, one a file; each states its algebra and checks legality before it edits."""

"""One report schema and its renderings."""

"""Configuration in files: what may stand in them, reading with lines and suggestions, writing."""

"""Adapters to quantization tools; see side.py."""

"""Use cases: calibrate, convert, compare, inspect. They wire the layers, return values and print nothing."""

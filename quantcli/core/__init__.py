"""Numerics of quantization: types, parameters, affine mapping, statistics, metrics. numpy only."""

"""Data-aware quantization: equalization, rounding, bias correction. numpy over arrays that a sweep hands in."""

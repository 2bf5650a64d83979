"""quantcli: quantize float ONNX models, and know why every node ended up where it did."""

from quantcli._version import __version__

__all__ = ["__version__"]

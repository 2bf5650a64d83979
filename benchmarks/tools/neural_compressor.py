"""Quantize with Intel's Neural Compressor for ONNX (``onnx_neural_compressor``); see side.py.

* ``default``: its ``StaticQuantConfig`` as it is (QOperator, uint8 activations, int8 weights, one scale a tensor).
* ``best``: Q/DQ and weights with a scale a channel; SmoothQuant for transformers, which it is for.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from onnx_neural_compressor.data_reader import CalibrationDataReader
from onnx_neural_compressor.quantization import QuantFormat, quantize
from onnx_neural_compressor.quantization.config import StaticQuantConfig

from tools.side import Job, Reader, is_transformer, main, normalized


class Samples(Reader, CalibrationDataReader):
    """The samples, of the type that it asks for."""


def default(job: Job) -> None:
    """As it is."""
    static(job)


def best(job: Job) -> None:
    """Everything that is for accuracy."""
    smooth = is_transformer(job)
    static(
        job,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        extra_options={"SmoothQuant": True} if smooth else {},
    )


def static(job: Job, **options: Any) -> None:
    """All calibration samples, one by one."""
    with tempfile.TemporaryDirectory() as folder:
        source = normalized(job, Path(folder))
        reader = Samples(job)
        config = StaticQuantConfig(reader, calibration_sampling_size=job.count(), **options)
        quantize(str(source), str(job.output), config)


if __name__ == "__main__":
    main("onnx-neural-compressor", {"default": default, "best": best})

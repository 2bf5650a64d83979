"""Quantize with AMD Quark (``quark.onnx``); see side.py.

* ``default``: its configuration A8W8 (symmetric int8 for both, one scale a tensor, 99.999 % percentile).
* ``best``: what it has for accuracy with the operators of ai.onnx, without training: asymmetric uint8 activations,
  int8 weights with a scale a channel, min-max ranges, cross-layer equalization, bias correction. Its AdaRound and
  AdaQuant train, for more than four minutes before the first of 53 layers is done, and are left out.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from quark.onnx import (
    BiasCorrectionConfig,
    CalibMethod,
    CLEConfig,
    Int8Spec,
    ModelQuantizer,
    QConfig,
    QLayerConfig,
    QuantGranularity,
    UInt8Spec,
)
from quark.onnx.quantization.config.custom_config import A8W8_QCONFIG

from tools.side import Job, Reader, main, normalized


def default(job: Job) -> None:
    """Their A8W8."""
    quantize(job, A8W8_QCONFIG)


def best(job: Job) -> None:
    """Everything that is for accuracy."""
    quantize(
        job,
        QConfig(
            global_config=QLayerConfig(
                activation=UInt8Spec(calibration_method=CalibMethod.MinMax),
                weight=Int8Spec(calibration_method=CalibMethod.MinMax, quant_granularity=QuantGranularity.Channel),
            ),
            algo_config=[CLEConfig(), BiasCorrectionConfig()],
        ),
    )


def quantize(job: Job, config: QConfig) -> None:
    """All calibration samples, one by one."""
    with tempfile.TemporaryDirectory() as folder:
        source = normalized(job, Path(folder))
        ModelQuantizer(config).quantize_model(str(source), str(job.output), Reader(job))


if __name__ == "__main__":
    main("amd-quark", {"default": default, "best": best})

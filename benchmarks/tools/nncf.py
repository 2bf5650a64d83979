"""Quantize with NNCF (``nncf.quantize`` on an ONNX model); see side.py.

* ``default``: nothing said but the samples.
* ``best``: what it has for accuracy on a processor with VNNI: asymmetric activations where they are signed (preset
  MIXED), all 8 bits of the weights, channels aligned, the slow bias correction, which runs the samples again for
  every layer; and SmoothQuant for transformers (``ModelType.TRANSFORMER``).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nncf
import onnx

from tools.side import Job, is_transformer, main, normalized


def default(job: Job) -> None:
    """As it is."""
    quantize(job)


def best(job: Job) -> None:
    """Everything that is for accuracy."""
    transformer = is_transformer(job)
    quantize(
        job,
        preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=False,
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.DISABLE, disable_channel_alignment=False
        ),
    )


def quantize(job: Job, **options: Any) -> None:
    """All calibration samples, one by one."""
    with tempfile.TemporaryDirectory() as folder:
        source = normalized(job, Path(folder))
        samples = list(job.feeds(source))
        result = nncf.quantize(onnx.load(source), nncf.Dataset(samples), subset_size=len(samples), **options)
    onnx.save(result, job.output)


if __name__ == "__main__":
    main("nncf", {"default": default, "best": best})

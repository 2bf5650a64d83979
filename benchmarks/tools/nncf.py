"""Quantize with NNCF (``nncf.quantize`` on an ONNX model); see side.py.

* ``default``: nothing said but the samples.
* ``best``: what it has for accuracy on a processor with VNNI: asymmetric activations where they are signed (preset
  MIXED), all 8 bits of the weights, true minima and maxima as ranges, the slow bias correction, which runs the
  samples again for every layer, or the fast one where that fails; and SmoothQuant for transformers
  (``ModelType.TRANSFORMER``).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nncf
import onnx
from nncf.quantization.range_estimator import RangeEstimatorParametersSet

from tools.side import Job, is_transformer, main, normalized, reason


def default(job: Job) -> None:
    """As it is."""
    quantize(job)


def best(job: Job) -> None:
    """Everything that is for accuracy."""
    options = {
        "preset": nncf.QuantizationPreset.MIXED,
        "model_type": nncf.ModelType.TRANSFORMER if is_transformer(job) else None,
        "advanced_parameters": nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.DISABLE,
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        ),
    }
    try:
        quantize(job, fast_bias_correction=False, **options)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong on their side is a finding
        job.notes.append(f"slow bias correction fails: {reason(error)}")
        quantize(job, **options)


def quantize(job: Job, **options: Any) -> None:
    """All calibration samples, one by one."""
    with tempfile.TemporaryDirectory() as folder:
        source = normalized(job, Path(folder))
        samples = list(job.feeds(source))
        result = nncf.quantize(onnx.load(source), nncf.Dataset(samples), subset_size=len(samples), **options)
    onnx.save(result, job.output)


if __name__ == "__main__":
    main("nncf", {"default": default, "best": best})

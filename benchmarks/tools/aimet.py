"""Quantize with AIMET (``aimet_onnx``); see side.py. What comes out is its export with ordinary Q/DQ.

* ``default``: a ``QuantizationSimModel`` as it is.
* ``best``: what it has for accuracy without training: batch normalizations folded, weights with a scale a channel,
  ranges of weights searched layer by layer (sequential MSE) on the first samples, since it takes long.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import aimet_onnx
import onnx
from aimet_onnx.batch_norm_fold import fold_all_batch_norms_to_weight

from tools.side import Job, main, normalized

PER_CHANNEL = Path(aimet_onnx.__file__).parent / "common" / "quantsim_config" / "default_config_per_channel.json"

SEARCH_SAMPLES = 8
"""Of the sequential MSE."""


def default(job: Job) -> None:
    """As it is."""
    quantize(job, careful=False)


def best(job: Job) -> None:
    """Everything that is for accuracy."""
    quantize(job, careful=True)


def quantize(job: Job, *, careful: bool) -> None:
    """All calibration samples, one by one."""
    with tempfile.TemporaryDirectory() as folder:
        source = normalized(job, Path(folder))
        samples = list(job.feeds(source))
        model = onnx.load(source)
    if careful:
        fold_all_batch_norms_to_weight(model)
    sim = aimet_onnx.QuantizationSimModel(model, config_file=str(PER_CHANNEL) if careful else None)
    if careful:
        aimet_onnx.apply_seq_mse(sim, samples[:SEARCH_SAMPLES])
    sim.compute_encodings(samples)
    onnx.save(sim.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True), job.output)


if __name__ == "__main__":
    main("aimet-onnx", {"default": default, "best": best})

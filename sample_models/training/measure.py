"""Measure a model: float accuracy, and what onnxruntime's own quantizer makes of it (the reference).

Needs onnx, onnxruntime and numpy only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import version_converter
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


class _Samples(CalibrationDataReader):
    """Hands images to onnxruntime's calibrator one by one."""

    def __init__(self, images: Images) -> None:
        self._rest: Iterator[Images] = iter(images)

    def get_next(self) -> dict[str, Images] | None:
        image = next(self._rest, None)
        return None if image is None else {"image": image[None]}


def logits_of(path: Path, images: Images) -> NDArray[np.float32]:
    """Run a model in onnxruntime on one thread; returns logits [N, 10]."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images})[0]


def correct(logits: NDArray[np.float32], labels: Labels) -> int:
    """Count the samples whose largest logit is that of their label."""
    return int((logits.argmax(axis=1) == labels).sum())


def reference(path: Path, calib: Images, images: Images, labels: Labels) -> dict[str, Any]:
    """Quantize with onnxruntime, per channel and per tensor, and measure both against the float model.

    Static QDQ, uint8 activations and int8 weights, ranges by MinMax, after onnxruntime's own
    preparation (`quant_pre_process`). A model below opset 13 is converted to opset 13 first, because
    onnxruntime's quantizer writes per-channel nodes without raising the opset, and the result does not load.
    """
    original = logits_of(path, images)
    figures: dict[str, Any] = {"version": ort.__version__}
    with tempfile.TemporaryDirectory() as scratch:
        raised, prepared, quantized = (Path(scratch, f"{name}.onnx") for name in ("raised", "prepared", "int8"))
        model = onnx.load(path)
        if model.opset_import[0].version < 13:
            model = version_converter.convert_version(model, 13)
            model.ir_version = 7
        onnx.save(model, raised)
        quant_pre_process(raised, prepared, skip_symbolic_shape=True)  # plain inference knows every shape
        for name, per_channel in (("per_channel", True), ("per_tensor", False)):
            quantize_static(
                prepared,
                quantized,
                _Samples(calib),
                quant_format=QuantFormat.QDQ,
                per_channel=per_channel,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            figures[name] = _compare(original, logits_of(quantized, images), labels)
    return figures


def _compare(original: NDArray[np.float32], other: NDArray[np.float32], labels: Labels) -> dict[str, float]:
    """SQNR of the logits, 10·log10(Σ ref² / Σ (ref − q)²), and top-1 figures in percent and points."""
    ref, error = original.astype(np.float64), original.astype(np.float64) - other
    drop = correct(original, labels) - correct(other, labels)
    agreement = (original.argmax(axis=1) == other.argmax(axis=1)).mean()
    return {
        "sqnr_db": round(float(10 * np.log10((ref**2).sum() / (error**2).sum())), 2),
        "top1_percent": round(100 * correct(other, labels) / len(labels), 2),
        "top1_drop_points": round(100 * drop / len(labels), 2),
        "top1_agreement_percent": round(100 * float(agreement), 2),
    }

"""Quantize with onnxruntime.quantization, by the best recipe that compares with quantcli's.

``quant_pre_process``, then ``quantize_static`` with QDQ, per-channel QInt8 weights, QUInt8 activations, MinMax
ranges, and the same calibration samples, one by one. Per-channel weights need opset 13, and quantize_static does
not see to that, so older models are raised with ``onnx.version_converter`` first. What fails is reported, and the
next milder preparation tried; nothing is hidden.

As a program: ``python onnxruntime_side.py MODEL CALIB.npz OUT.onnx [--complete]`` prints one line of JSON,
``{"seconds": …, "notes": […], "error": "…" or null}``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from models import feeds
from onnx import version_converter
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from sessions import input_dtypes, open_session

OPSET = 13
"""Per-channel Q/DQ."""

NEWEST_IR = 10

# Their defaults; and without the pass that fails on weights of more than one scale and a bias of one element.
EXTRA_OPTIONS: tuple[dict[str, Any], ...] = ({}, {"QDQDisableWeightAdjustForInt32Bias": True})


class Reader(quantization.CalibrationDataReader):
    """Samples of an npz file for onnxruntime's calibrators."""

    def __init__(self, calib: Path, complete: bool, dtypes: dict[str, Any]) -> None:
        self._feeds = feeds(calib, complete, dtypes)

    def get_next(self) -> dict[str, Any] | None:
        """The next feed; None after the last."""
        return next(self._feeds, None)


def drop_unused_imports(model: onnx.ModelProto) -> None:
    """Forget operator sets that no node uses: onnx's version converter refuses those it does not know."""
    used = {""}
    graphs = [model.graph, *model.functions]
    while graphs:
        for node in graphs.pop().node:
            used.add(node.domain)
            for attribute in node.attribute:
                graphs += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
    kept = [entry for entry in model.opset_import if entry.domain in used or entry.domain == "ai.onnx"]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def drop_stale_shapes(model: onnx.ModelProto, notes: list[str]) -> None:
    """Forget the stated shapes of a model in which they contradict what shape inference finds."""
    try:
        onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        notes.append(f"stated shapes dropped: {reason(error)}")
        del model.graph.value_info[:]


def opset_of(model: onnx.ModelProto) -> int:
    """Version of ai.onnx."""
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def raise_opset(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    """To opset 13 where the model's is older."""
    version = opset_of(model)
    if version < OPSET:
        model = version_converter.convert_version(model, OPSET)
        notes.append(f"opset {version} → {OPSET}")
    model.ir_version = min(max(model.ir_version, 7), NEWEST_IR)
    return model


def prepare(source: Path, folder: Path, notes: list[str]) -> Path:
    """Their pre-processing and the opset; a path to what quantize_static is given."""
    model = onnx.load(source)
    drop_unused_imports(model)
    drop_stale_shapes(model, notes)
    model.ir_version = min(model.ir_version, NEWEST_IR)
    plain, raised, result = (folder / f"{name}.onnx" for name in ("plain", "raised", "result"))
    onnx.save(model, plain)
    try:
        onnx.save(raise_opset(model, notes), raised)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong on their side is a finding
        notes.append(f"onnx.version_converter fails: {reason(error)}")
        raised = plain  # pre-processing mends some models of opset 10 and less
    attempts: list[tuple[str, Callable[[], None]]] = [
        ("pre-processing", lambda: quant_pre_process(str(raised), str(result))),
        (
            "pre-processing without symbolic shapes",
            lambda: quant_pre_process(str(raised), str(result), skip_symbolic_shape=True),
        ),
        ("no pre-processing", lambda: onnx.save(onnx.load(raised), result)),
    ]
    for what, attempt in attempts:
        try:
            attempt()
            onnx.save(raise_opset(onnx.load(result), notes), result)
            open_session(result)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong on their side is a finding
            notes.append(f"{what} fails: {reason(error)}")
        else:
            if what != attempts[0][0]:
                notes.append(f"used {what}")
            return result
    raise RuntimeError(notes[-1])


def quantize_static(prepared: Path, output: Path, reader: Reader, extra: dict[str, Any]) -> None:
    """Theirs, with the settings that compare with ours."""
    quantization.quantize_static(
        str(prepared),
        str(output),
        reader,
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
        extra_options=extra,
    )


def quantize(source: Path, calib: Path, complete: bool, output: Path) -> dict[str, Any]:
    """Write their int8 model; what happened."""
    notes: list[str] = []
    started = time.perf_counter()
    error = None
    source, calib, output = source.resolve(), calib.resolve(), output.resolve()
    # Their symbolic shape inference leaves files in the working directory.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        try:
            prepared = prepare(source, Path(folder), notes)
            dtypes = input_dtypes(open_session(source))
            for extra in EXTRA_OPTIONS:
                try:
                    quantize_static(prepared, output, Reader(calib, complete, dtypes), extra)
                except Exception as failure:  # noqa: BLE001 - whatever goes wrong on their side is a finding
                    notes.append(f"quantize_static({extra or 'defaults'}) fails: {reason(failure)}")
                    error = reason(failure)
                else:
                    error = None
                    break
        except Exception as failure:  # noqa: BLE001 - whatever goes wrong on their side is a finding
            error = reason(failure)
    return {"seconds": time.perf_counter() - started, "notes": notes, "error": error}


def reason(error: Exception) -> str:
    """Type and first line of an error."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160] if text else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("calib", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--complete", action="store_true", help="rows of CALIB are complete feeds")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    ort.set_default_logger_severity(4)
    with contextlib.redirect_stdout(io.StringIO()):
        result = quantize(arguments.model, arguments.calib, arguments.complete, arguments.output)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

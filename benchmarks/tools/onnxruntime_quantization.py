"""Quantize with onnxruntime.quantization; see side.py.

* ``default``: ``quantize_static`` as it is, on the model as it is (int8, one scale a tensor, MinMax, QDQ).
* ``static``: its best static recipe: ``quant_pre_process``, then ``quantize_static`` with per-channel QInt8
  weights, QUInt8 activations and MinMax. Per-channel weights need opset 13, and quantize_static does not see
  to that, so older models are raised with ``onnx.version_converter`` first.
* ``dynamic``: ``quant_pre_process``, then ``quantize_dynamic`` with per-channel QInt8 weights.

What fails is reported, and the next milder preparation tried; nothing is hidden.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from sessions import open_session

from tools.side import Job, Reader, main, reason

OPSET = 13
"""Per-channel Q/DQ."""

NEWEST_IR = 10

# Their defaults; and without the pass that fails on weights of more than one scale and a bias of one element.
EXTRA_OPTIONS: tuple[dict[str, Any], ...] = ({}, {"QDQDisableWeightAdjustForInt32Bias": True})


class Samples(Reader, quantization.CalibrationDataReader):
    """The samples, of the type that it asks for."""


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


def default(job: Job) -> None:
    """As it is."""
    quantization.quantize_static(str(job.model), str(job.output), Samples(job))


def static(job: Job) -> None:
    """With the settings that compare with quantcli's."""
    failure: Exception | None = None
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(job.model, Path(folder), job.notes)
        for extra in EXTRA_OPTIONS:
            try:
                quantization.quantize_static(
                    str(prepared),
                    str(job.output),
                    Samples(job),
                    quant_format=quantization.QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=quantization.QuantType.QUInt8,
                    weight_type=quantization.QuantType.QInt8,
                    calibrate_method=quantization.CalibrationMethod.MinMax,
                    extra_options=extra,
                )
            except Exception as error:  # noqa: BLE001 - whatever goes wrong on their side is a finding
                job.notes.append(f"quantize_static({extra or 'defaults'}) fails: {reason(error)}")
                failure = error
            else:
                return
    if failure is not None:
        raise failure


def dynamic(job: Job) -> None:
    """Weights ahead, activations when it runs."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(job.model, Path(folder), job.notes)
        quantization.quantize_dynamic(
            str(prepared), str(job.output), per_channel=True, weight_type=quantization.QuantType.QInt8
        )


if __name__ == "__main__":
    main("onnxruntime", {"default": default, "static": static, "dynamic": dynamic})

"""Models that are in float16 or bfloat16, converted by the forms that need no calibration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.pipeline.convert import convert
from quantcli.pipeline.types import ConvertRequest, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.form import Form
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.session import Session

SILENT = SilentProgress()
WIDTH = 64
RNG = np.random.default_rng(8)
X = RNG.normal(0, 1, (16, 4, WIDTH)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two products in float32, and samples."""
    text = """<ir_version: 8, opset_import: ["" : 13]> net (float[N,4,64] x) => (float[N,4,64] y) {
        p = MatMul(x, w0) r = Relu(p) q = MatMul(r, w1) y = Add(q, b) }"""
    proto = onnx.parser.parse_model(text)
    arrays = {f"w{i}": RNG.normal(0, 0.2, (WIDTH, WIDTH)) for i in (0, 1)} | {"b": RNG.normal(0, 1, WIDTH)}
    for name, array in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.save(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "calib.npz", x=X)
    return tmp_path


@pytest.mark.parametrize(
    ("dtype", "form", "data"),
    [
        ("float16", Form.DYNAMIC, True),
        ("bfloat16", Form.DYNAMIC, False),
        ("float16", Form.WEIGHT_ONLY, False),
        ("bfloat16", Form.WEIGHT_ONLY, True),
    ],
)
def test_a_model_in_half_precision_becomes_integers(folder: Path, dtype: str, form: Form, data: bool) -> None:
    half, output = folder / "half.onnx", folder / "out.onnx"
    narrow = Recipe(form=Form.FLOAT, float_type=dtype)
    convert(ConvertRequest(model=folder / "m.onnx", output=half, recipe=narrow), SILENT)
    given = DataOptions(specs=(str(folder / "calib.npz"),) if data else ())
    convert(ConvertRequest(model=half, output=output, data=given, recipe=Recipe(form=form)), SILENT)
    stored = {item.name: item.data_type for item in onnx.load(output).graph.initializer if len(item.dims) == 2}
    assert list(stored.values()) == [onnx.TensorProto.INT8] * 2
    expected, found = (Session(path).run({"x": X})["y"] for path in (folder / "m.onnx", output))
    # Integers of 8 bits on both sides of a product of normal values: far above 20 dB.
    assert np.sum((expected - found) ** 2) < 0.01 * np.sum(expected**2)

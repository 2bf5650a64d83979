"""AveragePool as a depthwise convolution: done where it is the same function, and nowhere else."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser, shape_inference

from quantcli.graph.model import OnnxModel
from quantcli.graph.passes.average_pool_as_conv import write_average_pool_as_conv
from quantcli.runtime.session import Session, SessionSettings

RNG = np.random.default_rng(3)


def pool(attributes: str, shape: tuple[object, ...] = (2, 3, 9, 8), opset: int = 19) -> OnnxModel:
    dims = ",".join(map(str, shape))
    out = ",".join(f"d{axis}" for axis in range(len(shape)))
    proto = parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : {opset}]>\n'
        f"g (float[{dims}] x) => (float[{out}] y) {{ y = AveragePool <{attributes}> (x) }}"
    )
    proto.graph.node[0].name = "pool"
    return OnnxModel(ir.from_proto(shape_inference.infer_shapes(proto)))


def run(model: OnnxModel, x: np.ndarray) -> np.ndarray:
    session = Session(model.to_bytes(), SessionSettings(optimization="disabled"))
    return session.run({"x": x})["y"]


SAME_COUNT = {
    "without padding": ("kernel_shape = [3,2], strides = [2,1]", (2, 3, 9, 8)),
    "padding that is counted": (
        "kernel_shape = [3,3], pads = [1,0,1,2], count_include_pad = 1", (1, 4, 7, 7)
    ),
    "in one dimension": ("kernel_shape = [4], strides = [4]", (2, 3, 12)),
    "in three dimensions": ("kernel_shape = [2,2,2]", (1, 2, 4, 4, 4)),
    "with holes": ("kernel_shape = [3,3], dilations = [2,2]", (1, 3, 9, 9)),
    "with ceil_mode that changes nothing": ("kernel_shape = [3,3], strides = [2,2], ceil_mode = 1", (1, 2, 9, 9)),
    "VALID": ('kernel_shape = [3,3], auto_pad = "VALID"', (1, 2, 9, 9)),
    "a map whose size is not known": ("kernel_shape = [3,3]", (1, 2, "H", "W")),
}  # fmt: skip

OTHER_COUNT = {
    "padding that is not counted": ("kernel_shape = [3,3], pads = [1,1,1,1]", (1, 2, 9, 9)),
    "SAME_UPPER": ('kernel_shape = [3,3], auto_pad = "SAME_UPPER"', (1, 2, 9, 9)),
    "ceil_mode with a last window outside": (
        "kernel_shape = [3,3], strides = [2,2], ceil_mode = 1", (1, 2, 8, 8)
    ),
    "ceil_mode on a map whose size is not known": (
        "kernel_shape = [3,3], strides = [2,2], ceil_mode = 1", (1, 2, "H", "W")
    ),
    "channels whose number is not known": ("kernel_shape = [3,3]", (1, "C", 9, 9)),
}  # fmt: skip


@pytest.mark.parametrize(("attributes", "shape"), SAME_COUNT.values(), ids=SAME_COUNT)
def test_a_pool_whose_windows_divide_equally_becomes_a_convolution_that_computes_the_same(
    attributes: str, shape: tuple[object, ...]
) -> None:
    model = pool(attributes, shape)
    x = RNG.normal(0, 1, [dim if isinstance(dim, int) else 10 for dim in shape]).astype(np.float32)
    before = run(model, x)
    assert write_average_pool_as_conv(model.ir) == ()
    (node,) = model.ir.graph
    assert (node.op_type, node.name) == ("Conv", "pool")
    window = math.prod(node.attributes.get_ints("kernel_shape", []))
    # k products and k sums, each rounded to 2^-24 of a partial sum, which is at most max|x|
    np.testing.assert_allclose(run(model, x), before, rtol=0, atol=2 * window * 2.0**-24 * np.abs(x).max())


@pytest.mark.parametrize(("attributes", "shape"), OTHER_COUNT.values(), ids=OTHER_COUNT)
def test_other_pools_are_left_alone(attributes: str, shape: tuple[object, ...]) -> None:
    model = pool(attributes, shape)
    write_average_pool_as_conv(model.ir)
    assert [node.op_type for node in model.ir.graph] == ["AveragePool"]


def test_the_weight_has_no_rounding_error_in_8_bits() -> None:
    model = pool("kernel_shape = [3,3]")
    write_average_pool_as_conv(model.ir)
    (weight,) = (numpy_helper.to_array(item) for item in ir.to_proto(model.ir).graph.initializer)
    scale = weight.max() / np.float32(127)
    np.testing.assert_array_equal(np.rint(weight / scale), np.full((3, 1, 3, 3), 127))

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from quantcli.errors import RuntimeFailure
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.read_view import read_view
from quantcli.runtime.in_parts import InParts
from quantcli.runtime.kernels import kernel_report
from quantcli.runtime.session import Session, SessionSettings

PLAIN = SessionSettings(optimization="disabled")
X = np.linspace(-1, 1, 2 * 16, dtype=np.float32).reshape(2, 16)


def model(body: str, signature: str = "float[2,16] x", **weights: np.ndarray) -> OnnxModel:
    text = f'<ir_version: 8, opset_import: ["" : 17]>\ng ({signature}) => (y) {{ {body} }}'
    message = parser.parse_model(text)
    for index, node in enumerate(message.graph.node):
        node.name = f"n{index}"
    for name, array in weights.items():
        message.graph.initializer.append(numpy_helper.from_array(array, name))
    return load_model_bytes(message.SerializeToString())


def square(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((16, 16)).astype(np.float32)


def stack(layers: int = 6) -> OnnxModel:
    """Layers, each of which reads the first value as well."""
    lines = [f"h{i} = MatMul({f'r{i - 1}' if i else 'x'}, w{i})\n r{i} = Add(h{i}, x)" for i in range(layers)]
    return model("\n".join([*lines, f"y = Relu(r{layers - 1})"]), **{f"w{i}": square(i) for i in range(layers)})


@pytest.mark.parametrize(("limit", "parts"), [(1, 6), (2048, 3), (10**9, 1)])
def test_parts_compute_what_the_whole_model_computes_to_the_bit(limit: int, parts: int) -> None:
    whole = stack()
    found = InParts(whole, PLAIN, part_bytes=limit)
    assert len(found) == parts
    np.testing.assert_array_equal(found.run({"x": X})["y"], Session(whole.to_bytes(), PLAIN).run({"x": X})["y"])


def test_no_part_has_more_weights_than_its_limit(tmp_path: Path) -> None:
    sizes: list[int] = []
    names: list[str] = []

    def seen(path: Path) -> None:
        view = read_view(path)
        sizes.append(sum(tensor.nbytes for tensor in view.tensors.values()))
        names.extend(node.name for node in view.nodes)

    InParts(stack(), PLAIN, part_bytes=2048).run({"x": X}, seen)
    assert sizes == [2048, 2048, 2048]
    assert names == [f"n{i}" for i in range(13)]


def test_bodies_and_what_they_read_stay_with_their_node() -> None:
    whole = model(
        """a = MatMul(x, w0)
        b = MatMul(a, w1)
        z = If (c) <
            then_branch = t () => (float[2,16] o) { o = MatMul(a, w2) },
            else_branch = e () => (float[2,16] p) { p = Add(a, b) }
        >
        y = MatMul(z, w0)""",
        "float[2,16] x, bool c",
        w0=square(0), w1=square(1), w2=square(2),
    )  # fmt: skip
    for choice in (True, False):
        feeds = {"x": X, "c": np.array(choice)}
        expected = Session(whole.to_bytes(), PLAIN).run(feeds)["y"]
        np.testing.assert_array_equal(InParts(whole, PLAIN, part_bytes=1).run(feeds)["y"], expected)


def test_sequences_do_not_pass_from_part_to_part() -> None:
    whole = model(
        "a = MatMul(x, w0)\n s = SequenceConstruct(a, x)\n b = MatMul(a, w1)\n"
        "i = Constant <value_int = 0> ()\n d = SequenceAt(s, i)\n y = Sum(b, d)",
        w0=square(0), w1=square(1),
    )  # fmt: skip
    parts = InParts(whole, PLAIN, part_bytes=1)
    assert len(parts) == 1
    np.testing.assert_array_equal(parts.run({"x": X})["y"], Session(whole.to_bytes(), PLAIN).run({"x": X})["y"])


def test_texts_pass_from_part_to_part() -> None:
    whole = model(
        "a = MatMul(x, w0)\n t = Cast <to = 8> (a)\n b = MatMul(a, w1)\n s = Shape(b)\n y = Expand(t, s)",
        w0=square(0), w1=square(1),
    )  # fmt: skip
    parts = InParts(whole, PLAIN, part_bytes=1)
    assert len(parts) == 2
    np.testing.assert_array_equal(parts.run({"x": X})["y"], Session(whole.to_bytes(), PLAIN).run({"x": X})["y"])


def test_defaults_of_inputs_count_where_nothing_is_fed() -> None:
    whole = model("y = MatMul(x, w)", "float[2,16] x, float[16,16] w", w=square(0))
    parts = InParts(whole, PLAIN)
    np.testing.assert_allclose(parts.run({"x": X})["y"], X @ square(0), rtol=1e-5)
    np.testing.assert_array_equal(parts.run({"x": X, "w": np.zeros((16, 16), np.float32)})["y"], 0 * X)


def test_a_missing_input_and_a_part_that_fails_are_failures_of_the_run() -> None:
    with pytest.raises(RuntimeFailure, match="'x' is not fed"):
        InParts(stack(), PLAIN).run({})
    with pytest.raises(RuntimeFailure, match="failed while running"):
        InParts(stack(), PLAIN).run({"x": X[:, :7]})


def test_parts_leave_the_model_as_it_is() -> None:
    whole = stack()
    before = whole.to_bytes()
    InParts(whole, PLAIN, part_bytes=1).run({"x": X})
    assert whole.to_bytes() == before
    assert onnx.ModelProto.FromString(before).graph.input[0].name == "x"


def test_what_is_computed_from_constants_stays_with_its_readers() -> None:
    integers = {f"q{i}": np.arange(i, 256 + i).astype(np.int8).reshape(16, 16) for i in range(3)}
    whole = model(
        "d0 = DequantizeLinear(q0, s)\n d1 = DequantizeLinear(q1, s)\n d2 = DequantizeLinear(q2, s)\n"
        "a = MatMul(x, d0)\n b = MatMul(a, d1)\n c = MatMul(b, d2)\n y = MatMul(c, d0)",
        **integers, s=np.float32(0.01),
    )  # fmt: skip
    files: list[list[str]] = []
    parts = InParts(whole, PLAIN, part_bytes=1)
    expected = Session(whole.to_bytes(), PLAIN).run({"x": X})["y"]
    np.testing.assert_array_equal(
        parts.run({"x": X}, lambda path: files.append([node.op_type for node in read_view(path).nodes]))["y"],
        expected,
    )
    assert files == [["DequantizeLinear", "MatMul"]] * 4


def test_what_a_kernel_is_fused_with_stays_with_it() -> None:
    integers = {f"q{i}": np.arange(i, 256 + i).astype(np.int8).reshape(16, 16) for i in range(2)}
    whole = model(
        """a, s0, z0 = DynamicQuantizeLinear(x)
        m0 = MatMulInteger(a, q0, z0)
        c0 = Cast <to = 1> (m0)
        k0 = Mul(s0, w0)
        y0 = Mul(c0, k0)
        b, s1, z1 = DynamicQuantizeLinear(y0)
        m1 = MatMulInteger(b, q1, z1)
        c1 = Cast <to = 1> (m1)
        k1 = Mul(s1, w1)
        y1 = Mul(c1, k1)
        y = Add(y1, y0)""",
        **integers, w0=np.float32([0.01]), w1=np.float32([0.02]),
    )  # fmt: skip
    kernels: list[list[str]] = []

    def seen(path: Path) -> None:
        found = kernel_report(path, {})
        kernels.append(sorted(found.integer))

    parts = InParts(whole, PLAIN, part_bytes=300)
    expected = Session(whole.to_bytes(), PLAIN).run({"x": X})["y"]
    np.testing.assert_array_equal(parts.run({"x": X}, seen)["y"], expected)
    assert kernels == [["DynamicQuantizeMatMul"]] * 2

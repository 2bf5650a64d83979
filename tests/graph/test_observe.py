from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.observe import Observed, ObserverLayout, expose, expose_shapes, float_values, observe
from quantcli.runtime.session import Session

OPSETS = [7, 9, 10, 11, 12, 13, 17, 18, 21]


def parsed(text: str) -> OnnxModel:
    return load_model_bytes(onnx.parser.parse_model(text).SerializeToString())


def chain(opset: int = 13) -> OnnxModel:
    """x [N, C, K] → n = −x → y = relu(n)."""
    return parsed(f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        g (float[N, C, K] x) => (float[N, C, K] y) {{
            n = Neg(x)
            y = Relu(n)
        }}
    """)


def run(model: OnnxModel, layout: ObserverLayout, x: np.ndarray, samples: int = 1) -> list[np.ndarray]:
    session = Session(model.to_bytes())
    found = session.run({"x": x, **layout.feeds(samples)}, layout.outputs)
    return [found[name] for name in layout.outputs]


def rows(array: np.ndarray, stride: int, samples: int) -> list[list[float]]:
    """min, max, sum and values of each sample, by numpy."""
    flat = array.reshape(samples, -1)
    return [[row.min(), row.max(), row.sum(), *row[::stride]] for row in flat]


@pytest.mark.parametrize("opset", OPSETS)
def test_extremes_sums_and_strided_values_are_measured(opset: int) -> None:
    x = np.random.default_rng(0).normal(size=(1, 3, 7)).astype(np.float32)
    model, layout = observe(
        chain(opset), [Observed(name="n", rank=3, stride=2), Observed(name="y", rank=3, stride=5)]
    )
    (out,) = run(model, layout, x)
    n, y = rows(-x, 2, 1)[0], rows(np.maximum(-x, 0), 5, 1)[0]
    extremes = [n[0], y[0], n[1], y[1], n[2], y[2]]
    assert out.shape == (1, 6 + 11 + 1 + 5 + 1)
    np.testing.assert_allclose(out[0, :6], extremes, rtol=1e-6)  # sums may be added in another order
    np.testing.assert_array_equal(out[0, 6:], [*n[3:], np.nan, *y[3:], np.nan])


def test_a_batch_gives_one_row_per_sample() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 7)).astype(np.float32)
    model, layout = observe(chain(), [Observed(name="n", rank=3, stride=2, per_sample=True)])
    (out,) = run(model, layout, x, 4)
    for row, expected in zip(out, rows(-x, 2, 4), strict=True):
        np.testing.assert_allclose(row[:3], expected[:3], rtol=1e-6)
        np.testing.assert_array_equal(row[3:-1], expected[3:])


def test_a_batch_in_the_second_axis_of_a_reshaped_tensor_falls_apart_too() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, C, K] x) => (float[M, K] y) <int64[2] shape = {-1, 7}> { y = Reshape(x, shape) }
    """)
    x = np.arange(42, dtype=np.float32).reshape(2, 3, 7)
    observing, layout = observe(model, [Observed(name="y", rank=2, stride=0, per_sample=True)])
    (out,) = run(observing, layout, x, 2)
    assert out[:, :2].tolist() == [[0, 20], [21, 41]]


def test_tensors_that_do_not_depend_on_the_batch_have_one_row() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, C, K] x, float[1, C] bias) => (float[N, C, K] y, float[1, C] b) {
            y = Relu(x)
            b = Neg(bias)
        }
    """)
    tensors = [
        Observed(name="y", rank=3, stride=1, per_sample=True, nonnegative=True),
        Observed(name="b", rank=2, stride=1),
    ]
    observing, layout = observe(model, tensors)
    x = np.ones((2, 3, 1), np.float32)
    found = Session(observing.to_bytes()).run(
        {"x": x, "bias": np.float32([[1, 2, 3]]), **layout.feeds(2)}, layout.outputs
    )
    first, second = (found[name] for name in layout.outputs)
    assert first[:, :3].tolist() == [[0, 1, 3], [0, 1, 3]]
    assert second[0, :6].tolist() == [-3, -1, -6, -1, -2, -3]


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize(("axis", "batch_axis"), [(0, False), (1, True), (1, False), (2, True), (2, False)])
def test_channels_get_extremes_of_their_own(opset: int, axis: int, batch_axis: bool) -> None:
    x = np.random.default_rng(0).normal(size=(1, 3, 7)).astype(np.float32)
    tensor = Observed(name="n", rank=3, stride=0, channel_axis=axis, channels=x.shape[axis], batch_axis=batch_axis)
    model, layout = observe(chain(opset), [tensor])
    (out,) = run(model, layout, x)
    others = tuple(index for index in range(3) if index != axis)
    expected = [(-x).min(), (-x).max(), *(-x).min(axis=others), *(-x).max(axis=others)]
    assert np.isnan(out[0, [3 + x.shape[axis], -2, -1]]).all()
    np.testing.assert_array_equal(np.delete(out[0], [2, 3 + x.shape[axis], -2, -1]), np.float32(expected))


@pytest.mark.parametrize(("axis", "batch_axis"), [(1, True), (2, True), (1, False)])
def test_channels_of_a_batch_have_extremes_over_all_samples(axis: int, batch_axis: bool) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 7)).astype(np.float32)
    tensor = Observed(
        name="n",
        rank=3,
        stride=0,
        channel_axis=axis,
        channels=x.shape[axis],
        batch_axis=batch_axis,
        per_sample=True,
    )
    model, layout = observe(chain(), [tensor])
    per_row, channels = run(model, layout, x, 4)
    others = tuple(index for index in range(3) if index != axis)
    expected = [*(-x).min(axis=others), *(-x).max(axis=others)]
    np.testing.assert_array_equal(channels[0, ~np.isnan(channels[0])], np.float32(expected))
    np.testing.assert_array_equal(per_row[:, 0], (-x).reshape(4, -1).min(axis=1))
    assert [group.channels for group in layout.groups] == [0, x.shape[axis]]


def test_channels_of_a_matrix_are_its_columns() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, C] x) => (float[N, C] y) { y = Neg(x) }
    """)
    tensor = Observed(name="y", rank=2, stride=0, channel_axis=1, channels=3, batch_axis=True, per_sample=True)
    observing, layout = observe(model, [tensor])
    _, channels = run(observing, layout, np.float32([[1, 2, 3], [6, 5, 4]]), 2)
    np.testing.assert_array_equal(channels, np.float32([[-6, -5, -4, np.nan, -1, -2, -3, np.nan]]))


@pytest.mark.parametrize("opset", [7, 13, 21])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 10, 39])
def test_no_nan_and_no_infinity_passes_unseen(opset: int, value: float, at: int) -> None:
    x = np.ones((1, 4, 10), np.float32)
    x.flat[at] = value
    model, layout = observe(chain(opset), [Observed(name="n", rank=3, stride=0)])
    (out,) = run(model, layout, x)
    assert np.isnan(out[0, 2]) if np.isnan(value) else not np.isfinite(out[0, :2]).all()


@pytest.mark.parametrize("opset", [11, 13, 18, 20, 21])
def test_empty_tensors_are_told_from_others(opset: int) -> None:
    model, layout = observe(
        chain(opset),
        [Observed(name="n", rank=3, stride=3), Observed(name="y", rank=3, stride=3, nonnegative=True)],
    )
    (out,) = run(model, layout, np.zeros((1, 3, 0), np.float32))
    np.testing.assert_array_equal(out[0], [np.inf, 0, -np.inf, -np.inf, 0, 0, np.nan, np.nan])


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_float_types_are_measured_as_float32(dtype: str) -> None:
    name = {"float16": "float16", "float64": "double"}[dtype]
    model = parsed(f"""
        <ir_version: 8, opset_import: ["" : 13]>
        g ({name}[N] x) => ({name}[N] y) {{ y = Identity(x) }}
    """)
    observing, layout = observe(model, [Observed(name="y", rank=1, stride=1, dtype=dtype)])
    x = np.array([0.1, -3, 5], dtype)
    (out,) = run(observing, layout, x)
    assert out[0, :2].tolist() == [-3, 5]
    np.testing.assert_array_equal(out[0, 3:6], x.astype(np.float32))


def test_results_of_the_model_stay_what_they_were() -> None:
    x = np.random.default_rng(0).normal(size=(1, 3, 7)).astype(np.float32)
    original = chain()
    before = original.to_bytes()
    observing, layout = observe(original, [Observed(name="n", rank=3, stride=2)])
    found = Session(observing.to_bytes()).run({"x": x, **layout.feeds(1)}, ["y"])
    np.testing.assert_array_equal(found["y"], np.maximum(-x, 0))
    assert original.to_bytes() == before


def test_names_that_the_model_uses_are_avoided() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N] observer0_nan) => (float[N] y) { y = Neg(observer0_nan) }
    """)
    observing, layout = observe(model, [Observed(name="y", rank=1, stride=1)])
    found = Session(observing.to_bytes()).run({"observer0_nan": np.float32([1, 2])}, layout.outputs)
    assert found[layout.outputs[0]][0, :2].tolist() == [-2, -1]


def test_each_tensor_is_measured_right_after_it_was_made(tmp_path: Path) -> None:
    """The order that keeps activations in the cache and memory low; see the module."""
    body = "".join(f"t{i + 1} = Softmax(t{i})\n" for i in range(6))
    model = parsed(f"""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[1, 5] t0) => (float[1, 5] t6) {{ {body} }}
    """)
    observing, layout = observe(model, [Observed(name=f"t{i}", rank=2, stride=1) for i in (3, 1, 5, 2, 4)])
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(observing.to_bytes(), options, providers=["CPUExecutionProvider"])
    session.run(list(layout.outputs), {"t0": np.ones((1, 5), np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text())
    operators = [event["args"]["op_name"] for event in events if event.get("name", "").endswith("kernel_time")]
    maxima = [index for index, operator in enumerate(operators) if operator == "ReduceMax"]
    softmaxes = [index for index, operator in enumerate(operators) if operator == "Softmax"]
    # t1 is measured before t3 is made, and so on.
    assert all(measured < made for measured, made in zip(maxima, softmaxes[2:], strict=False))


def test_unknown_values_are_refused() -> None:
    with pytest.raises(ValueError, match="no value 'z'"):
        observe(chain(), [Observed(name="z", rank=3, stride=1)])
    with pytest.raises(ValueError, match="no value 'z'"):
        expose(chain(), ["z"])


def test_tensors_with_a_row_per_sample_must_come_first() -> None:
    with pytest.raises(ValueError, match="must come first"):
        observe(
            chain(),
            [Observed(name="n", rank=3, stride=1), Observed(name="y", rank=3, stride=1, per_sample=True)],
        )


def test_exposed_values_are_outputs_once() -> None:
    model = expose(chain(), ["n", "y"])
    x = np.ones((1, 2, 2), np.float32)
    session = Session(model.to_bytes())
    assert session.output_names == ("y", "n")
    found = session.run({"x": x}, ["n"])
    np.testing.assert_array_equal(found["n"], -x)


def test_shapes_are_measured() -> None:
    model, outputs = expose_shapes(chain(), ["x", "y"])
    found = Session(model.to_bytes()).run({"x": np.ones((2, 3, 4), np.float32)}, outputs)
    assert [found[name].tolist() for name in outputs] == [[2, 3, 4], [2, 3, 4]]


def test_float_values_are_listed_with_their_producers() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N] x) => (float[N] y) <int64 n, float n1> {
            [shape] s = Shape(x)
            [negate] m = Neg(x)
            [result] y = Relu(m)
        }
    """)
    names = dict(float_values(model))
    assert names["x"] == ""
    assert names["y"] == "result"
    assert list(names)[-2:] == ["m", "y"]

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.observe import (
    Observed,
    ObserverGroup,
    ObserverLayout,
    expose,
    expose_shapes,
    float_values,
    observe,
)
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


@dataclass(frozen=True)
class Told:
    """What one output says of its tensors: of each its sums, minima and maxima [rows, width], and values."""

    sums: np.ndarray
    lows: list[np.ndarray]
    highs: list[np.ndarray]
    loose: list[np.ndarray]
    values: list[np.ndarray]


def told(group: ObserverGroup, array: np.ndarray) -> Told:
    """``array`` taken apart by the columns that the group's description promises; NaN stands where it should."""
    at = len(group.tensors)
    sums = array[:, :at]
    assert (array[:, at] == 0).all()
    at += 1

    def taken(tensors: Sequence[Observed], widths: list[int], *, low: bool) -> list[np.ndarray]:
        nonlocal at
        found = []
        for tensor, width in zip(tensors, widths, strict=True):
            if low and tensor.nonnegative:
                found.append(np.zeros((len(array), width), np.float32))
                continue
            found.append(array[:, at : at + width])
            assert np.isnan(array[:, at + width]).all()
            at += width + 1
        return found

    own = [tensor.width for tensor in group.tensors]
    loose = [tensor.loose for tensor in group.loose]
    lows, highs = (taken(group.tensors, own, low=low) for low in (True, False))
    apart = [part for low in (True, False) for part in taken(group.loose, loose, low=low)]
    values = np.split(array[:, at:], np.flatnonzero(np.isnan(array[0, at:])) + 1, axis=1)[:-1]
    assert len(values) == len(group.tensors)
    return Told(sums=sums, lows=lows, highs=highs, loose=apart, values=[part[:, :-1] for part in values])


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
    found = told(layout.groups[0], out)
    for index, expected in enumerate((rows(-x, 2, 1)[0], rows(np.maximum(-x, 0), 5, 1)[0])):
        np.testing.assert_allclose(found.sums[0, index], expected[2], rtol=1e-6)  # added in another order
        assert [found.lows[index].item(), found.highs[index].item()] == expected[:2]
        np.testing.assert_array_equal(found.values[index][0], expected[3:])


def test_a_batch_gives_one_row_per_sample() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 7)).astype(np.float32)
    model, layout = observe(chain(), [Observed(name="n", rank=3, stride=2, per_sample=True)])
    (out,) = run(model, layout, x, 4)
    found = told(layout.groups[0], out)
    for row, expected in enumerate(rows(-x, 2, 4)):
        assert [found.lows[0][row].item(), found.highs[0][row].item()] == expected[:2]
        np.testing.assert_allclose(found.sums[row, 0], expected[2], rtol=1e-6)
        np.testing.assert_array_equal(found.values[0][row], expected[3:])


def test_a_batch_in_the_second_axis_of_a_reshaped_tensor_falls_apart_too() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, C, K] x) => (float[M, K] y) <int64[2] shape = {-1, 7}> { y = Reshape(x, shape) }
    """)
    x = np.arange(42, dtype=np.float32).reshape(2, 3, 7)
    observing, layout = observe(model, [Observed(name="y", rank=2, stride=0, per_sample=True)])
    (out,) = run(observing, layout, x, 2)
    found = told(layout.groups[0], out)
    assert (found.lows[0].tolist(), found.highs[0].tolist()) == ([[0], [21]], [[20], [41]])


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
    first, second = (told(group, found[group.output]) for group in layout.groups)
    assert (first.sums.tolist(), first.highs[0].tolist()) == ([[3], [3]], [[1], [1]])
    assert (second.sums.item(), second.lows[0].item(), second.highs[0].item()) == (-6, -3, -1)
    assert second.values[0].tolist() == [[-1, -2, -3]]


def extremes_by_channel(x: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    others = tuple(index for index in range(x.ndim) if index != axis)
    return x.min(axis=others), x.max(axis=others)


@pytest.mark.parametrize("opset", [9, 11, 13, 18])
@pytest.mark.parametrize("length", [7, 100])
@pytest.mark.parametrize(("axis", "batch_axis"), [(0, False), (1, True), (1, False), (2, True), (2, False)])
def test_channels_get_extremes_of_their_own(opset: int, length: int, axis: int, batch_axis: bool) -> None:
    shape = (1, length, 5) if axis == 2 else (1, 5, length)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    tensor = Observed(
        name="n",
        rank=3,
        stride=0,
        channel_axis=axis,
        channels=shape[axis],
        batch_axis=batch_axis,
        positions=x.size // shape[axis],
    )
    model, layout = observe(chain(opset), [tensor])
    (out,) = run(model, layout, x)
    found = told(layout.groups[0], out)
    low, high = extremes_by_channel(-x, axis)
    np.testing.assert_array_equal(found.lows[0][0], low)
    np.testing.assert_array_equal(found.highs[0][0], high)


@pytest.mark.parametrize("batch_axis", [True, False])
def test_channels_of_longer_samples_than_expected_are_right_too(batch_axis: bool) -> None:
    x = np.random.default_rng(0).normal(size=(1, 900, 5)).astype(np.float32)
    tensor = Observed(name="n", rank=3, stride=0, channel_axis=2, channels=5, batch_axis=batch_axis, positions=20)
    model, layout = observe(chain(), [tensor])
    (out,) = run(model, layout, x)
    found = told(layout.groups[0], out)
    low, high = extremes_by_channel(-x, 2)
    np.testing.assert_array_equal([found.lows[0][0], found.highs[0][0]], [low, high])


@pytest.mark.parametrize("length", [7, 100])
@pytest.mark.parametrize("axis", [1, 2])
def test_channels_of_a_batch_have_extremes_for_each_sample(axis: int, length: int) -> None:
    x = np.random.default_rng(0).normal(size=(4, length, 5) if axis == 2 else (4, 5, length)).astype(np.float32)
    tensor = Observed(
        name="n",
        rank=3,
        stride=0,
        channel_axis=axis,
        channels=5,
        batch_axis=True,
        per_sample=True,
        positions=length,
    )
    model, layout = observe(chain(), [tensor])
    (out,) = run(model, layout, x, 4)
    found = told(layout.groups[0], out)
    np.testing.assert_array_equal(found.lows[0], (-x).min(axis=3 - axis))
    np.testing.assert_array_equal(found.highs[0], (-x).max(axis=3 - axis))


def test_channels_that_do_not_tell_samples_apart_have_extremes_over_the_batch() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 7)).astype(np.float32)
    tensors = [
        Observed(name="n", rank=3, stride=0, channel_axis=1, channels=3, per_sample=True),
        Observed(name="y", rank=3, stride=0, channel_axis=2, channels=7, per_sample=True, nonnegative=True),
    ]
    model, layout = observe(chain(), tensors)
    rows_of, channels_of = (
        told(group, array) for group, array in zip(layout.groups, run(model, layout, x, 4), strict=True)
    )
    np.testing.assert_array_equal(rows_of.lows[0][:, 0], (-x).reshape(4, -1).min(axis=1))
    low, high = extremes_by_channel(-x, 1)
    np.testing.assert_array_equal(channels_of.loose[0][0], low)
    np.testing.assert_array_equal(channels_of.loose[1][0], np.zeros(7))
    np.testing.assert_array_equal(channels_of.loose[2][0], high)
    np.testing.assert_array_equal(channels_of.loose[3][0], np.maximum(-x, 0).max(axis=(0, 1)))


def test_channels_of_a_matrix_are_its_columns() -> None:
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, C] x) => (float[N, C] y) { y = Neg(x) }
    """)
    tensor = Observed(name="y", rank=2, stride=0, channel_axis=1, channels=3, batch_axis=True, per_sample=True)
    observing, layout = observe(model, [tensor])
    (out,) = run(observing, layout, np.float32([[1, 2, 3], [6, 5, 4]]), 2)
    np.testing.assert_array_equal(told(layout.groups[0], out).lows[0], [[-1, -2, -3], [-6, -5, -4]])


def test_a_lower_bound_of_0_stands_for_the_minima_without_a_column() -> None:
    x = np.random.default_rng(0).normal(size=(1, 3, 7)).astype(np.float32)
    tensor = Observed(name="y", rank=3, stride=0, channel_axis=1, channels=3, batch_axis=True, nonnegative=True)
    model, layout = observe(chain(), [tensor])
    (out,) = run(model, layout, x)
    assert out.shape == (1, 1 + 1 + 3 + 1 + 1)  # sum, 0, maxima and a NaN, a NaN for no values
    np.testing.assert_array_equal(out[0, 2:5], np.maximum(-x, 0).max(axis=(0, 2)))


@pytest.mark.parametrize("opset", [7, 13, 21])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 10, 39])
@pytest.mark.parametrize("by_channel", [False, True])
def test_no_nan_and_no_infinity_passes_unseen(opset: int, value: float, at: int, by_channel: bool) -> None:
    x = np.ones((1, 4, 10), np.float32)
    x.flat[at] = value
    tensor = Observed(name="n", rank=3, stride=0)
    if by_channel:  # of so many elements that MaxPool is used
        tensor = replace(tensor, channel_axis=2, channels=10, batch_axis=True, positions=40)
    model, layout = observe(chain(opset), [tensor])
    found = told(layout.groups[0], run(model, layout, x)[0])
    extremes = np.concatenate([found.lows[0][0], found.highs[0][0]])
    assert np.isnan(found.sums[0, 0]) if np.isnan(value) else not np.isfinite(extremes).all()


@pytest.mark.parametrize("opset", [11, 13, 18, 20, 21])
def test_empty_tensors_are_told_from_others(opset: int) -> None:
    model, layout = observe(
        chain(opset),
        [Observed(name="n", rank=3, stride=3), Observed(name="y", rank=3, stride=3, nonnegative=True)],
    )
    (out,) = run(model, layout, np.zeros((1, 3, 0), np.float32))
    found = told(layout.groups[0], out)
    assert found.sums.tolist() == [[0, 0]]
    assert [part.item() for part in (*found.lows, *found.highs)] == [np.inf, 0, -np.inf, -np.inf]
    assert [part.size for part in found.values] == [0, 0]


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
    found = told(layout.groups[0], out)
    assert (found.lows[0].item(), found.highs[0].item()) == (-3, 5)
    np.testing.assert_array_equal(found.values[0][0], x.astype(np.float32))


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
    measured = told(layout.groups[0], found[layout.outputs[0]])
    assert (measured.lows[0].item(), measured.highs[0].item()) == (-2, -1)


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

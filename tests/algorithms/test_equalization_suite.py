"""Models of the ONNX backend suite between two layers: equalizing them gives the same bits.

Every model gets a layer in front of its first input and one behind its first output, where these are float; its
other inputs become constants. Scales are powers of two, so no rule may change a bit. LpPool is left out: its
powers round.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from equalized_graphs import equalized, run
from onnx import TensorProto, helper, numpy_helper

from quantcli.errors import QuantcliError
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.prepare import prepare
from quantcli.graph.shapes import infer_shapes
from quantcli.runtime.session import Session, SessionSettings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # making the cases overflows on purpose

RNG = np.random.default_rng(0)


def is_map(array: object) -> bool:
    return isinstance(array, np.ndarray) and array.dtype == np.float32 and array.ndim >= 2 and array.size > 0


def layer(source: str, target: str, shape: tuple[int, ...], channels: int) -> tuple[onnx.NodeProto, np.ndarray]:
    """A convolution of 1 for maps, a matrix product for matrices."""
    if len(shape) > 2:
        weight = RNG.normal(size=(channels, shape[1], *(1,) * (len(shape) - 2)))
        return helper.make_node("Conv", [source, f"{target}_w"], [target]), weight.astype(np.float32)
    weight = RNG.normal(size=(shape[1], channels))
    return helper.make_node("MatMul", [source, f"{target}_w"], [target]), weight.astype(np.float32)


def sandwich(
    model: onnx.ModelProto, inputs: list[np.ndarray], outputs: list[np.ndarray]
) -> tuple[bytes, dict[str, np.ndarray]]:
    """``model`` between two layers, and what it is fed."""
    graph, nodes = model.graph, list(model.graph.node)
    shape, made = inputs[0].shape, outputs[0].shape
    first, first_weight = layer(
        "sandwich_x", graph.input[0].name, shape, shape[1] if len(shape) > 2 else shape[-1]
    )
    last, last_weight = layer(graph.output[0].name, "sandwich_y", made, 3)
    for info, array in zip(list(graph.input)[1:], inputs[1:], strict=False):
        graph.initializer.append(numpy_helper.from_array(array, info.name))
    for node, weight in ((first, first_weight), (last, last_weight)):
        graph.initializer.append(numpy_helper.from_array(weight, node.input[1]))
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([first, *nodes, last])
    graph.input.append(helper.make_tensor_value_info("sandwich_x", TensorProto.FLOAT, shape))
    graph.output.append(helper.make_tensor_value_info("sandwich_y", TensorProto.FLOAT, None))
    model.ir_version = min(model.ir_version, 10)
    return model.SerializeToString(), {"sandwich_x": inputs[0]}


def cases() -> Iterator[tuple[str, bytes, dict[str, np.ndarray]]]:
    from onnx.backend.test import loader

    for case in [case for kind in ("node", "simple") for case in loader.load_model_tests(kind=kind)]:
        if case.model is None or not case.data_sets or "lppool" in case.name:
            continue
        inputs, outputs = case.data_sets[0]
        if not inputs or not is_map(inputs[0]) or not outputs or not is_map(outputs[0]):
            continue
        if all(isinstance(array, np.ndarray) for array in inputs):
            copy = onnx.ModelProto()
            copy.CopyFrom(case.model)  # the loader hands out the same models to all tests
            yield case.name, *sandwich(copy, list(inputs), list(outputs))


def evaluate(model: bytes, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return Session(model, SessionSettings(optimization="disabled")).run(feeds)


def test_no_operator_of_the_suite_changes_a_bit() -> None:
    found: Counter[str] = Counter()
    different = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data, feeds in cases():
            try:
                model = prepare(load_model_bytes(data), evaluate=evaluate).model
                infer_shapes(model)
                expected = run(model, feeds)["sandwich_y"]
            except QuantcliError:
                found["not run"] += 1
                continue
            result, equalization = equalized(model, smoothing=False)
            found["scaled" if equalization.scales else "pinned"] += 1
            if not np.array_equal(run(result, feeds)["sandwich_y"], expected, equal_nan=True):
                different.append(name)
    assert not different
    assert found["scaled"] > 100
    assert found["pinned"] > 400

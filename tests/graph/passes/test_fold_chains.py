"""Random layers with random affine maps behind them fold into the layer and compute the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.passes.fold_batchnorm import fold_batchnorm
from quantcli.runtime.session import Session, SessionSettings

CHAINS = 25


def layer(rng: np.random.Generator) -> tuple[str, np.ndarray, int, tuple[int, ...]]:
    """Call of a layer, its weight, its output channels and the shape of its input."""
    operator = str(rng.choice(["Conv", "ConvTranspose", "Gemm"]))
    groups, per_group, axes = (int(rng.integers(1, 4)) for _ in range(3))
    inputs, outputs = groups * int(rng.integers(1, 4)), groups * per_group
    if operator == "Gemm":
        transposed = int(rng.integers(2))
        shape = (outputs, inputs) if transposed else (inputs, outputs)
        attributes = f"transB = {transposed}, alpha = {rng.uniform(0.5, 2):.3f}, beta = {rng.uniform(0.5, 2):.3f}"
        return f"Gemm <{attributes}>", rng.normal(size=shape), outputs, (4, inputs)
    first = (outputs, inputs // groups) if operator == "Conv" else (inputs, per_group)
    return (
        f"{operator} <group = {groups}>",
        rng.normal(size=first + (2,) * axes),
        outputs,
        (2, inputs) + (5,) * axes,
    )


def chain(rng: np.random.Generator) -> tuple[OnnxModel, np.ndarray]:
    """A layer with one to three maps behind it, and an input."""
    call, weight, channels, shape = layer(rng)
    axes = len(shape) - 2
    constants = {"w": weight, "v": rng.uniform(0.1, 2, channels)}
    constants |= {name: rng.normal(size=channels) for name in ("b", "g", "be", "m")}
    value = f"{call} (x, w, b)" if rng.integers(2) else f"{call} (x, w)"
    text = f"c0 = {value} "
    count = int(rng.integers(1, 4))
    for index in range(count):
        source, result = f"c{index}", "y" if index == count - 1 else f"c{index + 1}"
        operator = str(rng.choice(["BatchNormalization", "Mul", "Add", "Sub", "Div", "Mul left", "Sub left"]))
        if operator == "BatchNormalization":
            text += f"{result} = BatchNormalization ({source}, g, be, m, v) "
            continue
        shapes = [(channels,) + (1,) * axes, (1, channels) + (1,) * axes, (), (1,), (1,) * (axes + 2)]
        constants[f"k{index}"] = rng.uniform(0.5, 2, size=shapes[int(rng.integers(len(shapes)))])
        pair = (f"k{index}", source) if operator.endswith("left") else (source, f"k{index}")
        text += f"{result} = {operator.split()[0]} ({', '.join(pair)}) "
    dims = ", ".join("ABCDE"[: len(shape)])
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> g (float[{", ".join(map(str, shape))}] x) => (float[{dims}] y) '
        f"{{ {text} }}"
    )
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()
    )
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
    return load_model_bytes(proto.SerializeToString()), rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_random_chains_fold_into_one_layer_that_computes_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(CHAINS):
        before, x = chain(rng)
        after = before.clone()
        fold_batchnorm(after.ir)
        (node,) = after.view().nodes
        assert node.name == "n0"
        assert len(node.absorbed) == len(before.view().nodes) - 1
        want, got = (
            Session(subject.to_bytes(), SessionSettings(optimization="disabled")).run({"x": x})["y"]
            for subject in (before, after)
        )
        # Up to 9 · 8 products and three maps, each rounded once: 75 · 2⁻²⁴ of the largest intermediate value,
        # which maps with factors up to 3 make at most 9 times the result's.
        np.testing.assert_allclose(got, want, rtol=0, atol=75 * 2.0**-24 * 9 * max(1.0, float(np.abs(want).max())))

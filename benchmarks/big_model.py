"""Writes a transformer of any size whose weights lie in external data; memory does not grow with the size.

The model reads token numbers (batch, sequence) and gives logits: an embedding table, layers of attention and of a
two-layer perceptron, each behind a LayerNormalization, and a head. All weights are float32 normal values of
variance 1 / inputs from a seeded generator, so that the same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

OPSET = 20
IR_VERSION = 9
ALIGNMENT = 4096
CHUNK = 1 << 20  # values that are drawn at a time


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of the model: vocabulary, width, heads, hidden width of the perceptron, layers."""

    vocabulary: int = 32_000
    width: int = 2048
    heads: int = 16
    hidden: int = 8192
    layers: int = 14

    @property
    def weight_bytes(self) -> int:
        """Bytes of all matrices in float32."""
        layer = 4 * self.width * self.width + 2 * self.width * self.hidden
        return 4 * (layer * self.layers + 2 * self.vocabulary * self.width)


class Builder:
    """Collects nodes, and writes weights to the data file as they come."""

    def __init__(self, data: BinaryIO, location: str) -> None:
        self.data, self.location = data, location
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []

    def node(self, op_type: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        """Add a node of one output."""
        output = f"{name}_output"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))
        return output

    def weight(self, name: str, *shape: int) -> str:
        """Normal values of variance 1 / shape[0] in the data file."""
        self.data.write(bytes(-self.data.tell() % ALIGNMENT))
        start, left = self.data.tell(), math.prod(shape)
        generator = np.random.default_rng([len(self.initializers), *shape])
        scale = np.float32(1 / math.sqrt(shape[0] if len(shape) > 1 else 1))
        while left:
            part = generator.standard_normal(min(left, CHUNK), dtype=np.float32) * scale
            self.data.write(part.tobytes())
            left -= part.size
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.location), ("offset", start), ("length", self.data.tell() - start)):
            tensor.external_data.add(key=key, value=str(value))
        self.initializers.append(tensor)
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        """A small constant inside the model's file."""
        self.initializers.append(onnx.numpy_helper.from_array(values, name))
        return name

    def norm(self, value: str, name: str, width: int) -> str:
        """A LayerNormalization."""
        scale = self.constant(f"{name}.scale", np.ones(width, np.float32))
        bias = self.constant(f"{name}.bias", np.zeros(width, np.float32))
        return self.node("LayerNormalization", [value, scale, bias], name, axis=-1)

    def attention(self, value: str, name: str, size: Size) -> str:
        """Softmax(Q·Kᵀ / √d)·V of every head, and the matrix behind them."""
        width = size.width
        found = {}
        for part, order in (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1)), ("v", (0, 2, 1, 3))):
            matrix = self.weight(f"{name}.{part}.weight", width, width)
            projected = self.node("MatMul", [value, matrix], f"{name}.{part}")
            heads = self.node("Reshape", [projected, "to_heads"], f"{name}.{part}.heads")
            found[part] = self.node("Transpose", [heads], f"{name}.{part}.turned", perm=order)
        scores = self.node("MatMul", [found["q"], found["k"]], f"{name}.scores")
        scaled = self.node("Mul", [scores, "one_by_root"], f"{name}.scaled")
        shares = self.node("Softmax", [scaled], f"{name}.shares", axis=-1)
        mixed = self.node("MatMul", [shares, found["v"]], f"{name}.mixed")
        back = self.node("Transpose", [mixed], f"{name}.back", perm=(0, 2, 1, 3))
        joined = self.node("Reshape", [back, "from_heads"], f"{name}.joined")
        return self.node("MatMul", [joined, self.weight(f"{name}.out.weight", width, width)], f"{name}.out")

    def layer(self, value: str, name: str, size: Size) -> str:
        """Attention and perceptron, each added to what it reads."""
        attended = self.attention(self.norm(value, f"{name}.norm1", size.width), f"{name}.attention", size)
        value = self.node("Add", [value, attended], f"{name}.sum1")
        up = self.weight(f"{name}.up.weight", size.width, size.hidden)
        raised = self.node("MatMul", [self.norm(value, f"{name}.norm2", size.width), up], f"{name}.up")
        bent = self.node("Gelu", [raised], f"{name}.gelu")
        down = self.weight(f"{name}.down.weight", size.hidden, size.width)
        return self.node("Add", [value, self.node("MatMul", [bent, down], f"{name}.down")], f"{name}.sum2")


def write_model(path: Path, size: Size) -> int:
    """Write the model to ``path`` and its weights to ``path``.data; the result is their bytes."""
    data_path = path.with_name(path.name + ".data")
    with data_path.open("wb") as data:
        build = Builder(data, data_path.name)
        build.constant("to_heads", np.array([0, 0, size.heads, size.width // size.heads]))
        build.constant("from_heads", np.array([0, 0, size.width]))
        build.constant("one_by_root", np.float32(1 / math.sqrt(size.width / size.heads)))
        table = build.weight("embedding.weight", size.vocabulary, size.width)
        value = build.node("Gather", [table, "tokens"], "embedding")
        for index in range(size.layers):
            value = build.layer(value, f"layers.{index}", size)
        head = build.weight("head.weight", size.width, size.vocabulary)
        build.nodes.append(
            helper.make_node("MatMul", [build.norm(value, "norm", size.width), head], ["logits"], name="head")
        )
    axes = ["batch", "sequence"]
    graph = helper.make_graph(
        build.nodes,
        "transformer",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, axes)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*axes, size.vocabulary])],
        build.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path.stat().st_size + data_path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    for name, default in vars(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    given = vars(parser.parse_args())
    output = given.pop("output")
    print(f"{output}: {write_model(output, Size(**given)):,} bytes")


if __name__ == "__main__":
    main()

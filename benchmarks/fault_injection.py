"""Faults for quantized models: each changes one thing in a copy of a QDQ model.

What is changed is copied first where other nodes read it, too, so that a fault stays with its layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer of a QDQ model.

    Attributes:
        node: Name of the node.
        weight: DequantizeLinear of its weight.
        bias: DequantizeLinear of its bias; "" without one.
        axis: Axis of the output channels in the weight.
        output: QuantizeLinear of its result; "" where that stays in float.
    """

    node: str
    weight: str
    bias: str
    axis: int
    output: str


class Injector:
    """Puts one fault into a model, which is changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = {node.name: node for node in model.graph.node}
        self._constants = {item.name: item for item in model.graph.initializer}
        self._made = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._uses = Counter(name for node in model.graph.node for name in node.input)

    def layers(self) -> list[Layer]:
        """Layers with integer weights, in the model's order."""
        found = []
        for node in self.model.graph.node:
            if node.op_type not in LAYERS or len(node.input) < 2:
                continue
            weight = self._made.get(node.input[1])
            if weight is None or weight.op_type != "DequantizeLinear" or weight.input[0] not in self._constants:
                continue
            bias = self._bias(node)
            found.append(
                Layer(
                    node=node.name,
                    weight=weight.name,
                    bias="" if bias is None else bias.name,
                    axis=self._axis(node),
                    output=self._output(node),
                )
            )
        return found

    def _axis(self, node: onnx.NodeProto) -> int:
        transposed = any(item.name == "transB" and item.i for item in node.attribute)
        return 0 if node.op_type == "Conv" or transposed else 1

    def _bias(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        name = node.input[2] if len(node.input) > 2 else ""
        if node.op_type == "MatMul":
            readers = self._readers.get(node.output[0], [])
            if len(readers) == 1 and readers[0].op_type == "Add":
                name = next(item for item in readers[0].input if item != node.output[0])
        made = self._made.get(name)
        constant = made is not None and made.op_type == "DequantizeLinear" and made.input[0] in self._constants
        return made if constant else None

    def _output(self, node: onnx.NodeProto) -> str:
        for _ in range(3):
            readers = self._readers.get(node.output[0], [])
            quantizers = [item for item in readers if item.op_type == "QuantizeLinear"]
            if quantizers:
                return quantizers[0].name
            if len(readers) != 1 or readers[0].op_type not in ("Add", "Relu", "Clip"):
                return ""
            if readers[0].op_type == "Add" and not any(
                item in self._constants or self._is_constant(item) for item in readers[0].input
            ):
                return ""
            node = readers[0]
        return ""

    def _is_constant(self, name: str) -> bool:
        made = self._made.get(name)
        return made is not None and made.op_type == "DequantizeLinear" and made.input[0] in self._constants

    def read(self, node: str, slot: int) -> np.ndarray:
        """A constant that ``node`` reads."""
        return numpy_helper.to_array(self._constants[self.nodes[node].input[slot]]).copy()

    def write(self, nodes: Sequence[str], slot: int, array: np.ndarray) -> None:
        """Give ``nodes`` a new constant at ``slot``; others that read the old one keep it."""
        name = f"{self.nodes[nodes[0]].name}_fault_{slot}"
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        for node in nodes:
            self.nodes[node].input[slot] = name

    def codec(self, quantizer: str) -> list[str]:
        """A QuantizeLinear and every node that reads the same scale: its DequantizeLinear, its sharing group."""
        scale = self.nodes[quantizer].input[1]
        return [node.name for node in self._readers[scale]]


def weight_scale(model: Injector, layer: Layer, _: np.random.Generator) -> None:
    """The scale of the whole weight doubled."""
    model.write([layer.weight], 1, model.read(layer.weight, 1) * np.float32(2))


def channel_scale(model: Injector, layer: Layer, rng: np.random.Generator) -> None:
    """The scale of one output channel doubled."""
    scale = model.read(layer.weight, 1)
    scale[strong_channel(model, layer, rng)] *= 2
    model.write([layer.weight], 1, scale)


def weight_zero_point(model: Injector, layer: Layer, _: np.random.Generator) -> None:
    """The zero point of the weight shifted by 1."""
    model.write([layer.weight], 2, model.read(layer.weight, 2) + 1)


def swapped_channels(model: Injector, layer: Layer, rng: np.random.Generator) -> None:
    """Two output channels of the weight exchanged."""
    codes = np.moveaxis(model.read(layer.weight, 0), layer.axis, 0)
    first = strong_channel(model, layer, rng)
    others = [index for index in range(len(codes)) if index != first]
    distance = [float(np.sum((codes[first].astype(float) - codes[index]) ** 2)) for index in others]
    second = others[int(np.argsort(distance)[len(distance) // 2])]
    swapped = codes.copy()
    swapped[[first, second]] = codes[[second, first]]
    model.write([layer.weight], 0, np.ascontiguousarray(np.moveaxis(swapped, 0, layer.axis)))


def dropped_bias(model: Injector, layer: Layer, _: np.random.Generator) -> None:
    """The bias set to zero."""
    model.write([layer.bias], 0, np.zeros_like(model.read(layer.bias, 0)))


def activation_scale(model: Injector, layer: Layer, _: np.random.Generator) -> None:
    """The scale of the result doubled: half of the steps are never used."""
    nodes = model.codec(layer.output)
    model.write(nodes, 1, model.read(layer.output, 1) * np.float32(2))


def reading_scale(model: Injector, layer: Layer, _: np.random.Generator) -> None:
    """The scale of the result doubled where it is read only, so that its values double."""
    readers = [node for node in model.codec(layer.output) if model.nodes[node].op_type == "DequantizeLinear"]
    model.write(readers, 1, model.read(layer.output, 1) * np.float32(2))


def reading_zero_point(model: Injector, layer: Layer, _: np.random.Generator) -> None:
    """The zero point of the result shifted by 1 where it is read only, so that its values move by a step."""
    readers = [node for node in model.codec(layer.output) if model.nodes[node].op_type == "DequantizeLinear"]
    model.write(readers, 2, _shifted(model.read(layer.output, 2)))


def zero_point(model: Injector, layer: Layer, _: np.random.Generator) -> None:
    """The zero point of the result shifted by 1 on both sides: its range moves by a step."""
    model.write(model.codec(layer.output), 2, _shifted(model.read(layer.output, 2)))


def halved_range(model: Injector, layer: Layer, _: np.random.Generator) -> None:
    """The range of the result cut to half: what is beyond is clipped."""
    model.write(model.codec(layer.output), 1, model.read(layer.output, 1) / np.float32(2))


def _shifted(value: np.ndarray) -> np.ndarray:
    top = np.iinfo(value.dtype).max
    return np.asarray(np.where(value == top, value - 1, value + 1), dtype=value.dtype)


def strong_channel(model: Injector, layer: Layer, rng: np.random.Generator) -> int:
    """One of the output channels whose weights are not small."""
    codes = np.moveaxis(model.read(layer.weight, 0), layer.axis, 0).astype(float)
    scale = model.read(layer.weight, 1).reshape(-1)
    sizes = np.sqrt(np.mean(codes.reshape(len(codes), -1) ** 2, axis=1)) * scale
    strong = np.flatnonzero(sizes >= np.median(sizes))
    return int(rng.choice(strong))


Fault = Callable[[Injector, Layer, np.random.Generator], None]

FAULTS: Mapping[str, Fault] = {
    "weight scale doubled": weight_scale,
    "scale of one channel doubled": channel_scale,
    "weight zero point + 1": weight_zero_point,
    "weight channels swapped": swapped_channels,
    "bias dropped": dropped_bias,
    "activation scale doubled": activation_scale,
    "activation scale doubled where read": reading_scale,
    "activation zero point + 1": zero_point,
    "activation zero point + 1 where read": reading_zero_point,
    "activation range halved": halved_range,
}
"""Name in tables → what does it."""

NEEDS_BIAS = frozenset({"bias dropped"})
NEEDS_OUTPUT = frozenset(name for name in FAULTS if name.startswith("activation"))


def possible(fault: str, layer: Layer) -> bool:
    """Whether ``layer`` has what the fault changes."""
    return not (fault in NEEDS_BIAS and not layer.bias) and not (fault in NEEDS_OUTPUT and not layer.output)

"""Rules of reverse accumulation for products, convolutions and pools.

The gradient of a convolution is the transposed convolution with the same weight (Dumoulin and Visin 2016, "A guide
to convolution arithmetic for deep learning", section 4); at stride 1 it is a convolution with the mirrored weight,
which runs faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from quantcli.graph.adjoint_rules import Back, Grads, NoRule, Rule, constant, is_variable, only, summed_to
from quantcli.graph.tape import Tape


def _swapped(tape: Tape, value: ir.Value | None) -> ir.Value:
    rank = len(tape.shape(value))
    if rank < 2:
        raise NoRule
    if value is not None and value.const_value is not None:
        return tape.constant(np.ascontiguousarray(np.swapaxes(value.const_value.numpy(), -1, -2)))
    return tape.op("Transpose", [value], perm=[*range(rank - 2), rank - 1, rank - 2])


def _matmul(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    g = only(grads)
    a, b, out = (tape.shape(value) for value in (*node.inputs, node.outputs[0]))
    back = {}
    if is_variable(node.inputs[0]):
        product = tape.op("MatMul", [g, _swapped(tape, node.inputs[1])])
        back[0] = summed_to(tape, product, a, (*out[:-1], a[-1]))
    if is_variable(node.inputs[1]):
        product = tape.op("MatMul", [_swapped(tape, node.inputs[0]), g])
        back[1] = summed_to(tape, product, b, (*out[:-2], *b[-2:]))
    return back


def _gemm(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    g = only(grads)
    flags = {name: int(item.as_int()) for name, item in node.attributes.items() if name.startswith("trans")}
    alpha = float(node.attributes["alpha"].as_float()) if "alpha" in node.attributes else 1.0
    if flags.get("transA") or is_variable(node.inputs[1]) or not is_variable(node.inputs[0]):
        raise NoRule
    weight = node.inputs[1] if flags.get("transB") else _swapped(tape, node.inputs[1])
    product = tape.op("MatMul", [g, weight])
    return {0: product if alpha == 1 else tape.op("Mul", [product, tape.constant(alpha)])}


# Windows ------------------------------------------------------------------------------------------------


class Window:
    """Form of a convolution or pool: strides, dilations and pads per spatial axis.

    Raises:
        NoRule: The padding is stated in another way than in numbers.
    """

    def __init__(self, tape: Tape, node: ir.Node, kernel: tuple[int, ...]) -> None:
        rank = len(kernel)
        self.kernel = kernel
        self.strides = self._ints(node, "strides", [1] * rank)
        self.dilations = self._ints(node, "dilations", [1] * rank)
        self.sizes = tape.shape(node.inputs[0])[2:]
        self.results = tape.shape(node.outputs[0])[2:]
        padding = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
        if padding in ("NOTSET", "VALID"):
            self.pads = self._ints(node, "pads", [0] * (2 * rank))
        else:
            needed = [
                max(0, (out - 1) * s + d * (k - 1) + 1 - size)
                for out, s, d, k, size in zip(
                    self.results, self.strides, self.dilations, kernel, self.sizes, strict=True
                )
            ]
            small, large = [n // 2 for n in needed], [n - n // 2 for n in needed]
            self.pads = [*small, *large] if padding == "SAME_UPPER" else [*large, *small]

    @staticmethod
    def _ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
        return [int(v) for v in node.attributes[name].as_ints()] if name in node.attributes else default

    @property
    def rest(self) -> list[int]:
        """What the windows leave over at the end of every axis, in elements."""
        rank = len(self.kernel)
        return [
            self.sizes[i]
            - ((self.results[i] - 1) * self.strides[i] + self.dilations[i] * (self.kernel[i] - 1) + 1)
            + self.pads[i]
            + self.pads[rank + i]
            for i in range(rank)
        ]

    def transposed(self, tape: Tape, grad: ir.Value, weight: ir.Value, group: int) -> ir.Value:
        """The transposed convolution of a gradient."""
        rank = len(self.kernel)
        # A window that does not fit any more leaves rows that nothing reads: their gradient is 0.
        pads = [max(0, p) for p in self.pads]
        if pads != self.pads:
            raise NoRule
        back = tape.op(
            "ConvTranspose",
            [grad, weight],
            strides=self.strides,
            dilations=self.dilations,
            pads=pads,
            group=group,
            output_padding=[min(left, s - 1) for left, s in zip(self.rest, self.strides, strict=True)],
        )
        more = [max(0, left - (s - 1)) for left, s in zip(self.rest, self.strides, strict=True)]
        if any(more):
            back = tape.op("Pad", [back, tape.ints(*([0] * (rank + 2 + 2)), *more)])
        return back


def _conv(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    g, weight = only(grads), constant(node, 1)
    if weight is None or not is_variable(node.inputs[0]):
        raise NoRule
    window = Window(tape, node, weight.shape[2:])
    group = int(node.attributes["group"].as_int()) if "group" in node.attributes else 1
    rank = len(window.kernel)
    reach = [d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True)]
    pads = [
        *(r - p for r, p in zip(reach, window.pads[:rank], strict=True)),
        *(r - p for r, p in zip(reach, window.pads[rank:], strict=True)),
    ]
    plain = group == 1 or weight.shape[:2] == (group, 1)
    if plain and set(window.strides) == {1} and min(pads, default=0) >= 0:
        mirrored = np.flip(weight, axis=tuple(range(2, weight.ndim)))
        if group == 1:
            mirrored = np.swapaxes(mirrored, 0, 1)
        kernel = tape.constant(np.ascontiguousarray(mirrored))
        return {0: tape.op("Conv", [g, kernel], pads=pads, dilations=window.dilations, group=group)}
    return {0: window.transposed(tape, g, _read(node, 1), group)}


def _read(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _conv_transpose(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    g, weight = only(grads), constant(node, 1)
    if weight is None or "auto_pad" in node.attributes or "output_shape" in node.attributes:
        raise NoRule
    kept = [item for name, item in node.attributes.items() if name in ("strides", "dilations", "pads", "group")]
    back = tape.like("Conv", [g, node.inputs[1]], kept)
    # Output padding adds rows behind the last window; a convolution may make one window of them too many.
    sizes = tape.shape(node.inputs[0])[2:]
    axes = tape.ints(*range(2, 2 + len(sizes)))
    return {0: tape.op("Slice", [back, tape.ints(*([0] * len(sizes))), tape.ints(*sizes), axes])}


def _max_pool(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    """The gradient goes to the places that MaxPool names in its second output."""
    g = only(grads[:1])
    if len(node.outputs) > 1 or int(node.attributes.get("storage_order", ir.AttrInt64("", 0)).as_int()):
        raise NoRule
    shape = tape.shape(node.inputs[0])
    places = tape.second_output("MaxPool", node)
    zeros = tape.op("Expand", [tape.constant(0.0), tape.ints(math.prod(shape))])
    flat = [tape.op("Reshape", [value, tape.ints(-1)]) for value in (places, g)]
    added = tape.op("ScatterElements", [zeros, *flat], axis=0, reduction="add")
    return {0: tape.op("Reshape", [added, tape.ints(*shape)])}


def _average_pool(tape: Tape, node: ir.Node, grads: Grads) -> Back:
    window = Window(tape, node, tuple(int(k) for k in node.attributes["kernel_shape"].as_ints()))
    counted = "count_include_pad" in node.attributes and int(node.attributes["count_include_pad"].as_int())
    if (any(window.pads) and not counted) or min(window.rest) < 0:
        raise NoRule
    channels = tape.shape(node.inputs[0])[1]
    share = np.full((channels, 1, *window.kernel), 1 / math.prod(window.kernel), np.float32)
    return {0: window.transposed(tape, only(grads), tape.constant(share), channels)}


LAYERS: Mapping[str, Rule] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
}

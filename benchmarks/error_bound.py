"""How far the outputs of a quantized model can be from those of its float model: a bound that is computed.

The model is walked in QDQ form without optimizations, Scan written out. Every float value v^ of it has
a radius e >= |v^ - v| around the value v that the same place has in the float model:

* graph inputs and float constants: 0.
* DequantizeLinear of a constant: s / 2, rounding to the nearest, with the scale of the channel or block. Cast of
  integers that stand for weights, or of a move of them: half a step.
* QuantizeLinear to DequantizeLinear of an activation: e + 2 s. Half a step of rounding, half where the zero point
  moved the grid, and one where an integer kernel rounds another way. The step is held against the range of the
  float values of its sharing group: s <= (max - min) / (levels - 1).
* DynamicQuantizeLinear: e + 2 s, with the step that the run had. MatMulInteger: as MatMul, in steps; half a step
  for weights. MatMulNBits: as MatMul, half a step for weights, and int8 activations by blocks where the runtime
  may choose them. GatherBlockQuantized: half of the largest step.
* bilinear (Conv, ConvTranspose, MatMul, Gemm, Mul): f(|a|, e_b) + f(e_a, |b|) + f(e_a, e_b) + e_bias.
* BatchNormalization with constants: its factor times e. LRN: see local_response.py.
* sums (Add, Sum, Mean, ReduceSum, ReduceMean, AveragePool, GlobalAveragePool, CumSum): the operator on radii; Sub:
  the sum of radii; Div: (e_a + |a^/b^| e_b) / (|b^| - e_b) where b^ is larger than its radius.
* nondecreasing in all operands (Relu, Clip, MaxPool, Max, Sigmoid, Tanh and the like):
  max(f(v^ + e) - f(v^), f(v^) - f(v^ - e)).
* moves (Reshape, Transpose, Slice, Gather, Concat, Where, Pad and the like): the operator on radii.
* Lipschitz with constant L (Abs, Neg, Sin, Cos, Gelu, Mish, HardSwish, Swish, QuickGelu): L e.
* Softmax: half of the largest radius along the axis (row sums of the Jacobian are 2 p (1 - p) <= 1/2); LogSoftmax:
  twice.
* Shape and Size: 0; comparisons, where the radii do not reach from one operand to the other.
* anything else that reads a radius other than 0: no bound.

This is interval arithmetic (Moore, Interval Analysis, 1966) around a run of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from bound_rules import BILINEAR, COMPARISONS, LIPSCHITZ, MOVES, NONDECREASING, SHAPES, SUMS
from local_response import local_response_radius
from onnx import numpy_helper
from run_nodes import Arrays, run_all, run_node
from unroll import unrolled

STORED = "_quantized"
"""What the names of integers that stand for weights end with."""

INTEGER_PRODUCTS = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}


@dataclass(kw_only=True)
class Bound:
    """What the walk found.

    Attributes:
        radii: Radius of float values by name.
        unbounded: Operators behind which there is no bound.
        wrong: Steps that are larger than the ranges ask for, in words.
    """

    radii: dict[str, np.ndarray] = field(default_factory=dict)
    unbounded: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


def bound_of(quantized: onnx.ModelProto, feeds: Arrays, ranges: Mapping[str, float]) -> Bound:
    """Walk a model in QDQ form.

    Args:
        quantized: The model.
        feeds: Its inputs.
        ranges: Largest step by name of the QuantizeLinear node that has it; without one it is not checked.
    """
    model = unrolled(quantized, {**feeds, **run_all(quantized, feeds)})
    return _Walk(model, {**feeds, **run_all(model, feeds)}, ranges, {}).walk()


def bound_of_rounded(model: onnx.ModelProto, values: Arrays, rounded: Arrays) -> Bound:
    """Walk a float model whose values were rounded.

    Args:
        model: The model.
        values: Inputs and everything that its nodes make, as it is when they round.
        rounded: Radius that rounding adds, by name of a constant or of what a node makes.
    """
    return _Walk(model, values, {}, rounded).walk()


class _Walk:
    def __init__(
        self, model: onnx.ModelProto, values: Arrays, ranges: Mapping[str, float], rounded: Arrays
    ) -> None:
        self.model = model
        self.values = {**_constants(model), **values}
        self.ranges = ranges
        self.rounded = rounded
        self.bound = Bound(radii={name: rounded[name] for name in rounded if name in _constants(model)})
        self.codes = {name for name in _constants(model) if name.endswith(STORED)}  # and moves of them
        self.steps: dict[str, np.ndarray] = {}  # integer activations → radius of what they stand for, in steps

    def walk(self) -> Bound:
        for node in self.model.graph.node:
            if node.op_type == "QuantizeLinear":
                self._quantize(node)
            elif node.op_type == "DynamicQuantizeLinear":
                self.steps[node.output[0]] = self._radius(node.input[0]) / self.values[node.output[1]] + 2
            elif node.op_type in INTEGER_PRODUCTS:
                self._integer_product(node)
            elif node.op_type == "MatMulNBits":
                self._narrow_product(node)
            elif node.op_type == "GatherBlockQuantized":
                half = np.max(self.values[node.input[2]]) / 2 * 1.001
                self._set(node, np.full(self.values[node.output[0]].shape, half))
            elif node.op_type == "DequantizeLinear":
                self._dequantize(node)
            elif node.input and node.input[0] in self.codes and node.op_type in {"Cast", *MOVES}:
                self._stored(node)
            else:
                self._other(node)
            for name in node.output:
                if name in self.rounded:
                    self.bound.radii[name] = self._radius(name) + self.rounded[name]
        return self.bound

    def _radius(self, name: str) -> np.ndarray:
        found = self.bound.radii.get(name)
        return np.zeros_like(self.values[name], dtype=np.float32) if found is None else found

    def _quantize(self, node: onnx.NodeProto) -> None:
        step = self.values[node.input[1]]
        limit = self.ranges.get(node.name)
        # a tensor of zeros has no range, and any step represents it
        if limit and np.max(step) > limit * 1.001 + 1e-12:
            self.bound.wrong.append(f"{node.name}: step {np.max(step):.3g}, its range asks for {limit:.3g}")
        self.steps[node.output[0]] = self._radius(node.input[0]) / np.float32(np.max(step)) + 2

    def _dequantize(self, node: onnx.NodeProto) -> None:
        result = self.values[node.output[0]]
        source = node.input[0]
        scale = self.values[node.input[1]]
        if source in self.steps:
            radius = self.steps[source] * np.float32(np.max(scale))
            self.bound.radii[node.output[0]] = np.broadcast_to(radius, result.shape).astype(np.float32)
            return
        self.bound.radii[node.output[0]] = (_along(scale, node, result.shape) / 2 * 1.001).astype(np.float32)

    def _stored(self, node: onnx.NodeProto) -> None:
        """Integers that stand for weights: moved, or made floats, which are half a step off."""
        value = self.values[node.output[0]]
        if node.op_type == "Cast" and value.dtype.kind == "f":
            self._set(node, np.full(value.shape, 0.5 * 1.001))
        else:
            self.codes.update(node.output)

    def _integer_product(self, node: onnx.NodeProto) -> None:
        """MatMulInteger and ConvInteger: in steps of both operands."""
        sizes, radii = [], []
        for index in (0, 1):
            name = node.input[index]
            values = self.values[name].astype(np.float32)
            zero = (
                self.values[node.input[2 + index]] if len(node.input) > 2 + index and node.input[2 + index] else 0
            )
            values = values - np.asarray(zero, np.float32)
            sizes.append(np.abs(values))
            radii.append(np.broadcast_to(self.steps.get(name, np.float32(0.5)), values.shape).astype(np.float32))
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.op_type = INTEGER_PRODUCTS[node.op_type]
        del copy.input[2:]
        pairs = ((sizes[0], radii[1]), (radii[0], sizes[1]), (radii[0], radii[1]))
        total = [run_node(self.model, copy, dict(zip(copy.input, pair, strict=True)))[0] for pair in pairs]
        self.bound.radii[node.output[0]] = np.sum(total, axis=0)

    def _narrow_product(self, node: onnx.NodeProto) -> None:
        """MatMulNBits: half a step for weights; blocks of activations are int8 inside at accuracy level 4."""
        given = {attribute.name: attribute.i for attribute in node.attribute}
        k, n, block = given["K"], given["N"], given["block_size"]
        x, e = np.abs(self.values[node.input[0]]), self._radius(node.input[0])
        blocks = -(-k // block)
        scales = np.abs(self.values[node.input[2]].astype(np.float32)).reshape(n, blocks)
        steps = np.repeat(scales, block, axis=1)[:, :k]
        if given.get("accuracy_level", 0) in (0, 4):
            padded = np.pad(x + e, [(0, 0)] * (x.ndim - 1) + [(0, blocks * block - k)])
            largest = padded.reshape(*x.shape[:-1], blocks, block).max(axis=-1)
            e = e + np.repeat(largest / 127, block, axis=-1)[..., :k]
        zeros = len(node.input) > 3 and bool(node.input[3])
        sizes = steps * (2 ** given.get("bits", 4) - (0 if zeros else 2 ** (given.get("bits", 4) - 1)))
        self._set(node, (x + e) @ (steps / 2 * 1.001).T + e @ sizes.T)

    def _other(self, node: onnx.NodeProto) -> None:
        moved = [name for name in node.input if name in self.steps]
        if moved:  # a move of the integers themselves
            self._move(node, {name: self.steps[name] for name in moved}, self.steps)
            return
        touched = [name for name in node.input if name and np.any(self._radius_or_none(name))]
        bodies = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
        if bodies and (self.bound.radii or any(_rounds(body) for body in bodies)):
            touched = touched or ["a body"]
        if not touched or node.op_type in SHAPES:
            return
        rule = self._rule(node)
        if rule is None or any(not np.isfinite(self._radius(name)).all() for name in touched if name != "a body"):
            told = set(self.bound.unbounded)
            self._without_bound(node)
            if rule is not None:  # what is before it is to be named
                self.bound.unbounded = told
            return
        rule(node)

    def _radius_or_none(self, name: str) -> np.ndarray:
        return self.bound.radii.get(name, np.zeros(1, np.float32))

    def _rule(self, node: onnx.NodeProto) -> Callable[[onnx.NodeProto], None] | None:
        op = node.op_type
        if node.domain not in ("", "ai.onnx") and op not in LIPSCHITZ:
            return None
        if op in BILINEAR:
            return self._bilinear
        if op in NONDECREASING:
            return self._nondecreasing
        if op in SUMS:
            return self._sum
        if op in MOVES:
            return lambda node: self._move(node, {n: self._radius(n) for n in node.input if n}, self.bound.radii)
        rest = {
            "Sub": self._difference,
            "Softmax": self._softmax,
            "LogSoftmax": self._softmax,
            "Div": self._quotient,
            "BatchNormalization": self._normalized,
            "LRN": self._local_response,
        }
        if op in COMPARISONS:
            return self._comparison
        return self._lipschitz if op in LIPSCHITZ else rest.get(op)

    # Rules ----------------------------------------------------------------------------------------------

    def _float_inputs(self, node: onnx.NodeProto) -> list[str]:
        """Inputs that have radii: floats, and sums of products of integers."""
        return [n for n in node.input if n and (self.values[n].dtype.kind == "f" or n in self.bound.radii)]

    def _set(self, node: onnx.NodeProto, radius: np.ndarray) -> None:
        self.bound.radii[node.output[0]] = np.asarray(radius, np.float32)

    def _run(self, node: onnx.NodeProto, changed: Arrays) -> list[np.ndarray]:
        return run_node(self.model, node, {**{n: self.values[n] for n in node.input if n}, **changed})

    def _bilinear(self, node: onnx.NodeProto) -> None:
        a, b, *rest = [name for name in node.input if name]
        zero = {name: np.zeros_like(self.values[name]) for name in rest}
        size_a, size_b = np.abs(self.values[a]), np.abs(self.values[b])
        e_a, e_b = self._radius(a), self._radius(b)
        if a == b:
            total = self._product(node, size_a, e_a, a, zero) * 2 + self._product(node, e_a, e_a, a, zero)
        else:
            total = sum(
                (
                    self._run(node, {a: left, b: right, **zero})[0]
                    for left, right in ((size_a, e_b), (e_a, size_b), (e_a, e_b))
                ),
                start=np.float32(0),
            )
        if rest:
            # the bias alone: the operator on operands of zeros
            nothing = {a: np.zeros_like(size_a), b: np.zeros_like(size_b)}
            total = total + np.abs(self._run(node, {**nothing, rest[0]: self._radius(rest[0])})[0])
        self._set(node, np.abs(total))

    def _product(
        self, node: onnx.NodeProto, left: np.ndarray, right: np.ndarray, name: str, zero: Arrays
    ) -> np.ndarray:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[1] = f"{name}__right"
        return run_node(self.model, copy, {name: left, f"{name}__right": right, **zero})[0]

    def _sum(self, node: onnx.NodeProto) -> None:
        self._set(
            node, np.abs(self._run(node, {name: self._radius(name) for name in self._float_inputs(node)})[0])
        )

    def _difference(self, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.op_type = "Add"
        self._set(node, run_node(self.model, copy, {name: self._radius(name) for name in node.input})[0])

    def _normalized(self, node: onnx.NodeProto) -> None:
        """BatchNormalization by exact values: an affine map of every channel."""
        if any(np.any(self._radius(name)) for name in node.input[1:]):
            self._without_bound(node)
            return
        epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
        factor = np.abs(self.values[node.input[1]]) / np.sqrt(self.values[node.input[4]] + epsilon)
        radius = self._radius(node.input[0])
        self._set(node, radius * factor.reshape(-1, *[1] * (radius.ndim - 2)))

    def _local_response(self, node: onnx.NodeProto) -> None:
        self._set(node, local_response_radius(node, self.values[node.input[0]], self._radius(node.input[0])))

    def _quotient(self, node: onnx.NodeProto) -> None:
        """|a/b - a^/b^| <= (e_a + |a^/b^| e_b) / (|b^| - e_b), where b cannot be 0."""
        above, below = node.input
        size, e_b = np.abs(self.values[below]), self._radius(below)
        if np.any(e_b) and np.any(size <= e_b):
            self._without_bound(node)
            return
        growth = np.abs(self.values[node.output[0]]) * e_b if np.any(e_b) else 0
        self._set(node, (self._radius(above) + growth) / (size - e_b))

    def _comparison(self, node: onnx.NodeProto) -> None:
        """Exact where the radii do not reach from one operand to the other."""
        (a, b), (e_a, e_b) = (self.values[n] for n in node.input), (self._radius(n) for n in node.input)
        with np.errstate(invalid="ignore"):  # of infinities
            apart = np.abs(a.astype(np.float64) - b) > e_a + e_b
        if not np.all(apart | (e_a + e_b == 0)):
            self._without_bound(node)

    def _without_bound(self, node: onnx.NodeProto) -> None:
        self.bound.unbounded.add(node.op_type)
        for name in node.output:
            if name in self.values:
                self.bound.radii[name] = np.full(self.values[name].shape, np.inf, np.float32)

    def _nondecreasing(self, node: onnx.NodeProto) -> None:
        names = self._float_inputs(node)
        middle = self.values[node.output[0]]
        if middle.dtype.kind != "f":
            self._without_bound(node)
            return
        if node.op_type == "Cast":
            self._set(node, self._radius(node.input[0]))
            return
        low = self._run(node, {name: self.values[name] - self._radius(name) for name in names})[0]
        high = self._run(node, {name: self.values[name] + self._radius(name) for name in names})[0]
        with np.errstate(invalid="ignore"):  # where both are infinite
            above, below = np.abs(high - middle), np.abs(middle - low)
        self._set(node, np.maximum(np.where(high == middle, 0, above), np.where(low == middle, 0, below)))

    def _lipschitz(self, node: onnx.NodeProto) -> None:
        self._set(node, LIPSCHITZ[node.op_type] * self._radius(node.input[0]))

    def _softmax(self, node: onnx.NodeProto) -> None:
        radius = self._radius(node.input[0])
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
        factor = 0.5 if node.op_type == "Softmax" else 2.0
        self._set(node, np.broadcast_to(factor * radius.max(axis=axis, keepdims=True), radius.shape))

    def _move(self, node: onnx.NodeProto, radii: Arrays, into: dict[str, np.ndarray]) -> None:
        full = {
            name: np.broadcast_to(radius, self.values[name].shape).astype(np.float32)
            for name, radius in radii.items()
            if self.values[name].dtype.kind == "f" or name in self.steps
        }
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.op_type == "CastLike" and self.values[node.output[0]].dtype.kind != "f":
            self._without_bound(node)
            return
        if node.op_type == "Pad" and len(copy.input) > 2:
            copy.input[2] = ""
        for name, radius in zip(node.output, self._run(copy, full), strict=False):
            if name:
                into[name] = np.abs(radius)


# Constants ----------------------------------------------------------------------------------------------


def _constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _rounds(body: onnx.GraphProto) -> bool:
    """Whether something in a body is quantized."""
    nested = [attribute.g for node in body.node for attribute in node.attribute if attribute.HasField("g")]
    own = any("Quantize" in node.op_type or node.op_type in INTEGER_PRODUCTS for node in body.node)
    return own or any(_rounds(inner) for inner in nested)


def _along(scale: np.ndarray, node: onnx.NodeProto, shape: tuple[int, ...]) -> np.ndarray:
    """The scale of every element of a dequantized constant."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    if scale.size == 1:
        return np.full(shape, scale.reshape(()))
    if block:
        return np.take(np.repeat(scale, block, axis=axis), np.arange(shape[axis]), axis=axis)
    return np.broadcast_to(scale.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))]), shape)

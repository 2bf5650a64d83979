"""A layer as matrix products: ``y[g] = W[g] · x[g] + b`` for G independent groups, W[g] of shape (O, K).

x is the vector of the K inputs that meet one output position: a patch of a convolution, a row of a matrix. How
the weight of each operator (ONNX, ai.onnx opset 21) maps to W:

* Conv, weight (M, C/G, k…): O = M/G, K = C/G · Πk, in this order.
* ConvTranspose, weight (C, M/G, k…): O = M/G, K = C/G · Πk. The kernel is not flipped: tap t of output p meets
  the input at (p + pad − t·dilation)/stride, where that is a whole number.
* Gemm, weight (K, N), or (N, K) with transB: G = 1, O = N.
* MatMul, weight (b…, K, N): G = Πb, O = N. The groups share one bias, for it is added to the product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quantcli.graph.view import AttributeValue, GraphView, NodeInfo

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


@dataclass(frozen=True, slots=True)
class LayerForm:
    """What must be known of a layer to write it as matrix products.

    Attributes:
        op_type: Operator of ai.onnx.
        attributes: Of the node, plain values.
        weight_shape: Shape of the constant weight.
    """

    op_type: str
    attributes: Mapping[str, AttributeValue]
    weight_shape: tuple[int, ...]

    @classmethod
    def of(cls, view: GraphView, node: NodeInfo) -> LayerForm:
        """The form of ``node``, whose input 1 is a constant."""
        shape = view.tensors[node.inputs[1]].shape or ()
        return cls(node.op_type, node.attributes, tuple(dim for dim in shape if isinstance(dim, int)))

    @property
    def supported(self) -> bool:
        """Whether this layer has the form of matrix products; nothing else here may be asked where not."""
        rank, size = len(self.weight_shape), math.prod(self.weight_shape)
        match self.op_type:
            case "Conv" | "ConvTranspose":
                return rank >= 3 and size > 0 and self.weight_shape[0] % self._group == 0
            case "Gemm":
                plain = self.attributes.get("alpha", 1.0) == 1 and not self.attributes.get("transA", 0)
                return rank == 2 and size > 0 and plain
            case "MatMul":
                return rank >= 2 and size > 0
            case _:
                return False

    @property
    def _group(self) -> int:
        return self.integer("group", 1)

    @property
    def groups(self) -> int:
        """G."""
        if self.op_type in CONVOLUTIONS:
            return self._group
        return math.prod(self.weight_shape[:-2])

    @property
    def outputs(self) -> int:
        """O: outputs of a group."""
        match self.op_type:
            case "Conv":
                return self.weight_shape[0] // self._group
            case "ConvTranspose":
                return self.weight_shape[1]
            case _:
                return self.weight_shape[-2 if self._transposed else -1]

    @property
    def inputs(self) -> int:
        """K: inputs of a group, kernel taps counted."""
        return math.prod(self.weight_shape) // (self.groups * self.outputs)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Kernel size of a convolution, one per spatial axis."""
        return self.weight_shape[2:]

    @property
    def channels(self) -> int:
        """Number of values of the bias: G·O of a convolution, O of a product whose groups share the bias."""
        return self.groups * self.outputs if self.op_type in CONVOLUTIONS else self.outputs

    @property
    def _transposed(self) -> bool:
        return self.op_type == "Gemm" and bool(self.attributes.get("transB", 0))

    def integer(self, key: str, default: int) -> int:
        """An integer attribute."""
        value = self.attributes.get(key, default)
        assert isinstance(value, int), f"attribute {key} is {value!r}"
        return value

    def integers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An attribute that lists integers."""
        value = self.attributes.get(key, default)
        assert isinstance(value, tuple), f"attribute {key} is {value!r}"
        return tuple(int(item) for item in value)

    def to_matrices(self, weight: np.ndarray) -> np.ndarray:
        """The weight (``weight_shape``) as (G, O, K) of the same dtype."""
        shape = (self.groups, self.outputs, self.inputs)
        match self.op_type:
            case "Conv":
                return weight.reshape(shape)
            case "ConvTranspose":
                split = weight.reshape(self.groups, -1, self.outputs, math.prod(self.kernel))
                return split.transpose(0, 2, 1, 3).reshape(shape)
            case _ if self._transposed:
                return weight.reshape(shape)
            case _:
                return weight.reshape(self.groups, self.inputs, self.outputs).transpose(0, 2, 1)

    def from_matrices(self, matrices: np.ndarray) -> np.ndarray:
        """The weight whose matrices (G, O, K) these are: the inverse of ``to_matrices``."""
        match self.op_type:
            case "Conv":
                return matrices.reshape(self.weight_shape)
            case "ConvTranspose":
                split = matrices.reshape(self.groups, self.outputs, -1, math.prod(self.kernel))
                return split.transpose(0, 2, 1, 3).reshape(self.weight_shape)
            case _ if self._transposed:
                return matrices.reshape(self.weight_shape)
            case _:
                return matrices.transpose(0, 2, 1).reshape(self.weight_shape)

    def per_output(self, values: np.ndarray) -> np.ndarray:
        """One value per output (G, O) from one for all, one per bias channel, or one per output of a group.

        Scales of weights and biases are all of these forms; a scale per channel of the weight lies on the axis
        of the output channels (``quantize.kernels.weight_axis``).
        """
        flat = np.asarray(values).reshape(-1)
        shape = (self.groups, self.outputs)
        if flat.size == self.groups * self.outputs:
            return flat.reshape(shape)
        return np.broadcast_to(flat, shape)

    def to_channels(self, values: np.ndarray) -> np.ndarray:
        """One value per bias channel (channels,) from (G, O): the mean over groups that share the bias."""
        if self.op_type in CONVOLUTIONS:
            return values.reshape(-1)
        mean: np.ndarray = values.mean(axis=0)
        return mean

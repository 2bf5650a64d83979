"""The form that a weight gets, by who reads it (weight-only quantization).

Measured on onnxruntime 1.32 (x86 with VNNI, one thread), all of it by running the patterns:

* DequantizeLinear → MatMul, or Gemm with transA 0, alpha 1 and beta 1, of a constant of rank 2 is fused into
  MatMulNBits: 2, 4 and 8 bits; one scale per tensor, per column, or per block of 16, 32, 64, … along K. Blocks of
  24 or 8, 16 bits and weights of rank 3 are not fused: they are dequantized at every run.
* 2 bits are fused *wrongly* where N is no multiple of 4 (relative error about 1): such weights are stored only.
* Integers → Cast → Mul, all of constants, are folded when the model is loaded, in front of any operator, for 2 to
  16 bits: a small file, and the speed and memory of the float model. DequantizeLinear is not folded.
"""

from __future__ import annotations

import math
from dataclasses import replace

from quantcli.core.spec import QuantSpec
from quantcli.graph.view import NodeInfo
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.tables import TABLE_SPEC
from quantcli.quantize.weight_grid import scale_shape
from quantcli.quantize.weight_ports import CONVOLUTIONS, Port

KERNEL_BITS = frozenset({2, 4, 8})
"""Widths that MatMulNBits computes with."""

SMALLEST_BLOCK = 16
"""Smallest block of MatMulNBits, whose blocks are powers of two; smaller ones have too many scales."""

_COLUMNS_OF_2_BITS = 4
"""N must be a multiple of it for 2 bits: see above."""


def fits_kernel(node: NodeInfo, port: Port, shape: tuple[int, ...], recipe: Recipe) -> bool:
    """Whether a reading of a weight becomes a kernel on integers, on a target that has MatMulNBits."""
    bits = recipe.weight_dtype.bits
    if node.op not in {"MatMul", "Gemm"} or port.index != 1 or len(shape) != 2 or bits not in KERNEL_BITS:
        return False
    if node.op == "Gemm":
        plain = node.attributes.get("alpha", 1.0) == 1 and not node.attributes.get("transA", 0)
        if not plain or (node.input(2) and node.attributes.get("beta", 1.0) != 1):
            return False
    if bits == 2 and shape[1 - port.contraction] % _COLUMNS_OF_2_BITS:
        return False
    return not recipe.block or is_kernel_block(recipe.block)


def is_kernel_block(block: int) -> bool:
    """Whether MatMulNBits has blocks of this size."""
    return block >= SMALLEST_BLOCK and block & (block - 1) == 0


def kernel_spec(_node: NodeInfo, port: Port, _shape: tuple[int, ...], recipe: Recipe) -> QuantSpec:
    """Form of a weight that a kernel computes with."""
    spec = base_spec(recipe)
    if recipe.block:
        return replace(spec, axis=port.contraction, block=recipe.block)
    return replace(spec, axis=port.channel) if recipe.per_channel else spec


def stored_spec(node: NodeInfo, port: Port, shape: tuple[int, ...], recipe: Recipe) -> QuantSpec:
    """Form of a weight that is made floats again: blocks of equal size, or one scale for each result.

    Blocks of a size that does not divide the axis get the next smaller one that does; where that is below
    ``SMALLEST_BLOCK``, and for few input channels of a convolution, there is a scale per result.
    """
    spec = base_spec(recipe)
    if not recipe.per_channel:
        return spec
    length = shape[port.contraction]
    if recipe.block:
        block = even_block(length, recipe.block)
        if block:
            return replace(spec, axis=port.contraction, block=block)
    if port.channel is None:
        return spec
    stacked = len(shape) > 2 and node.op not in CONVOLUTIONS
    if stacked:  # a scale per result of each matrix, not one for the same column of all of them
        return replace(spec, axis=port.contraction, block=length)
    return replace(spec, axis=port.channel)


def table_spec(recipe: Recipe) -> QuantSpec:
    """Form of a table whose rows are looked up: a scale per row, and 8 bits at least.

    Measured on MiniLM in 4 bits, blocks of 32: cosine of the embeddings 0.9885 with tables in float, 0.9871 with
    tables in 4 bits as well. A table that is the weight of a product, too, has the bits of that.
    """
    if recipe.weight_dtype.bits > TABLE_SPEC.dtype.bits:
        return replace(base_spec(recipe), axis=0)
    return replace(TABLE_SPEC, pow2=recipe.pow2_scales)


def base_spec(recipe: Recipe) -> QuantSpec:
    """What all weights have in common; symmetric ones of 8 bits and more go without the smallest integer."""
    return QuantSpec(
        dtype=recipe.weight_dtype,
        symmetric=recipe.weight_symmetric,
        narrow=recipe.weight_symmetric and recipe.weight_dtype.bits >= 8,
        pow2=recipe.pow2_scales,
    )


def even_block(length: int, block: int) -> int:
    """The largest size of at most ``block``, at least ``SMALLEST_BLOCK``, that divides ``length``; 0 for none."""
    sizes = range(min(block, length), SMALLEST_BLOCK - 1, -1)
    return next((size for size in sizes if length % size == 0), 0)


def saved_bytes(shape: tuple[int, ...], spec: QuantSpec) -> int:
    """Bytes that integers and scales save against float32."""
    values, scales = math.prod(shape), math.prod(scale_shape(shape, spec))
    zero_bits = 0 if spec.symmetric else spec.dtype.bits
    return 4 * values - (values * spec.dtype.bits + scales * (32 + zero_bits)) // 8

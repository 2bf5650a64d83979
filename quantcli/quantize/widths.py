"""What widths ask of a model file, and what becomes of them in the runtime.

Types in the file, by what onnxruntime 1.32 does with them (run, and compared with its unoptimized kernels):

* Weights of 4 and 2 bits are stored packed, with a Cast to 8 bits behind, which is folded at load: kernels on
  integers at full speed. DequantizeLinear of int4 gives float kernels, that of int2 a model that does not load.
* Activations of 4 and 2 bits are quantized to 8 bits and clipped (QuantizeLinear, Clip, DequantizeLinear: QCDQ;
  Pappalardo et al. 2022, "QONNX: Representing Arbitrary-Precision Quantized Neural Networks", section 4). Kernels
  on integers, 1 % slower than without Clip (3×3 convolutions of 64 channels). With QuantizeLinear to uint4 or
  uint2 the runtime loses a Relu whose zero point is not 0, and does not load MaxPool, Clip and, for uint2, others.
* 16 bits: no kernels on integers. A MatMul by a constant of 8 bits or less becomes MatMulNBits, which rounds its
  activations to 8 bits in blocks; a Cast of the weight to int16 keeps it in float, as the plan means it.
* float8: no kernels either. A Relu in front of QuantizeLinear is lost, a Clip keeps the model from loading; the
  identity LeakyRelu(alpha=1) between the two prevents both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from quantcli.core.dtypes import INT8, INT16, UINT8, QType
from quantcli.core.spec import QuantSpec
from quantcli.ops.targets import TARGETS, Target
from quantcli.quantize.plan import Action, Plan
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.signed import loadable_signs

PER_CHANNEL_OPSET = 13
"""First ai.onnx version with per-channel QuantizeLinear and DequantizeLinear."""

PER_TENSOR_OPSET = 10
"""First ai.onnx version with QuantizeLinear and DequantizeLinear."""

_CLIP_OPSET = 13
"""Clip takes integers of 8 bits from opset 12 on; 13 is the next that has scales per channel as well."""

_CAST_OPSET = 21
"""First ai.onnx version whose Cast takes 4 bits, and QuantizeLinear and DequantizeLinear 4 and 16."""

_OPSETS = {4: _CAST_OPSET, 16: _CAST_OPSET, 2: 25}
"""First ai.onnx version with integers of so many bits in DequantizeLinear and Cast."""

_FLOAT8_OPSET = 19

_MADE_NBITS = frozenset({"MatMul", "Gemm"})
"""Operators of which onnxruntime makes MatMulNBits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpsetNeed:
    """The lowest opset that can say something, and what that is ("weights of 4 bits"; "" for the usual 8 bits)."""

    opset: int
    cause: str = ""


def opset_need(recipe: Recipe) -> OpsetNeed:
    """What a recipe needs."""
    types = [recipe.weight_dtype], [recipe.activation_dtype]
    return _need(*types, per_channel=recipe.per_channel, contrib=recipe.contrib_qdq)


def opset_need_of(plan: Plan) -> OpsetNeed:
    """What a plan needs."""
    return _need(
        (layer.weight_spec.dtype for layer in plan.layers),
        (tensor.spec.dtype for tensor in plan.tensors.values()),
        per_channel=any(layer.weight_spec.per_channel for layer in plan.layers),
        contrib=plan.contrib_qdq,
    )


def _need(
    weights: Iterable[QType], activations: Iterable[QType], *, per_channel: bool, contrib: bool
) -> OpsetNeed:
    needs = [OpsetNeed(opset=PER_CHANNEL_OPSET if per_channel and not contrib else PER_TENSOR_OPSET)]
    for kind, types in (("weights", weights), ("activations", activations)):
        needs += [_need_of(kind, dtype, contrib=contrib) for dtype in dict.fromkeys(types)]
    return max(needs, key=lambda need: need.opset)


def _need_of(kind: str, dtype: QType, *, contrib: bool) -> OpsetNeed:
    if dtype.floating:
        return OpsetNeed(opset=_FLOAT8_OPSET, cause=f"{kind} of float8")
    cause = f"{kind} of {dtype.bits} bits"
    if kind == "activations" and dtype.bits < 8:
        return OpsetNeed(opset=_CLIP_OPSET, cause=cause)
    if dtype.bits in _OPSETS and not (contrib and dtype.bits >= 4):
        return OpsetNeed(opset=_OPSETS[dtype.bits], cause=cause)
    return OpsetNeed(opset=0)


def possible_recipe(recipe: Recipe, opset: int) -> Recipe:
    """The recipe, with per-tensor weights and unsigned activations where ``opset`` has no others."""
    recipe = loadable_signs(recipe, opset)
    if opset >= PER_CHANNEL_OPSET or recipe.contrib_qdq or not recipe.per_channel:
        return recipe
    return replace(recipe, per_channel=False)


def activation_spec(recipe: Recipe) -> QuantSpec:
    """Form of activations."""
    dtype = recipe.activation_dtype
    return QuantSpec(dtype=dtype, symmetric=recipe.symmetric or dtype.floating, pow2=recipe.pow2_scales)


def layer_spec(recipe: Recipe, dtype: QType, axis: int | None) -> QuantSpec:
    """Form of a weight whose channels lie along ``axis``; symmetric ones use [−qmax, qmax] of a signed type."""
    symmetric = recipe.weight_symmetric or dtype.floating
    return QuantSpec(
        dtype=dtype,
        symmetric=symmetric,
        axis=axis if recipe.per_channel else None,
        narrow=symmetric,
        pow2=recipe.pow2_scales,
    )


def table_spec(recipe: Recipe) -> QuantSpec:
    """Form of looked-up tables: 8 bits, or 16 where weights have them; there is no Gather of fewer bits."""
    dtype = INT16 if recipe.weight_dtype.bits == 16 else INT8
    return QuantSpec(dtype=dtype, symmetric=True, axis=0, narrow=True, pow2=recipe.pow2_scales)


def held_as(recipe: Recipe, target: Target, op_type: str, dtype: QType, opset: int) -> QType | None:
    """The type that DequantizeLinear of a weight reads, behind a Cast; None where it reads what is stored."""
    if dtype.floating or dtype.bits == 16:
        return None
    castable = dtype.bits == 8 or opset >= _OPSETS[dtype.bits]
    if recipe.activation_dtype.bits == 16 and target.fuses_qdq and op_type in _MADE_NBITS and castable:
        return INT16
    return INT8 if dtype.bits < 8 and castable else None


# What the runtime does ----------------------------------------------------------------------------------


def fuses(activation: QType, weight: QType | None = None) -> bool:
    """Whether there are kernels on integers of these types; ``weight`` None for operators without one."""
    return all(dtype is None or not (dtype.floating or dtype.bits > 8) for dtype in (activation, weight))


def integer_kernels(plan: Plan) -> dict[str, str]:
    """Node → operator (without its domain) of those that are to be kernels on integers, by their types."""
    weights = {layer.node: layer.weight_spec.dtype for layer in plan.layers}
    activation = next((tensor.spec.dtype for tensor in plan.tensors.values()), UINT8)
    return {
        node.name: node.op_type.rpartition(".")[2]
        for node in plan.nodes
        if node.action is Action.QUANTIZE and fuses(activation, weights.get(node.name))
    }


def remarks(recipe: Recipe, opset: int) -> tuple[str, ...]:
    """What the target does with the widths of a recipe in a model of ``opset``, where one may not expect it."""
    found = []
    target, activation, weight = TARGETS[recipe.target], recipe.activation_dtype, recipe.weight_dtype
    if weight.bits < 8 and not target.fuses_qdq and opset >= _OPSETS[weight.bits]:
        cause = "a runtime that does not fold it at load computes it at every run"
        found.append(f"weights of {weight.bits} bits are widened to int8 by a Cast; {cause}")
    if target.fuses_qdq:
        found += [_as_float("activations", activation)] if not fuses(activation) else []
        found += [_as_float("weights", weight)] if fuses(activation) and not fuses(activation, weight) else []
        if weight.bits < 8 and fuses(activation) and opset < _OPSETS[weight.bits]:
            found.append(
                f"{weight.bits}-bit weights run as float on ort-cpu at opset {opset}, which has no Cast of them: "
                f"--opset {_OPSETS[weight.bits]} makes kernels on integers of them"
            )
    if activation.bits < 8:
        found.append(
            f"activations of {activation.bits} bits are held in 8 and clipped to {2**activation.bits} values: "
            "they take the time and the memory of 8"
        )
    return tuple(found)


def spoken(recipe: Recipe) -> str:
    """The widths of a recipe: "8 bits", "weights of 4 bits and activations of 8"."""
    weight, activation = recipe.weight_dtype, recipe.activation_dtype
    if weight.floating and activation.floating:
        return "float8"
    if weight.bits == activation.bits:
        return f"{weight.bits} bits"
    return f"weights of {weight.bits} bits and activations of {activation.bits}"


def _as_float(kind: str, dtype: QType) -> str:
    name = f"float8 {kind}" if dtype.floating else f"{dtype.bits}-bit {kind}"
    return f"{name} run as float on ort-cpu: use them for accuracy studies, or for NPUs"

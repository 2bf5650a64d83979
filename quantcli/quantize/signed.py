"""Signed activations, where the runtime that verifies the model can load them.

onnxruntime 1.32 on x86 makes uint8 of int8 activations when it loads a model, also where they hold 4 or 2 bits.
From opset 21 on, QuantizeLinear states its type in an attribute as well. The runtime sets it on quantizers that it
moves past Reshape or Transpose, does not change it with the zero point, and refuses the model then ("output_dtype
INT8 does not match y_zero_point type UINT8").
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quantcli.core.dtypes import UINT2, UINT4, UINT8, integer_type
from quantcli.ops.targets import TARGETS
from quantcli.quantize.plan import Plan
from quantcli.quantize.recipe import Recipe

TYPED_OPSET = 21
"""First ai.onnx version whose QuantizeLinear has the attribute output_dtype."""

_UNSIGNED = (UINT8, UINT4, UINT2)


def loadable_signs(recipe: Recipe, opset: int) -> Recipe:
    """The recipe, with unsigned activations where quantizers are moved at load and int8 would be refused."""
    target = TARGETS[recipe.target]
    dtype = recipe.activation_dtype
    if not dtype.signed or dtype.storage != np.int8 or not target.fuses_qdq or opset < TYPED_OPSET:
        return recipe
    return replace(recipe, activation_dtype=integer_type(dtype.bits, signed=False))


def sign_note(plan: Plan) -> tuple[str, ...]:
    """That the target would rather have signed activations, in words; nothing where it has them."""
    unsigned = any(tensor.spec.dtype in _UNSIGNED for tensor in plan.tensors.values())
    if not TARGETS[plan.target].signed_activations or not unsigned:
        return ()
    cause = f"from opset {TYPED_OPSET} on onnxruntime loads no int8 ones on x86, where the model is verified"
    return (f"activations are unsigned: {cause}",)

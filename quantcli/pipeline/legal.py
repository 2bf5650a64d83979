"""What a request asks for, as legality sees it, and what the user should know of the target."""

from __future__ import annotations

from quantcli.ops.targets import TARGETS
from quantcli.pipeline.types import ConvertRequest
from quantcli.quantize.form import Form
from quantcli.quantize.plan import Action, Plan
from quantcli.quantize.scheme import FP8, Scheme
from quantcli.quantize.signed import sign_note

_FLOATS = {"float16": "fp16", "bfloat16": "bf16"}


def scheme_of(request: ConvertRequest) -> Scheme:
    """The scheme of a request: everything in its recipe is said, nothing is typed."""
    recipe = request.recipe
    static = recipe.form is Form.STATIC
    rounds = recipe.form in {Form.STATIC, Form.DYNAMIC}
    narrow = _FLOATS.get(recipe.float_type, "")
    if recipe.weight_dtype.name.startswith("float8"):
        narrow = FP8
    return Scheme(
        target=recipe.target,
        form=recipe.form,
        narrow=narrow,
        weight_bits=None if narrow else recipe.weight_dtype.bits,
        activation_bits=recipe.activation_dtype.bits if rounds and not narrow else None,
        signed=recipe.activation_dtype.signed,
        per_channel=recipe.per_channel,
        block=recipe.block,
        symmetric=recipe.symmetric if static else None,
        weight_symmetric=None if recipe.form is Form.FLOAT else recipe.weight_symmetric,
        pow2_scales=recipe.pow2_scales,
        contrib_qdq=recipe.contrib_qdq,
        dynamic_lstm=recipe.dynamic_lstm,
        keep_io=recipe.keep_io,
        accuracy_level=recipe.accuracy_level if recipe.form is Form.WEIGHT_ONLY else None,
        format=request.format,
        calibration=request.calibration is not None,
    )


def target_notes(plan: Plan) -> tuple[str, ...]:
    """How far the rules of the target were checked, unless they are measured ones."""
    target = TARGETS[plan.target]
    if target.measured:
        return ()
    signs = (*sign_note(plan), *_outlier_note(plan))
    if target.runtime:
        what = "rules from its documentation; not run here, and no kernels are reported"
        return (f"target {target.name}: {what}: {target.runtime} is not on this machine", *signs)
    kernels = "; kernels are counted as onnxruntime fuses them there" if target.session else ""
    return (f"target {target.name}: not measured on such a CPU{kernels}", *signs)


def _outlier_note(plan: Plan) -> tuple[str, ...]:
    """That 8 bits do not fit the residuals of transformers, where everything has to be integers."""
    normalized = any(
        node.op_type.endswith("LayerNormalization") and node.action is Action.QUANTIZE for node in plan.nodes
    )
    narrow = any(tensor.spec.dtype.bits <= 8 for tensor in plan.tensors.values())
    if not (TARGETS[plan.target].everything and normalized and narrow):
        return ()
    told = "sums in front of a LayerNormalization have outliers in transformers, which 8 bits do not fit"
    return (f"{told}: --activation-bits 16 --weight-bits 8 does, and so does --exclude of these sums",)

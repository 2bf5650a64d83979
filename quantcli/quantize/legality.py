"""Which combinations of form, widths, scheme, format and target make sense: one table of refusals.

Every refusal is one sentence (what, and why) with a hint, told before any file is read. Nothing heavy is imported
here, so that the command line can ask first. Two kinds of rows: *contradictions* hold wherever a value comes from;
options *without effect* are refused only where they were typed, because values of the environment and of
configuration files are meant for many calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quantcli.errors import UsageError
from quantcli.quantize.form import Form
from quantcli.quantize.scheme import FP8, Scheme


def check_scheme(scheme: Scheme) -> None:
    """Refuse what makes no sense.

    Raises:
        UsageError: U102, the target or the form has no such thing; U105, options exclude each other, or one has no
            effect.
    """
    for rule in (*CONTRADICTIONS, *WITHOUT_EFFECT):
        if rule.broken(scheme):
            raise UsageError(rule.code, rule.sentence(scheme), hint=rule.hint)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row: when it applies, and what is said then.

    Attributes:
        code: Of the error.
        broken: (scheme) → whether it applies.
        sentence: (scheme) → what is wrong, and why.
        hint: What to do.
    """

    code: str
    broken: Callable[[Scheme], bool]
    sentence: Callable[[Scheme], str]
    hint: str


def _listed(values: tuple[object, ...]) -> str:
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


_STATIC = (Form.STATIC,)
_INTEGER_FORMS = (Form.STATIC, Form.DYNAMIC, Form.WEIGHT_ONLY)

SMALLEST_BLOCK = 16

CONTRADICTIONS: tuple[Refusal, ...] = (
    # Form and target ----------------------------------------------------------------------------------
    Refusal(
        "U102",
        lambda s: s.form not in s.row.forms,
        lambda s: f"{s.asked} is not for target '{s.target}', which takes models that are {_listed(s.row.forms)}",
        "leave it out, or choose another target; see: quantcli explain target:NAME",
    ),
    Refusal(
        "U102",
        lambda s: bool(s.narrow) and s.narrow not in s.row.float_types,
        lambda s: f"--bits {s.narrow} is not for target '{s.target}', which has no rules for that type",
        "leave it out, or choose another target; see: quantcli explain target:NAME",
    ),
    Refusal(
        "U105",
        lambda s: s.narrow == FP8 and s.form is not Form.STATIC,
        lambda s: f"{s.asked} and --bits fp8 exclude each other: fp8 is written with ranges from calibration",
        "leave one of them out",
    ),
    Refusal(
        "U105",
        lambda s: s.narrow not in {"", FP8} and (s.weight_bits or s.activation_bits) is not None,
        lambda s: f"--bits {s.narrow} is the type of weights and activations, so neither has another width",
        "leave --weight-bits and --activation-bits out",
    ),
    # Widths -------------------------------------------------------------------------------------------
    Refusal(
        "U102",
        lambda s: s.form is Form.DYNAMIC and (s.weight_bits or 8) != 8,
        lambda s: f"--dynamic multiplies 8-bit integers, so weights of {s.weight_bits} bits are not available",
        "leave the width out, or use --weight-only",
    ),
    Refusal(
        "U102",
        lambda s: s.form is Form.DYNAMIC and (s.activation_bits or 8) != 8,
        lambda s: f"--dynamic has 8-bit activations, so {s.activation_bits} bits are not available",
        "leave --activation-bits out",
    ),
    Refusal(
        "U102",
        lambda s: s.form is Form.DYNAMIC and s.signed is True,
        lambda _: "--dynamic has unsigned activations, which is what DynamicQuantizeLinear gives",
        "give the recipe the activation_dtype uint8",
    ),
    Refusal(
        "U105",
        lambda s: s.form is Form.DYNAMIC and s.weight_symmetric is False,
        lambda _: "--dynamic has symmetric weights: kernels that round activations have no zero points of weights",
        "leave --weight-asymmetric out",
    ),
    Refusal(
        "U102",
        lambda s: s.form is Form.STATIC and not s.narrow and (s.weight_bits or 8) not in s.row.weight_widths,
        lambda s: (
            f"target '{s.target}' takes weights of {_listed(s.row.weight_widths)} bits, not {s.weight_bits or 8}"
        ),
        "choose that width, or another target; see: quantcli explain target:NAME",
    ),
    Refusal(
        "U102",
        lambda s: (
            s.form is Form.STATIC and not s.narrow and (s.activation_bits or 8) not in s.row.activation_widths
        ),
        lambda s: (
            f"target '{s.target}' takes activations of {_listed(s.row.activation_widths)} bits, not "
            f"{s.activation_bits}"
        ),
        "choose that width, or another target; see: quantcli explain target:NAME",
    ),
    Refusal(
        "U102",
        lambda s: s.form is Form.WEIGHT_ONLY and (s.weight_bits or 8) not in s.row.stored_widths,
        lambda s: (
            f"target '{s.target}' takes weights of {_listed(s.row.stored_widths)} bits alone, not "
            f"{s.weight_bits or 8}"
        ),
        "choose that width with --weight-bits, or another target",
    ),
    # Scheme -------------------------------------------------------------------------------------------
    Refusal(
        "U102",
        lambda s: s.block > 0 and s.form is not Form.WEIGHT_ONLY,
        lambda s: (
            f"--granularity block:{s.block} is for --weight-only: kernels on integers take one scale for "
            "each output channel"
        ),
        "add --weight-only, or leave the granularity out",
    ),
    Refusal(
        "U102",
        lambda s: 0 < s.block < SMALLEST_BLOCK,
        lambda s: f"blocks of {s.block} values are not available: their scales take as much as they save",
        f"--granularity block:{SMALLEST_BLOCK} or more",
    ),
    Refusal(
        "U102",
        lambda s: s.row.smallest_block > 0 and s.block > 0 and not _power_from(s.block, s.row.smallest_block),
        lambda s: (
            f"--granularity block:{s.block} is not for target '{s.target}', whose blocks are powers of two "
            f"from {s.row.smallest_block} on"
        ),
        "choose block:32, or --target generic",
    ),
    Refusal(
        "U102",
        lambda s: s.form is Form.STATIC and s.row.only_symmetric and s.symmetric is False,
        lambda s: f"target '{s.target}' has no zero points, so activations cannot be asymmetric",
        "leave --asymmetric out",
    ),
    Refusal(
        "U102",
        lambda s: (
            s.form is Form.STATIC
            and not s.narrow
            and s.signed is not None
            and s.row.only_symmetric
            and not s.signed
        ),
        lambda s: f"target '{s.target}' takes signed activations, not unsigned ones",
        "give the recipe a signed activation_dtype",
    ),
    Refusal(
        "U102",
        lambda s: s.row.only_symmetric and s.weight_symmetric is False,
        lambda s: f"target '{s.target}' has no zero points, so weights cannot be asymmetric",
        "leave --weight-asymmetric out",
    ),
    Refusal(
        "U105",
        lambda s: s.narrow == FP8 and False in (s.symmetric, s.weight_symmetric),
        lambda _: "fp8 has no zero points, so it cannot be asymmetric",
        "leave --asymmetric and --weight-asymmetric out",
    ),
    Refusal(
        "U102",
        lambda s: (
            s.form is Form.STATIC
            and s.weight_symmetric is False
            and s.per_channel
            and s.row.per_channel_ops is not None
        ),
        lambda s: f"target '{s.target}' has scales per output channel for symmetric weights only",
        "leave --weight-asymmetric out, or add --granularity tensor",
    ),
    Refusal(
        "U105",
        lambda s: s.pow2_scales and s.form is not Form.STATIC,
        lambda s: f"--pow2-scales is for fixed-point hardware, and {s.asked} does not compute in fixed point",
        "leave --pow2-scales out",
    ),
    Refusal(
        "U102",
        lambda s: s.contrib_qdq and not s.row.contrib_qdq,
        lambda s: f"--contrib-qdq is not for target '{s.target}', which does not know Q/DQ of com.microsoft",
        "leave it out",
    ),
    Refusal(
        "U105",
        lambda s: s.contrib_qdq and not {4, 16} & set(s.widths),
        lambda _: "--contrib-qdq is for integers of 16 and 4 bits, for 8 bits need no newer opset",
        "leave it out",
    ),
    Refusal(
        "U105",
        lambda s: s.contrib_qdq and s.form is not Form.STATIC,
        lambda s: f"--contrib-qdq is about QuantizeLinear and DequantizeLinear, which {s.asked} does not write",
        "leave it out",
    ),
    Refusal(
        "U105",
        lambda s: s.contrib_qdq and s.weight_bits == 2,
        lambda _: "--contrib-qdq has no integers of 2 bits",
        "leave it out",
    ),
    Refusal(
        "U105",
        lambda s: s.dynamic_lstm and s.form is not Form.DYNAMIC,
        lambda _: "--dynamic-lstm has no effect without --dynamic",
        "add --dynamic",
    ),
    Refusal(
        "U102",
        lambda s: s.dynamic_lstm and not s.row.contrib,
        lambda s: f"--dynamic-lstm writes an operator of com.microsoft, which target '{s.target}' does not have",
        "leave it out",
    ),
    Refusal(
        "U105",
        lambda s: s.form is Form.WEIGHT_ONLY and s.accuracy_level not in {None, 4} and s.format != "qoperator",
        lambda _: "--accuracy-level is an attribute of MatMulNBits, which --format qdq does not write",
        "add --format qoperator",
    ),
    Refusal(
        "U105",
        lambda s: s.contrib_qdq and s.format == "qoperator",
        lambda _: "--contrib-qdq is about Q/DQ, which --format qoperator has operators on integers in place of",
        "leave one of them out",
    ),
    Refusal(
        "U105",
        lambda s: s.narrow == "bf16" and s.keep_io is False,
        lambda _: "onnxruntime takes no arrays of bfloat16 from Python, so such inputs cannot be verified",
        "leave --convert-io out: inputs and outputs keep their types",
    ),
    Refusal(
        "U102",
        lambda s: s.form is Form.WEIGHT_ONLY and s.format == "qoperator" and (s.weight_bits or 8) > 8,
        lambda s: (
            f"--format qoperator writes MatMulNBits, which has weights of at most 8 bits, not {s.weight_bits}"
        ),
        "leave --format out: QDQ has every width",
    ),
    # Format and opset -----------------------------------------------------------------------------------
    Refusal(
        "U102",
        lambda s: s.form is Form.STATIC and s.format not in s.row.formats,
        lambda s: f"target '{s.target}' reads Q/DQ, so --format {s.format} is not for it",
        "leave --format out",
    ),
    Refusal(
        "U102",
        lambda s: s.form is Form.STATIC and s.format == "qoperator" and bool(s.narrow or _beyond_qoperator(s)),
        lambda s: (
            "--format qoperator has operators for 8-bit activations and weights of at most 8 bits, not for "
            + (s.narrow or f"{_beyond_qoperator(s)} bits")
        ),
        "leave --format out: QDQ has every width",
    ),
    Refusal(
        "U102",
        lambda s: s.form is Form.WEIGHT_ONLY and s.format == "qoperator" and not s.row.contrib,
        lambda s: (
            f"--format qoperator writes MatMulNBits of com.microsoft, which target '{s.target}' does not have"
        ),
        "leave --format out",
    ),
    Refusal(
        "U105",
        lambda s: s.opset is not None and s.opset < s.lowest_opset,
        lambda s: (
            f"--opset {s.opset} is too low for the widths that are asked for, which exist from opset "
            f"{s.lowest_opset} on"
        ),
        "leave --opset out, or the widths at 8",
    ),
    Refusal(
        "U105",
        lambda s: s.calibration and s.form is not Form.STATIC,
        lambda s: f"{s.asked} takes no ranges from a file, so --calibration has no effect",
        "leave --calibration out",
    ),
)


def _power_from(number: int, smallest: int) -> bool:
    return number >= smallest and number & (number - 1) == 0


def _beyond_qoperator(scheme: Scheme) -> int:
    """Bits that operators on integers do not have; 0 where they have all."""
    weights, activations = scheme.weight_bits or 8, scheme.activation_bits or 8
    return activations if activations != 8 else weights if weights > 8 else 0


def _needs(option: str, forms: tuple[Form, ...], why: str, flag: str = "") -> Refusal:
    """The refusal of a typed option in forms other than ``forms``."""
    name = flag or f"--{option.replace('_', '-')}"
    return Refusal(
        "U105",
        lambda s: option in s.typed and s.form not in forms,
        lambda s: f"{name} has no effect with {s.asked}: {why}",
        f"leave {name} out",
    )


_RANGES = "it takes no ranges from calibration"

WITHOUT_EFFECT: tuple[Refusal, ...] = (
    _needs("activation_bits", (Form.STATIC, Form.DYNAMIC), "activations stay in float"),
    _needs("symmetric", _STATIC, "the file has no parameters of activations", "--symmetric/--asymmetric"),
    _needs("weight_symmetric", _INTEGER_FORMS, "there are no zero points", "--weight-symmetric"),
    _needs("granularity", _INTEGER_FORMS, "there are no scales"),
    _needs("accuracy_level", (Form.WEIGHT_ONLY,), "it is of MatMulNBits, which --weight-only writes"),
    Refusal(
        "U105",
        lambda s: "accuracy_level" in s.typed and not s.row.contrib,
        lambda s: f"--accuracy-level has no effect on target '{s.target}', which has no MatMulNBits",
        "leave --accuracy-level out",
    ),
    _needs("keep_io", (Form.FLOAT,), "inputs and outputs keep their types anyway", "--keep-io/--convert-io"),
    _needs("format", (Form.STATIC, Form.WEIGHT_ONLY), "it has one way to be written"),
    _needs("method", _STATIC, _RANGES),
    _needs("effort", _INTEGER_FORMS, "nothing is rounded against data"),
    _needs("mask", _INTEGER_FORMS, "nothing is rounded against data"),
    _needs("max_memory", _INTEGER_FORMS, "nothing is rounded against data"),
    _needs("target_sqnr", _STATIC, "tensors are left in float by it in static models only"),
    _needs("target_drop", _STATIC, "tensors are left in float by it in static models only"),
    _needs("float_if_faster", _STATIC, "only placements of static models are timed"),
    _needs("placement", _STATIC, "only placements of static models are timed"),
    Refusal(
        "U105",
        lambda s: "placement" in s.typed and s.placement == "measured" and not s.row.timed,
        lambda s: f"--placement measured has no effect on target '{s.target}', which cannot be timed here",
        "leave --placement out",
    ),
)

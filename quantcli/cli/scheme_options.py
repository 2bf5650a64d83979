"""Options that say what is quantized, to which width and in which form, and the recipe that they make."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from quantcli.cli.command import option
from quantcli.cli.options import Decorator, stacked
from quantcli.errors import UsageError
from quantcli.quantize.form import Form

if TYPE_CHECKING:
    from quantcli.core.dtypes import QType
    from quantcli.quantize.recipe import Recipe

    _Kind = click.ParamType[Any]
else:  # generic only in recent versions of click
    _Kind = click.ParamType

WIDTHS = (16, 8, 4, 2)
"""Bits that integers of ONNX have, as far as weights and activations may have them."""

EIGHT = 8

FLOAT_TYPES = {"fp16": "float16", "bf16": "bfloat16"}
"""Values of --bits that name a float type to compute in, and numpy's name of it."""

FLOAT8 = "fp8"
"""Value of --bits for codes of float8e4m3fn."""

SCHEME_OPTIONS = (
    "dynamic", "weight_only", "bits", "weight_bits", "activation_bits", "granularity", "symmetric",
    "weight_symmetric", "pow2_scales", "contrib_qdq", "accuracy_level", "dynamic_lstm", "keep_io",
)  # fmt: skip
"""Names of the values of ``scheme_options``."""


class Bits(_Kind):
    """A number of bits, or the name of a float type."""

    name = "bits"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The number, or the name."""
        text = str(value).strip().lower()
        number = text.isascii() and text.isdigit()
        if not number and text not in {*FLOAT_TYPES, FLOAT8}:
            self.fail(f"'{value}' is no number of bits, and none of fp16, bf16 and fp8", param, ctx)
        return int(text) if number else text


class Granularity(_Kind):
    """``channel``, ``tensor`` or ``block:N``."""

    name = "granularity"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, checked."""
        text = str(value).strip().lower()
        if not re.fullmatch(r"channel|tensor|block:[1-9][0-9]*", text):
            self.fail(f"'{value}' is none of channel, tensor and block:N (block:32)", param, ctx)
        return text


def scheme_options(section: str) -> Decorator:
    """Form, widths and scheme."""
    return stacked(
        option(
            "--dynamic",
            is_flag=True,
            section=section,
            help="Find the ranges of activations while the model runs: no calibration; for MatMul and Gemm.",
        ),
        option(
            "--weight-only",
            is_flag=True,
            section=section,
            help="Store weights as integers and compute in float: no calibration; --data rounds them better.",
        ),
        option(
            "--bits",
            type=Bits(),
            metavar="N",
            section=section,
            help="Bits of weights and activations, where the next two do not say otherwise: 16, 8, 4 or 2; or "
            "fp8, or fp16 or bf16 to compute in that type.  [default: 8]",
        ),
        option("--weight-bits", type=int, metavar="N", section=section, help="Bits of weights: 16, 8, 4 or 2."),
        option(
            "--activation-bits", type=int, metavar="N", section=section, help="Bits of activations: 16, 8, 4 or 2."
        ),
        option(
            "--granularity",
            type=Granularity(),
            metavar="channel|tensor|block:N",
            section=section,
            help="One scale for each output channel of a weight, for all of it, or (weight-only) for N values.  "
            "[default: channel; block:32 for --weight-only with 4 or 2 bits]",
        ),
        option(
            "--symmetric/--asymmetric",
            default=None,
            section=section,
            help="Activations with the zero point in the middle, or where the range puts it.  [default: as the "
            "target wants it]",
        ),
        option(
            "--weight-symmetric/--weight-asymmetric",
            default=None,
            section=section,
            help="The same for weights.  [default: symmetric, but for --weight-only with 4 or 2 bits]",
        ),
        option(
            "--pow2-scales", is_flag=True, section=section, help="Powers of two as scales (fixed-point hardware)."
        ),
        option(
            "--contrib-qdq",
            is_flag=True,
            section=section,
            help="Write Q/DQ of com.microsoft, which have 16 and 4 bits without raising the opset to 21.",
        ),
        option(
            "--accuracy-level",
            type=click.IntRange(0, 4),
            metavar="N",
            section=section,
            help="Of MatMulNBits (weight-only, --format qoperator): 1 computes in float32, 4 with int8 "
            "activations (faster), 0 as the runtime likes.  [default: 4]",
        ),
        option(
            "--dynamic-lstm",
            is_flag=True,
            section=section,
            help="With --dynamic: LSTM as com.microsoft.DynamicQuantizeLSTM.",
        ),
        option(
            "--keep-io/--convert-io",
            default=None,
            section=section,
            help="With fp16 and bf16: inputs and outputs keep their types, or become the narrow type.  [default: "
            "keep]",
        ),
    )


def check_bits(shared: dict[str, Any]) -> None:
    """Refuse numbers of bits that there are not.

    Raises:
        UsageError: U102.
    """
    for name in ("bits", "weight_bits", "activation_bits"):
        value = shared[name]
        if value is None or isinstance(value, str) or value in WIDTHS:
            continue
        option = f"--{name.replace('_', '-')}"
        raise UsageError(
            "U102",
            f"{option} {value} is not available: integers of ONNX have 16, 8, 4 or 2 bits",
            hint=f"write {option} 8, or leave it out",
        )


def form_of(shared: dict[str, Any]) -> Form:
    """The form that the options ask for.

    Raises:
        UsageError: U105, they ask for two.
    """
    asked = [
        (flag, form)
        for flag, form, there in (
            ("--dynamic", Form.DYNAMIC, shared.get("dynamic")),
            ("--weight-only", Form.WEIGHT_ONLY, shared.get("weight_only")),
            (f"--bits {shared['bits']}", Form.FLOAT, shared["bits"] in FLOAT_TYPES),
        )
        if there
    ]
    if len(asked) > 1:
        raise UsageError("U105", f"{asked[0][0]} and {asked[1][0]} exclude each other", hint="leave one out")
    return asked[0][1] if asked else Form.STATIC


def recipe_of(shared: dict[str, Any]) -> Recipe:
    """The recipe that the options of this command say.

    Raises:
        UsageError: U102 or U105, there are no such widths, or two forms are asked for.
    """
    from quantcli.quantize.recipe import Recipe

    check_bits(shared)
    _check_float8(shared)
    form = form_of(shared)
    weight_dtype = _type(shared["weight_bits"] or shared["bits"], signed=True)
    narrow = form is Form.WEIGHT_ONLY and weight_dtype.bits < EIGHT
    granularity = shared["granularity"] or ("block:32" if narrow else "channel")
    block = int(granularity.partition(":")[2] or 0)
    weight_symmetric = shared.get("weight_symmetric")
    if weight_symmetric is None:
        # MiniLM, 4 bits in blocks of 32: cosine 0.9871 with zero points, 0.9807 without
        weight_symmetric = not narrow
    level = shared.get("accuracy_level")
    return Recipe(
        target=shared["target"],
        form=form,
        float_type=FLOAT_TYPES.get(str(shared["bits"]), ""),
        weight_dtype=weight_dtype,
        activation_dtype=_type(shared["activation_bits"] or shared["bits"], signed=False),
        symmetric=bool(shared["symmetric"]) or shared["bits"] == FLOAT8,
        weight_symmetric=weight_symmetric,
        per_channel=granularity != "tensor",
        block=block,
        pow2_scales=bool(shared.get("pow2_scales")),
        contrib_qdq=bool(shared.get("contrib_qdq")),
        accuracy_level=4 if level is None else level,
        dynamic_lstm=bool(shared.get("dynamic_lstm")),
        keep_io=shared.get("keep_io") is not False,
        method=shared["method"],
        include=shared["include"],
        exclude=shared["exclude"],
    )


def _check_float8(shared: dict[str, Any]) -> None:
    """Refuse what float8 does not have.

    Raises:
        UsageError: U105.
    """
    if shared["bits"] != FLOAT8:
        return
    asymmetric = next((key for key in ("symmetric", "weight_symmetric") if shared.get(key) is False), "")
    if asymmetric:
        option = f"--{asymmetric.replace('_', '-').replace('symmetric', 'asymmetric')}"
        raise UsageError(
            "U105",
            f"--bits fp8 and {option} exclude each other: floats have no zero point",
            hint=f"leave {option} out",
        )
    if shared.get("contrib_qdq"):
        raise UsageError(
            "U105",
            "--bits fp8 and --contrib-qdq exclude each other: com.microsoft has no float8",
            hint="leave --contrib-qdq out; QuantizeLinear of ai.onnx 19 has it",
        )


def _type(bits: int | str | None, *, signed: bool) -> QType:
    """The type of a width; 8 bits where none is said, or a float type to compute in."""
    from quantcli.core.dtypes import FLOAT8E4M3FN, integer_type

    if bits == FLOAT8:
        return FLOAT8E4M3FN
    return integer_type(bits if isinstance(bits, int) else 8, signed=signed)

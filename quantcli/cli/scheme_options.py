"""Options that say what is quantized, to which width and in which form, and the recipe that they make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from quantcli.cli.command import option
from quantcli.cli.options import Decorator, stacked
from quantcli.errors import UsageError
from quantcli.quantize.form import Form
from quantcli.quantize.legality import check_scheme
from quantcli.quantize.scheme import FP8, Scheme

if TYPE_CHECKING:
    from quantcli.quantize.recipe import Recipe

    _Kind = click.ParamType[Any]
else:  # generic only in recent versions of click
    _Kind = click.ParamType

WIDTHS = (16, 8, 4, 2)
"""Bits that integers of ONNX have, as far as weights and activations may have them."""

EIGHT = 8

FLOAT_TYPES = {"fp16": "float16", "bf16": "bfloat16"}
"""Values of --bits that name a float type to compute in, and numpy's name of it."""

FP8_TYPE = "float8_e4m3fn"
"""The type that --bits fp8 stands for."""

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
        if not number and text not in {*FLOAT_TYPES, FP8}:
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


def scheme_of(shared: dict[str, Any], *, typed: Sequence[str] = (), calibration: bool = False) -> Scheme:
    """What the options of a command ask for, checked.

    Args:
        shared: Values of the options; those that a command does not have may be missing.
        typed: Names of those that stand on the command line.
        calibration: Whether a file of statistics is given.

    Raises:
        UsageError: U102 or U105, that makes no sense.
    """
    check_bits(shared)
    bits = shared["bits"]
    number = bits if isinstance(bits, int) else None
    form = form_of(shared)
    weight_bits, activation_bits = shared["weight_bits"], shared["activation_bits"]
    stored = number if weight_bits is None else weight_bits
    narrow = form is Form.WEIGHT_ONLY and (stored or EIGHT) < EIGHT
    granularity = shared["granularity"] or ("block:32" if narrow else "channel")
    found = Scheme(
        target=shared["target"],
        form=form,
        narrow="" if bits is None or number is not None else str(bits),
        weight_bits=stored,
        activation_bits=number if activation_bits is None and form is not Form.WEIGHT_ONLY else activation_bits,
        per_channel=granularity != "tensor",
        block=int(granularity.partition(":")[2] or 0),
        symmetric=shared["symmetric"],
        weight_symmetric=shared.get("weight_symmetric"),
        pow2_scales=bool(shared.get("pow2_scales")),
        contrib_qdq=bool(shared.get("contrib_qdq")),
        accuracy_level=shared.get("accuracy_level"),
        dynamic_lstm=bool(shared.get("dynamic_lstm")),
        keep_io=shared.get("keep_io"),
        format=shared["format"],
        placement=shared["placement"] or "",
        opset=shared["opset"],
        calibration=calibration,
        typed=frozenset(typed),
    )
    check_scheme(found)
    return found


def recipe_of(scheme: Scheme, shared: dict[str, Any]) -> Recipe:
    """The recipe of a checked scheme; what was left open is as the target wants it."""
    from quantcli.core.dtypes import QTYPES, integer_type
    from quantcli.quantize.recipe import Recipe

    filled = scheme.filled()
    weights = integer_type(filled.weight_bits or EIGHT, signed=True)
    activations = integer_type(filled.activation_bits or EIGHT, signed=bool(filled.signed))
    if scheme.narrow == FP8:
        weights = QTYPES[FP8_TYPE] if scheme.weight_bits is None else weights
        activations = QTYPES[FP8_TYPE] if scheme.activation_bits is None else activations
    return Recipe(
        target=filled.target,
        form=filled.form,
        float_type=FLOAT_TYPES.get(filled.narrow, ""),
        weight_dtype=weights,
        activation_dtype=activations,
        symmetric=bool(filled.symmetric),
        weight_symmetric=bool(filled.weight_symmetric),
        per_channel=filled.per_channel,
        block=filled.block,
        pow2_scales=filled.pow2_scales,
        contrib_qdq=filled.contrib_qdq,
        accuracy_level=4 if filled.accuracy_level is None else filled.accuracy_level,
        dynamic_lstm=filled.dynamic_lstm,
        keep_io=shared.get("keep_io") is not False,
        method=shared["method"],
        include=shared["include"],
        exclude=shared["exclude"],
    )

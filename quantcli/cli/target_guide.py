"""What a target takes, in words: for ``quantcli explain target:NAME`` and the docs."""

from __future__ import annotations

from collections.abc import Iterator

from quantcli.ops.target_spec import Target

_FORMS = {
    "static": "static",
    "dynamic": "dynamic (--dynamic)",
    "weight-only": "weight-only (--weight-only)",
    "float": "in a narrower float type (--bits fp16)",
}


def target_facts(target: Target) -> Iterator[tuple[str, str]]:
    """Label and text of what the target takes."""
    yield "forms", ", ".join(_FORMS[form] for form in target.forms)
    yield "formats", ", ".join(target.formats)
    yield "activations", _activations(target)
    yield "weights", _weights(target)
    if target.stored_widths:
        yield "weights alone", _alone(target)
    if target.float_types:
        yield "float types", ", ".join(target.float_types)
    yield "biases", "float" if target.float_bias else "int32 with the scale s_x·s_w"
    yield "placement", _placement(target)


def _activations(target: Target) -> str:
    kinds = " or ".join(
        f"{'int' if target.signed_activations else 'uint'}{bits}"
        for bits in (8, 16)
        if bits in target.activation_widths
    )
    narrow = [bits for bits in target.activation_widths if bits < 8]
    more = f" ({' and '.join(map(str, narrow))} bits held in 8)" if narrow else ""
    if target.only_symmetric:
        return f"{kinds}{more}, zero points fixed at 0"
    return f"{kinds}{more}, zero points {'fixed, or free with --asymmetric' if target.symmetric else 'free'}"


def _weights(target: Target) -> str:
    types = ", ".join(f"int{bits}" for bits in target.weight_widths)
    operators = target.per_channel_ops
    where = "" if operators is None else f" of {' and '.join(sorted(operators))}, one scale for others"
    return f"{types}, symmetric, narrow range; a scale for each output channel{where}"


def _alone(target: Target) -> str:
    block = f"blocks of 2^n from {target.smallest_block} on" if target.smallest_block else "blocks of any size"
    written = "DequantizeLinear, or MatMulNBits with --format qoperator" if target.contrib else "DequantizeLinear"
    return f"{', '.join(map(str, target.stored_widths))} bits; {block}; {written}"


def _placement(target: Target) -> str:
    if target.fuses_qdq:
        return "Q/DQ only where a fused kernel on integers results"
    if target.everything:
        return "Q/DQ around every operator"
    if target.one_residual:
        return "Q/DQ in front of layers with weights, and on the residual of a sum behind a convolution"
    return "Q/DQ around every operator that has a meaning in integers"

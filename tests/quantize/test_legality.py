"""Combinations that make no sense are refused in one sentence, and no row of the table is for nothing."""

from __future__ import annotations

import itertools

import pytest

from quantcli.errors import UsageError
from quantcli.ops.targets import TARGETS
from quantcli.quantize.form import Form
from quantcli.quantize.legality import CONTRADICTIONS, WITHOUT_EFFECT, check_scheme
from quantcli.quantize.scheme import Scheme

DYNAMIC = {"form": Form.DYNAMIC}
WEIGHT_ONLY = {"form": Form.WEIGHT_ONLY}
FP16 = {"form": Form.FLOAT, "narrow": "fp16"}
FP8 = {"narrow": "fp8"}


def refusal(**said: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        check_scheme(Scheme(**said))
    return caught.value


def typed(*names: str) -> dict[str, frozenset[str]]:
    return {"typed": frozenset(names)}


REFUSED = [
    ({"target": "qnn", **DYNAMIC}, "--dynamic is not for target 'qnn', which takes models that are static"),
    ({"target": "tensorrt", **DYNAMIC}, "takes models that are static, weight-only and float"),
    ({"target": "openvino", "form": Form.FLOAT, "narrow": "bf16"}, "--bits bf16 is not for target 'openvino'"),
    ({"target": "qnn", **FP8}, "--bits fp8 is not for target 'qnn'"),
    ({**DYNAMIC, **FP8}, "--dynamic and --bits fp8 exclude each other"),
    ({**WEIGHT_ONLY, **FP8}, "--weight-only and --bits fp8 exclude each other"),
    ({**FP16, "weight_bits": 4}, "--bits fp16 is the type of weights and activations"),
    ({**FP16, "activation_bits": 16}, "--bits fp16 is the type of weights and activations"),
    ({**DYNAMIC, "weight_bits": 4}, "--dynamic multiplies 8-bit integers"),
    ({**DYNAMIC, "activation_bits": 16}, "--dynamic has 8-bit activations"),
    ({**DYNAMIC, "signed": True}, "--dynamic has unsigned activations"),
    ({**DYNAMIC, "weight_symmetric": False}, "--dynamic has symmetric weights"),
    ({"target": "tensorrt", "weight_bits": 4}, "target 'tensorrt' takes weights of 8 bits, not 4"),
    ({"target": "qnn", "activation_bits": 4}, "target 'qnn' takes activations of 16 and 8 bits, not 4"),
    ({"target": "tensorrt", **WEIGHT_ONLY}, "target 'tensorrt' takes weights of 4 bits alone, not 8"),
    ({"block": 32}, "--granularity block:32 is for --weight-only"),
    ({**DYNAMIC, "block": 32}, "--granularity block:32 is for --weight-only"),
    ({**WEIGHT_ONLY, "block": 24}, "whose blocks are powers of two from 16 on"),
    ({**WEIGHT_ONLY, "block": 8}, "blocks of 8 values are not available"),
    ({"target": "tensorrt", "symmetric": False}, "so activations cannot be asymmetric"),
    ({"target": "tensorrt", "signed": False, "symmetric": True}, "takes signed activations, not unsigned ones"),
    ({"target": "tensorrt", "weight_symmetric": False}, "so weights cannot be asymmetric"),
    ({**FP8, "symmetric": False}, "fp8 has no zero points"),
    ({**FP8, "weight_symmetric": False}, "fp8 has no zero points"),
    ({"target": "qnn", "weight_symmetric": False}, "scales per output channel for symmetric weights only"),
    ({**DYNAMIC, "pow2_scales": True}, "--pow2-scales is for fixed-point hardware"),
    ({"target": "generic", "contrib_qdq": True, "weight_bits": 4}, "does not know Q/DQ of com.microsoft"),
    ({"contrib_qdq": True}, "--contrib-qdq is for integers of 16 and 4 bits"),
    ({**WEIGHT_ONLY, "contrib_qdq": True, "weight_bits": 4}, "--contrib-qdq is about QuantizeLinear"),
    ({"contrib_qdq": True, "weight_bits": 2, "activation_bits": 16}, "--contrib-qdq has no integers of 2 bits"),
    ({"dynamic_lstm": True}, "--dynamic-lstm has no effect without --dynamic"),
    ({**DYNAMIC, "target": "generic", "dynamic_lstm": True}, "which target 'generic' does not have"),
    ({"target": "tensorrt", "format": "qoperator"}, "target 'tensorrt' reads Q/DQ"),
    ({"format": "qoperator", "activation_bits": 16}, "--format qoperator has operators for 8-bit activations"),
    ({"format": "qoperator", "weight_bits": 16}, "not for 16 bits"),
    ({"format": "qoperator", **FP8}, "not for fp8"),
    ({"opset": 20, "weight_bits": 4}, "--opset 20 is too low"),
    ({"opset": 24, "weight_bits": 2}, "which exist from opset 25 on"),
    ({"opset": 18, **FP8}, "which exist from opset 19 on"),
    ({"calibration": True, **DYNAMIC}, "--dynamic takes no ranges from a file"),
    ({**WEIGHT_ONLY, **typed("activation_bits"), "activation_bits": 8}, "activations stay in float"),
    ({**DYNAMIC, **typed("symmetric"), "symmetric": True}, "etric has no effect with --dynamic: the file"),
    ({**FP16, **typed("weight_symmetric")}, "--weight-symmetric has no effect with --bits fp16"),
    ({**FP16, **typed("granularity")}, "--granularity has no effect with --bits fp16"),
    ({**typed("accuracy_level")}, "--accuracy-level has no effect with static quantization"),
    ({**WEIGHT_ONLY, **typed("accuracy_level"), "target": "generic"}, "which has no MatMulNBits"),
    ({**typed("keep_io")}, "inputs and outputs keep their types anyway"),
    ({**DYNAMIC, **typed("format")}, "--format has no effect with --dynamic"),
    ({"form": Form.FLOAT, "narrow": "bf16", "keep_io": False}, "onnxruntime takes no arrays of bfloat16"),
    ({**WEIGHT_ONLY, "format": "qoperator", "weight_bits": 16}, "has weights of at most 8 bits, not 16"),
    ({**WEIGHT_ONLY, "accuracy_level": 1}, "which --format qdq does not write"),
    ({"contrib_qdq": True, "weight_bits": 4, "format": "qoperator"}, "--contrib-qdq is about Q/DQ"),
    ({**WEIGHT_ONLY, "target": "generic", "format": "qoperator"}, "--format qoperator writes MatMulNBits"),
    ({**WEIGHT_ONLY, "block": 32, "opset": 20}, "which exist from opset 21 on"),
    ({**WEIGHT_ONLY, **typed("method")}, "--method has no effect with --weight-only"),
    ({**FP16, **typed("effort")}, "--effort has no effect with --bits fp16"),
    ({**FP16, **typed("mask")}, "--mask has no effect with --bits fp16"),
    ({**FP16, **typed("max_memory")}, "--max-memory has no effect with --bits fp16"),
    ({**DYNAMIC, **typed("target_sqnr")}, "--target-sqnr has no effect with --dynamic"),
    ({**DYNAMIC, **typed("target_drop")}, "--target-drop has no effect with --dynamic"),
    ({**WEIGHT_ONLY, **typed("float_if_faster")}, "only placements of static models are timed"),
    ({**WEIGHT_ONLY, **typed("placement"), "placement": "static"}, "only placements of static models are timed"),
    ({**typed("placement"), "placement": "measured", "target": "cpu-avx2"}, "which cannot be timed here"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_what_makes_no_sense_is_refused(said, told):
    error = refusal(**said)
    assert told in error.message
    assert error.code in {"U102", "U105"}
    assert error.hint


def test_every_row_of_the_table_refuses_something():
    first = {
        next(rule for rule in (*CONTRADICTIONS, *WITHOUT_EFFECT) if rule.broken(Scheme(**said)))
        for said, _ in REFUSED
    }
    assert first == {*CONTRADICTIONS, *WITHOUT_EFFECT}


def test_a_refusal_is_one_sentence():
    for said, _ in REFUSED:
        message = refusal(**said).message
        assert "\n" not in message
        assert not message.endswith(".")
        assert message[:1] == message[:1].lower()


@pytest.mark.parametrize("target", TARGETS)
def test_the_defaults_are_legal_on_every_target(target):
    check_scheme(Scheme(target=target))
    check_scheme(Scheme(target=target).filled())


@pytest.mark.parametrize(("form", "target"), [*itertools.product(Form, TARGETS)])
def test_a_target_takes_the_forms_that_it_names(form, target):
    row = TARGETS[target]
    bits = (row.stored_widths or (8,))[0]
    asked = Scheme(
        target=target,
        form=form,
        narrow="fp16" if form is Form.FLOAT else "",
        weight_bits=bits if form is Form.WEIGHT_ONLY else None,
    )
    if form in row.forms:
        check_scheme(asked)
    else:
        assert f"is not for target '{target}'" in refusal(target=target, form=form, narrow=asked.narrow).message


def test_the_target_decides_what_is_left_open():
    signed, free = Scheme(target="tensorrt").filled(), Scheme().filled()
    assert (signed.signed, signed.symmetric) == (True, True)
    assert (free.signed, free.symmetric) == (False, False)
    assert Scheme(target="cpu-arm").filled().signed
    assert Scheme(symmetric=True).filled().symmetric
    assert Scheme(narrow="fp8").filled().symmetric


def test_options_without_effect_are_refused_only_where_they_were_typed():
    check_scheme(Scheme(form=Form.DYNAMIC, symmetric=True, placement="measured"))


def test_blocks_of_any_size_are_for_runtimes_of_plain_onnx():
    check_scheme(Scheme(target="generic", form=Form.WEIGHT_ONLY, block=24))


def test_integers_of_com_microsoft_need_no_newer_opset():
    check_scheme(Scheme(opset=13, weight_bits=4, activation_bits=16, contrib_qdq=True))
    check_scheme(Scheme(opset=13, activation_bits=4))  # 8-bit integers that are clipped

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_text import model, proto, run

from quantcli.errors import UnsupportedModelError
from quantcli.graph.model_io import load_model, load_model_bytes, save_model
from quantcli.graph.opset import NEWEST_OPSET, min_ir_version, upgrade_opset

BLOCK = "float[1, 2, 6, 4] x"
MIXED = np.array([1, 1, 0.5, 1.5], np.float32)
GROWING = np.array([1, 1, 2.5, 1], np.float32)

# Refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opset", "target", "text", "match"),
    [
        (7, 13, "y = BatchNormalization<spatial = 0>(x, x, x, x, x)", "from opset 8 to 9: it normalizes"),
        (9, 14, "y, m, v, a, b = BatchNormalization(x, p, p, p, p)", "means training"),
        (7, 13, "d, m = Dropout(x)  y = Add(d, m)", "Dropout of node .* from opset 9 to 10: its mask is read"),
        (10, 13, "d, m = Dropout(x)  y = Cast<to = 1>(m)", "from opset 11 to 12: its mask is read"),
        (10, 13, "v = com.microsoft.Unheard(x)  y = Clip<min = 0.0>(v)", "type of 'v' is not"),
        (12, 13, "i = Cast<to = 6>(x)  e = Erf(i)  y = Cast<to = 1>(e)", "integers"),
        (18, 21, "y = GroupNormalization<num_groups = 1>(x, p, p)", "one per channel"),
    ],
)  # fmt: skip
def test_what_has_no_exact_form_is_refused_and_left_alone(opset: int, target: int, text: str, match: str) -> None:
    before_it = "w = Squeeze<axes = [0]>(x) " if opset < 13 else ""
    subject = model(
        f"g (float[1, 3] x) => (float[] y) {{ {before_it} {text} }}", opset=opset, p=np.ones(3, np.float32)
    )
    before = subject.to_bytes()
    with pytest.raises(UnsupportedModelError, match=match) as caught:
        upgrade_opset(subject, target)
    assert caught.value.code == "M210"
    assert f"opset {target}" in str(caught.value.hint)
    assert subject.to_bytes() == before


@pytest.mark.parametrize("target", [6, 12, NEWEST_OPSET + 1])
def test_opsets_are_only_raised_and_to_what_is_known(target: int) -> None:
    subject = model("g (float[2] x) => (float[2] y) { y = Neg(x) }", opset=13)
    with pytest.raises(ValueError, match="cannot raise opset 13"):
        upgrade_opset(subject, target)


# The model around --------------------------------------------------------------------------------------


def test_dynamic_shapes_flatten_and_reshape_back() -> None:
    subject = model("g (float[N, 3, M] x) => (float[] y) { y = Softmax<axis = 1>(x) }", opset=11)
    raised = subject.clone()
    upgrade_opset(raised, 13)
    for shape in ((2, 3, 4), (5, 3, 1), (1, 3, 7)):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        np.testing.assert_array_equal(run(raised, {"x": x})[0], run(subject, {"x": x})[0])


def test_unknown_ranks_flatten_and_reshape_back() -> None:
    text = "g (float[2, 6] x, int64[K] s) => (float[] y) { r = Reshape(x, s)  y = Softmax(r) }"
    subject = model(text, opset=12)
    raised = subject.clone()
    upgrade_opset(raised, 13)
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    for shape in ([3, 4], [2, 3, 2]):
        given = {"x": x, "s": np.array(shape)}
        np.testing.assert_array_equal(run(raised, given)[0], run(subject, given)[0])


def test_a_constant_that_may_be_fed_is_not_taken_for_granted() -> None:
    text = f"g ({BLOCK}, float[4] s) => (float[] y) {{ y = Resize(x, s) }}"
    message = proto(text, opset=10, ir_version=5, s=GROWING)
    message.graph.node[0].name = "n"
    subject = load_model_bytes(message.SerializeToString())
    upgrade_opset(subject, 13)
    given = {"x": np.arange(48, dtype=np.float32).reshape(1, 2, 6, 4), "s": MIXED}
    expected = run(message.SerializeToString(), given)
    np.testing.assert_array_equal(run(subject, given)[0], expected[0])


def test_float16_bounds_have_the_type_of_the_input() -> None:
    subject = model("g (float16[4] x) => (float16[] y) { y = Clip<min = -1.0, max = 3.0e38>(x) }", opset=10)
    upgrade_opset(subject, 13)
    assert {array.const_value.dtype.name for array in subject.ir.graph.initializers.values()} == {"FLOAT16"}
    found = run(subject, {"x": np.array([-2, 0, 60000, np.inf], np.float16)})
    assert found[0].tolist() == [-1, 0, 60000, np.inf]


def test_names_that_are_taken_are_not_given_again() -> None:
    text = """g (float[2, 3, 4] x) => (float[] y) {
        y_Reshape = Neg(x)  y_Shape = Abs(y_Reshape)  y = Softmax(y_Shape) }"""
    subject = model(text, opset=11)
    raised = subject.clone()
    upgrade_opset(raised, 13)
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(raised, {"x": x})[0], run(subject, {"x": x})[0])
    values = [value for node in raised.view().nodes for value in node.outputs]
    assert len(set(values)) == len(values)


def test_the_flattened_value_is_read_wherever_the_old_one_was() -> None:
    text = """g (float[2, 3, 4] x, bool c) => (float[] y, float[] s) {
        s = Softmax(x)  n = Neg(s)
        y = If <then_branch = t () => (float[] p) { p = Add(s, n) },
                else_branch = e () => (float[] q) { q = Mul(s, n) }> (c) }"""
    subject = model(text, opset=11)
    raised = subject.clone()
    upgrade_opset(raised, 13)
    given = {"x": np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32), "c": np.array(False)}
    for got, want in zip(run(raised, given), run(subject, given), strict=True):
        np.testing.assert_array_equal(got, want)


def test_ir_versions_rise_as_needed_and_never_fall() -> None:
    text = "g (float[2] x) => (float[2] y) { y = Squeeze(x) }"
    raised = {}
    for ir_version, target in ((3, 8), (3, 13), (9, 13), (8, 21), (8, 26), (3, 7)):
        subject = model(text, opset=7, ir_version=ir_version)
        upgrade_opset(subject, target)
        raised[ir_version, target] = subject.ir_version
    assert raised == {(3, 8): 4, (3, 13): 7, (9, 13): 9, (8, 21): 10, (8, 26): 13, (3, 7): 4}


def test_ir_versions_are_those_of_onnx() -> None:
    for row in onnx.helper.VERSION_TABLE:
        if row[2] >= 7:
            assert min_ir_version(row[2]) == max(row[1], 4)
    with pytest.raises(ValueError, match="no opset 99"):
        min_ir_version(99)


def test_other_domains_stay_as_they_are_and_unused_ones_go() -> None:
    message = proto("g (float[2] x) => (float[] y) { y = com.microsoft.Gelu(x) }", opset=11)
    message.opset_import.add(domain="ai.onnx.ml", version=1)
    message.graph.node[0].name = "n"
    subject = load_model_bytes(message.SerializeToString())
    upgrade_opset(subject, 13)
    assert subject.ir.opset_imports == {"": 13, "com.microsoft": 1}


def test_domains_that_only_bodies_use_stay() -> None:
    text = """g (bool c, float[2] x) => (float[] y) {
        y = If <then_branch = t () => (float[] p) { p = com.microsoft.Gelu(x) },
                else_branch = e () => (float[] q) { q = Neg(x) }> (c) }"""
    subject = model(text, opset=11)
    upgrade_opset(subject, 13)
    assert subject.ir.opset_imports == {"": 13, "com.microsoft": 1}


def test_a_model_of_other_domains_only_gets_ai_onnx() -> None:
    message = proto("g (float[2] x) => (float[] y) { y = com.microsoft.Gelu(x) }")
    message.graph.node[0].name = "n"
    del message.opset_import[0]
    subject = load_model_bytes(message.SerializeToString())
    upgrade_opset(subject, 13)
    assert subject.opset == 13


FUNCTION = """
<domain: "local", opset_import: ["" : 10]>
act <axis> (a) => (b) {{ b = {body} }}
"""


def with_function(body: str) -> onnx.ModelProto:
    header = '<ir_version: 8, opset_import: ["" : 10, "local" : 1]>\n'
    graph = "g (float[1, 3, 2] x) => (float[] y) { y = local.act<axis = 1>(x) }"
    message = onnx.parser.parse_model(header + graph + FUNCTION.format(body=body))
    message.graph.node[0].name = "n"
    return message


@pytest.mark.parametrize(
    "body", ["Squeeze<axes = [0]>(a)", "Softmax<axis = 1>(a)", "Pad<pads = [0,0,1,0,0,1]>(a)"]
)
def test_local_functions_are_raised_with_the_model(body: str) -> None:
    message = with_function(body)
    subject = load_model_bytes(message.SerializeToString())
    upgrade_opset(subject, 13)
    given = {"x": np.random.default_rng(0).normal(size=(1, 3, 2)).astype(np.float32)}
    np.testing.assert_array_equal(run(subject, given)[0], run(message.SerializeToString(), given)[0])
    assert subject.ir.opset_imports == {"": 13, "local": 1}


def test_attributes_from_the_call_of_a_function_are_not_guessed() -> None:
    subject = load_model_bytes(with_function("Softmax<axis: int = @axis>(a)").SerializeToString())
    with pytest.raises(UnsupportedModelError, match="'axis' comes from the call of a local function"):
        upgrade_opset(subject, 13)


def test_types_inside_functions_are_not_guessed() -> None:
    subject = load_model_bytes(with_function("Clip<min = 0.0>(a)").SerializeToString())
    with pytest.raises(UnsupportedModelError, match="element type of 'a' is not known"):
        upgrade_opset(subject, 13)


def test_large_external_weights_are_not_read(tmp_path: Path) -> None:
    text = "g (float[2, 64] x) => (float[] y) { a = MatMul(x, w)  y = Clip<min = 0.0>(a) }"
    save_model(
        model(text, opset=10, w=np.ones((64, 64), np.float32)),
        tmp_path / "m.onnx",
        external_threshold_bytes=100,
    )
    subject = load_model(tmp_path / "m.onnx")
    (tmp_path / "m.onnx.data").unlink()
    upgrade_opset(subject, 13)
    assert subject.opset == 13


def test_raising_to_what_a_model_has_changes_nothing() -> None:
    subject = model("g (float[2, 3, 4] x) => (float[] y) { y = Softmax<axis = 1>(x) }", opset=11)
    upgrade_opset(subject, 13)
    before = subject.to_bytes()
    upgrade_opset(subject, 13)
    assert subject.to_bytes() == before

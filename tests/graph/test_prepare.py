"""Preparation as a whole: what it leaves, what it promises, and that every model computes the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_text import model, proto, run
from test_backend_suite import MASKED_SCORES, RANDOM, check_equal, suite

from quantcli.errors import UnsupportedModelError
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.prepare import Prepared, prepare
from quantcli.runtime.session import Session, SessionSettings
from quantcli.runtime.versions import newest_quantized_opset, runnable_versions

RNG = np.random.default_rng(11)

NOT_RAISED = {
    "test_swish",  # onnxruntime 1.31.1 runs Swish in a model of opset 24, but not in one of 26
    "test_scan_sum",  # Scan of opset 8 works on batches; M210
}


def evaluate(data: bytes, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return Session(data, SessionSettings(optimization="disabled")).run(feeds)


def prepared(subject: onnx.ModelProto, target: int | None = None) -> Prepared:
    return prepare(load_model_bytes(subject.SerializeToString()), evaluate=evaluate, target_opset=target)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def old_model() -> onnx.ModelProto:
    """What exporters wrote years ago: initializers as inputs, Constants, nameless nodes, BatchNormalization."""
    subject = proto(
        """g (float[1,3,8,8] x, float[4,3,3,3] w, float[4] s, float[4] b, float[4] m, float[4] v)
        => (float[1,4,12,12] y, float[1,4,6,6] z) {
        [conv] c = Conv (x, w)
        [bn] n = BatchNormalization (c, s, b, m, v)
        [clip] r = Clip <min = 0.0, max = 1.0> (n)
        [drop] d = Dropout <ratio = 0.3> (r)
        up = Constant <value = float[4] {1, 1, 2, 2}> ()
        [up] u = Upsample <mode = "nearest"> (d, up)
        y = Identity (u)
        [unread] q = Neg (c)
        shape = Constant <value = int64[2] {4, 36}> ()
        t = Reshape (d, shape)
        back = Shape (c)
        z = Reshape (t, back)
        }""",
        opset=9,
        ir_version=3,
        w=normal(4, 3, 3, 3),
        s=RNG.uniform(0.5, 1, 4).astype(np.float32),
        b=normal(4),
        m=normal(4),
        v=RNG.uniform(0.5, 1, 4).astype(np.float32),
    )
    subject.opset_import.add(domain="ai.onnx.ml", version=1)
    return subject


@pytest.mark.parametrize("target", [None, 13, 21])
def test_an_old_model_computes_the_same_with_fewer_nodes(target: int | None) -> None:
    subject, x = old_model(), normal(1, 3, 8, 8)
    result = prepared(subject, target)
    assert result.model.opset == (target or 9)
    assert [node.op_type for node in result.model.view().nodes] == [
        "Conv",
        "Clip",
        "Resize" if target else "Upsample",
        "Reshape",
        "Reshape",
    ]
    # A sum of 27 products and one rounding of the weights: relative error below 30 · 2⁻²⁴, values below 4.
    for got, want in zip(run(result.model, {"x": x}), run(subject.SerializeToString(), {"x": x}), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=30 * 2.0**-24 * 4)


def test_the_nodes_of_the_user_keep_their_names_or_are_remembered() -> None:
    view = prepared(old_model(), 13).model.view()
    assert [node.name for node in view.nodes] == ["conv", "clip", "up", "Reshape_t", "Reshape_z"]
    remembered = {name for node in view.nodes for name in (node.name, *node.absorbed)}
    assert {"conv", "bn", "clip", "drop", "up", "Identity_y", "Shape_back"} <= remembered
    assert view.node_by_name["conv"].absorbed == ("bn",)
    assert (view.inputs, view.outputs) == (("x",), ("y", "z"))


def test_types_and_fixed_shapes_are_stated_afterwards() -> None:
    view = prepared(old_model(), 13).model.view()
    assert all(info.dtype == "float32" or info.is_constant for info in view.tensors.values())
    assert view.tensors["r"].shape == (1, 4, 6, 6)


def test_the_original_is_untouched_and_the_result_repeatable() -> None:
    original = load_model_bytes(old_model().SerializeToString())
    before = original.to_bytes()
    first = prepare(original, evaluate=evaluate, target_opset=13)
    second = prepare(original, evaluate=evaluate, target_opset=13)
    assert original.to_bytes() == before
    assert first.model.to_bytes() == second.model.to_bytes()


def test_preparing_twice_changes_nothing_more() -> None:
    once = prepared(old_model(), 13).model
    assert prepare(once, evaluate=evaluate, target_opset=13).model.to_bytes() == once.to_bytes()


def test_the_user_learns_of_inputs_and_nodes_that_are_gone() -> None:
    subject = old_model()
    subject.ir_version = 4
    notes = prepared(subject).notes
    assert any("5 inputs with default values" in note for note in notes)
    assert any("1 nodes contribute to no output" in note and "'unread'" in note for note in notes)


def test_shapes_that_become_fixed_by_folding_are_folded_too() -> None:
    subject = proto(
        """g (float[a, b] x) => (int64[N] y) {
        i = Add (k, k) t = Reshape (x, i) s = Shape (t) j = Mul (s, k) u = Reshape (x, j) y = Shape (u) }""",
        k=np.array([1, 2], np.int64),
    )
    view = prepared(subject).model.view()
    assert [node.op_type for node in view.nodes] == ["Reshape", "Shape"]
    assert view.constant("j").tolist() == [2, 8]


def test_a_dead_node_cannot_forbid_the_opset() -> None:
    text = "g (float[2,3] x) => (float[2,3] y) { y = Neg (x) z, mask = Dropout (x) m = Not (mask) }"
    assert prepared(proto(text, opset=10), 13).model.opset == 13


def test_constants_are_known_before_the_opset_is_raised() -> None:
    subject = proto(
        "g (float[1,1,4,4] x) => (float[1,1,H,W] y) { s = Div (one, k) y = Resize (x, s) }",
        opset=10,
        one=np.ones(4, np.float32),
        k=np.array([1, 1, 2, 2], np.float32),
    )
    result = prepared(subject, 13)
    assert [node.op_type for node in result.model.view().nodes] == ["Resize"]
    x = normal(1, 1, 4, 4)
    np.testing.assert_array_equal(run(result.model, {"x": x})[0], x[:, :, ::2, ::2])


def test_an_opset_that_cannot_be_raised_is_refused_with_the_node() -> None:
    subject = proto(
        "g (float[2,3] x) => (float[2,3] y, bool[2,3] m) { [drop] y, mask = Dropout (x) m = Not (mask) }", opset=10
    )
    with pytest.raises(UnsupportedModelError, match="'drop'") as refused:
        prepared(subject, 13)
    assert refused.value.code == "M210"
    assert prepared(subject).model.opset == 10


def test_what_bodies_capture_stays_valid() -> None:
    subject = proto(
        """g (float[2,3,4,4] x, bool c) => (float[2,5,2,2] y) {
        [conv] a = Conv (x, w) [scale] b = Mul (a, k) i = Identity (b) q = Add (k2, k2)
        y = If (c) < then_branch = t () => (float[2,5,2,2] p) { p = Add (i, q) },
                     else_branch = e () => (float[2,5,2,2] r) { r = Neg (b) } >
        }""",
        opset=11,
        w=normal(5, 3, 3, 3),
        k=normal(5, 1, 1),
        k2=np.float32(1),
    )
    result = prepared(subject, 13)
    assert [node.name for node in result.model.view().nodes] == ["conv", "If_y"]
    x = normal(2, 3, 4, 4)
    for flag in (True, False):
        feeds = {"x": x, "c": np.array(flag)}
        np.testing.assert_allclose(
            run(result.model, feeds)[0], run(subject.SerializeToString(), feeds)[0], rtol=0, atol=1e-5
        )


def test_local_functions_are_inlined() -> None:
    subject = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 15, "l" : 1]>
        g (float[2,3] x) => (float[2,3] y) { [call] y = l.f (x) }
        <domain: "l", opset_import: ["" : 15]> f (u) => (v) { [neg] t = Neg (u) i = Identity (t) v = Relu (i) }"""
    )
    view = prepared(subject).model.view()
    assert [node.name for node in view.nodes] == ["call/neg", "call/Relu"]
    assert "l" not in view.opsets


def test_an_empty_graph_of_inputs_and_outputs_survives() -> None:
    subject = model("g (float[2] x) => (float[2] y) { y = Identity (x) }")
    assert [n.op_type for n in prepare(subject, evaluate=evaluate).model.view().nodes] == ["Identity"]


# The ONNX backend suite ---------------------------------------------------------------------------------


def cases() -> Iterator[tuple[str, bytes, dict[str, np.ndarray]]]:
    """Models with their inputs; then with all or all but one of these as constants, for folding."""
    limits = runnable_versions()
    for name, data, case in suite():
        message = onnx.ModelProto.FromString(data)
        newest = max((entry.version for entry in message.opset_import if not entry.domain), default=0)
        old_enough = newest <= limits.max_opset and message.ir_version <= limits.max_ir
        random = not RANDOM.isdisjoint(node.op_type for node in message.graph.node)
        if case.data_sets is None or newest < limits.min_opset or not old_enough or random:
            continue
        names = [value.name for value in message.graph.input]
        feeds = dict(zip(names, case.data_sets[0][0], strict=False))
        yield name, data, feeds
        for kept in (0, 1):
            constants = [key for key, value in feeds.items() if isinstance(value, np.ndarray)][kept:]
            if constants:
                rest = {key: value for key, value in feeds.items() if key not in constants}
                yield name, with_constants(message, feeds, constants), rest


def with_constants(message: onnx.ModelProto, feeds: Mapping[str, np.ndarray], names: list[str]) -> bytes:
    changed = onnx.ModelProto.FromString(message.SerializeToString())
    for value in [value for value in changed.graph.input if value.name in names]:
        changed.graph.initializer.append(numpy_helper.from_array(feeds[value.name], value.name))
        changed.graph.input.remove(value)
    return changed.SerializeToString()


def check_suite(part: slice) -> int:
    """Number of models that compute the same after preparation, at their opset and at the newest."""
    same = 0
    for name, data, feeds in list(cases())[part]:
        try:
            expected = run(data, feeds)
        except Exception:  # noqa: BLE001 — an operator or a type that onnxruntime lacks
            continue
        subject = load_model_bytes(data)
        for target in (None, newest_quantized_opset()):
            if target and (name in NOT_RAISED or MASKED_SCORES in name):
                continue
            result = prepare(subject, evaluate=evaluate, target_opset=target)
            for got, want in zip(run(result.model, feeds), expected, strict=True):
                check_equal(got, want, f"{name} at opset {target}", other_kernel=True)
        same += 1
    return same


@pytest.mark.filterwarnings("ignore")  # making the cases overflows on purpose
def test_models_of_the_backend_suite_compute_the_same() -> None:
    assert check_suite(slice(None, None, 16)) > 150


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_models_of_the_backend_suite_compute_the_same() -> None:
    assert check_suite(slice(None)) > 2500

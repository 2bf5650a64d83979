from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model_bytes
from quantcli.graph.passes.remove_unused import remove_unused
from quantcli.runtime.session import Session, SessionSettings

X = np.array([1, -2], np.float32)


def model(text: str, *, opset: int = 17, **constants: np.ndarray) -> OnnxModel:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    for number, node in enumerate(proto.graph.node):
        node.name = node.name or f"n{number}"
    return load_model_bytes(proto.SerializeToString())


def run(subject: OnnxModel, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return list(Session(subject.to_bytes(), SessionSettings(optimization="disabled")).run(feeds).values())


def test_chains_and_constants_that_lead_nowhere_are_removed_and_told() -> None:
    subject = model(
        "g (float[2] x) => (float[2] y) { [a] a = Add (x, k) [b] b = Neg (a) [c] y = Abs (x) }",
        k=np.ones(2, np.float32),
        unread=np.ones(2, np.float32),
    )
    notes = remove_unused(subject.ir)
    assert [node.name for node in subject.ir.graph] == ["c"]
    assert not subject.ir.graph.initializers
    assert notes == ("2 nodes contribute to no output and were removed (first: 'a')",)


def test_nothing_to_remove_is_nothing_to_tell() -> None:
    subject = model("g (float[2] x) => (float[2] y) { y = Abs (x) }")
    assert remove_unused(subject.ir) == ()


def test_inputs_outputs_and_constants_that_are_outputs_stay() -> None:
    subject = model(
        "g (float[2] x, float[2] other) => (float[2] y, float[2] k) { y = Abs (x) }", k=np.ones(2, np.float32)
    )
    remove_unused(subject.ir)
    view = subject.view()
    assert (view.inputs, view.outputs) == (("x", "other"), ("y", "k"))
    assert view.is_constant("k")


BRANCHES = (
    "< then_branch = t () => (float[2] p) { p = Abs (a) }, else_branch = e () => (float[2] q) { q = Exp (a) } >"
)


def test_what_only_a_body_reads_stays() -> None:
    subject = model(f"g (float[2] x, bool c) => (float[2] y) {{ a = Neg (x) y = If (c) {BRANCHES} }}")
    remove_unused(subject.ir)
    np.testing.assert_array_equal(run(subject, {"x": X, "c": np.array(True)})[0], np.abs(X))


def test_what_only_the_body_of_a_removed_node_reads_goes_with_it() -> None:
    subject = model(f"g (float[2] x, bool c) => (float[2] y) {{ a = Neg (x) z = If (c) {BRANCHES} y = Exp (x) }}")
    remove_unused(subject.ir)
    assert [node.op_type for node in subject.ir.graph] == ["Exp"]


def test_outputs_that_nobody_reads_stay_listed() -> None:
    subject = model(
        "g (float[2,3] x) => (float[2,3] y) { y, m, v, sm, sv = BatchNormalization (x, s, s, s, s) }",
        opset=9,
        s=np.ones(3, np.float32),
    )
    expected = run(subject, {"x": np.float32([[1, 2, 3], [4, 5, 6]])})
    remove_unused(subject.ir)
    np.testing.assert_array_equal(run(subject, {"x": np.float32([[1, 2, 3], [4, 5, 6]])}), expected)
    assert [output.name for output in next(iter(subject.ir.graph)).outputs] == ["y", "m", "v", "sm", "sv"]

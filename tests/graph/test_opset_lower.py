"""Lowering the opset: what has not changed is the same, anything else is named."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import defs
from onnx_text import model, run

from quantcli.graph.opset import NEWEST_OPSET
from quantcli.graph.opset_lower import OLDEST_LOWERED, cannot_be_lowered, lower_opset

CHANGED_MEANING = {"BitShift", "Mod"}


def test_a_lowered_model_computes_the_same() -> None:
    text = """g (float[1, 4, 2, 2] x) => (float[] y) {
        s = DepthToSpace<blocksize = 2>(x)  n = Cast<to = 1>(s)  y = ReduceLogSumExp<keepdims = 0>(n) }"""
    subject = model(text, opset=28)
    given = {"x": np.arange(16, dtype=np.float32).reshape(1, 4, 2, 2) / 8}
    expected = run(subject, given)
    lower_opset(subject, 27)
    assert subject.opset == 27
    np.testing.assert_allclose(run(subject, given)[0], expected[0], rtol=2.0**-22)


def test_bodies_are_looked_through() -> None:
    text = """g (float[4] x, bool c) => (float[] y) {
        y = If <then_branch = t () => (float[] p) { p = SwiGLU(x) },
                else_branch = e () => (float[] q) { q = Neg(x) }> (c) }"""
    assert "SwiGLU" in cannot_be_lowered(model(text, opset=28), 27)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g (float[1, 1, 2, 2] x) => (float[] y) { y = SpaceToDepth<blocksize = 2, mode = \"CRD\">(x) }", "mode"),
        ("g (bfloat16[2, 3] x) => (bfloat16[] y) { y = Einsum<equation = \"ij->ji\">(x) }", "bfloat16"),
        ("g (float[2] x) => (float[] y) { y = Mod(x, x) }", "divides floats"),
        ("g (uint8[2] x) => (uint8[] y) { y = BitShift<direction = \"LEFT\">(x, x) }", "shift by more bits"),
    ],
)  # fmt: skip
def test_what_the_older_opset_lacks_is_named(text: str, reason: str) -> None:
    subject = model(text, opset=28)
    assert reason in cannot_be_lowered(subject, 27)
    with pytest.raises(ValueError, match="node"):
        lower_opset(subject, 27)
    assert subject.opset == 28


def test_older_opsets_than_were_looked_through_are_left() -> None:
    subject = model("g (float[2] x) => (float[2] y) { y = Neg(x) }", opset=26)
    assert "at most" in cannot_be_lowered(subject, OLDEST_LOWERED - 1)


def test_the_changes_only_add_to_the_schemas() -> None:
    """A new change of another kind has to be looked at before it may be lowered."""
    for schema in defs.get_all_schemas():
        if schema.domain or not OLDEST_LOWERED < schema.since_version <= NEWEST_OPSET:
            continue
        try:
            old = defs.get_schema(schema.name, OLDEST_LOWERED, "")
        except defs.SchemaError:
            continue
        assert set(old.attributes) <= set(schema.attributes), schema.name
        assert [parameter.name for parameter in old.inputs] == [parameter.name for parameter in schema.inputs]

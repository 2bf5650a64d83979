"""Pieces of a graph compute what the graph computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_graphs import graph

from quantcli.graph.extract import Extractor
from quantcli.runtime.session import Session, SessionSettings

PLAIN = SessionSettings(optimization="disabled")


def run(model, feeds, names=None):
    return Session(model.to_bytes(), PLAIN).run(feeds, names)


@pytest.fixture
def chain():
    rng = np.random.default_rng(0)
    return graph(
        """g (float[1,2,5,5] x) => (float[1,3,5,5] y) {
        a = Conv (x, w) b = Relu (a) c = Add (b, b) y = Sub (c, a) }""",
        w=rng.normal(size=(3, 2, 1, 1)).astype(np.float32),
    )


def test_a_piece_computes_its_part(chain):
    x = np.random.default_rng(1).normal(size=(1, 2, 5, 5)).astype(np.float32)
    piece = Extractor(chain).piece(["n1", "n2"], ["c"])
    a = Extractor(chain).piece(["n0"], ["a"])
    assert (piece.inputs, piece.outputs, a.inputs) == (("a",), ("c",), ("x",))
    value = run(a.model, {"x": x})["a"]
    rest = Extractor(chain).piece(["n3"], ["y"])
    c = run(piece.model, {"a": value})["c"]
    np.testing.assert_array_equal(run(rest.model, {"a": value, "c": c})["y"], run(chain, {"x": x})["y"])


def test_one_value_is_fed_twice_where_its_readings_are_told_apart(chain):
    piece = Extractor(chain).piece(["n2"], ["c"], [("n2", 1)])
    one, two = (np.full((1, 3, 5, 5), value, np.float32) for value in (1, 2))
    assert piece.inputs == ("b",)
    found = run(piece.model, {"b": one, piece.redirected["n2", 1]: two})["c"]
    assert (found == 3).all()


def test_a_constant_is_fed_where_its_reading_is_redirected(chain):
    piece = Extractor(chain).piece(["n0"], ["a"], [("n0", 1)])
    x = np.ones((1, 2, 5, 5), np.float32)
    weight = np.full((3, 2, 1, 1), 0.5, np.float32)
    assert (run(piece.model, {"x": x, piece.redirected["n0", 1]: weight})["a"] == 1).all()


def test_an_absent_input_is_added(chain):
    piece = Extractor(chain).piece(["n0"], ["a"], [("n0", 2)])
    x = np.zeros((1, 2, 5, 5), np.float32)
    found = run(piece.model, {"x": x, piece.redirected["n0", 2]: np.array([1, 2, 3], np.float32)})["a"]
    assert [found[0, channel].min() for channel in range(3)] == [1, 2, 3]


def test_what_bodies_capture_is_fed():
    model = graph(
        """g (bool c, float[2] x) => (float[2] y) {
        a = Add (x, x)
        y = If (c) <then_branch = t () => (float[2] p) { p = Mul (a, k) },
                    else_branch = e () => (float[2] q) { q = Sub (a, x) }> }""",
        k=np.array([3, 4], np.float32),
    )
    piece = Extractor(model).piece(["n1"], ["y"])
    assert set(piece.inputs) == {"c", "a", "x"}
    a, x = np.array([1, 2], np.float32), np.array([1, 1], np.float32)
    assert run(piece.model, {"c": np.array(True), "a": a, "x": x})["y"].tolist() == [3, 8]
    assert run(piece.model, {"c": np.array(False), "a": a, "x": x})["y"].tolist() == [0, 1]


def test_the_model_is_left_as_it_is(chain):
    before = chain.to_bytes()
    Extractor(chain).piece(["n0", "n1"], ["b"], [("n0", 1), ("n0", 2)])
    assert chain.to_bytes() == before


def test_an_output_that_no_node_makes_is_refused(chain):
    with pytest.raises(ValueError, match="none of the nodes makes 'y'"):
        Extractor(chain).piece(["n0"], ["y"])


def test_local_models_of_the_repository_can_be_cut_at_every_node():
    from quantcli.pipeline.source import load_float_model

    path = Path(__file__).resolve().parents[2] / "sample_models" / "digits_transformer.onnx"
    source = load_float_model(path, "ort-cpu")
    extractor = Extractor(source.prepared)
    for node in source.view.nodes:
        made = [name for name in node.outputs if name]
        Session(extractor.piece([node.name], made).model.to_bytes(), PLAIN)

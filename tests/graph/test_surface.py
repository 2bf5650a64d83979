"""Values of bodies in the main graph. Oracle: the recurrences computed in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from body_models import IF, LOOP, NESTED, SCAN, named
from onnx_text import run

from quantcli.graph.model import OnnxModel
from quantcli.graph.observe import expose
from quantcli.graph.shapes import infer_shapes
from quantcli.graph.surface import MOST, STRIDE, surface

X = np.array([[1.0, -2.0, 3.0, -4.0]], np.float32)
Feeds = dict[str, np.ndarray]


def seen(model: OnnxModel, feeds: Feeds, *names: str) -> list[np.ndarray]:
    """What becomes of the values ``names``; the outputs of the model must stay the same."""
    infer_shapes(model)
    exposed = expose(surface(model, names), names)
    found = run(exposed, feeds)
    for before, after in zip(run(model, feeds), found, strict=False):
        np.testing.assert_array_equal(before, after)
    return found[-len(names) :]


def loop(times: int) -> Feeds:
    return {"n": np.array(times), "go": np.array(True), "x": X}


def samples(value: np.ndarray) -> list[float]:
    return value[::STRIDE].tolist()


def extremes(value: np.ndarray) -> tuple[float, float]:
    return float(value.min()), float(value.max())


def test_a_value_of_the_branch_that_ran_is_seen_element_by_element() -> None:
    taken, other = seen(named(IF), {"c": np.array(True), "x": X}, "p", "p_1")
    assert samples(taken) == [1, 0, 3, 0]
    assert extremes(taken) == (0, 3)
    assert other.size == 0


def test_the_other_branch_is_seen_when_that_runs() -> None:
    taken, other = seen(named(IF), {"c": np.array(False), "x": X}, "p", "p_1")
    assert taken.size == 0
    assert samples(other) == X[0].tolist()


def test_all_iterations_of_a_loop_are_seen() -> None:
    state, result = seen(named(LOOP), loop(3), "state", "out")
    assert extremes(state) == (-4, 3)  # the first state is x itself, the later ones are not negative
    assert extremes(result) == (-3, 0)
    assert len(samples(state)) == MOST
    share = float(np.mean(np.array(samples(state)) == -4))
    assert share == pytest.approx(1 / 12, abs=0.01)  # one of 3 · 4 elements; the samples are spread evenly


def test_a_loop_that_does_not_run_shows_nothing() -> None:
    assert [value.size for value in seen(named(LOOP), loop(0), "state", "out")] == [0, 0]


def test_inputs_and_values_of_a_scan_are_seen() -> None:
    piece, total = seen(named(SCAN), {"first": X, "x": np.stack([X, 2 * X])}, "slice", "s")
    assert extremes(piece) == (-8, 6)
    assert extremes(total) == (-8, 12)  # x + first, and 2·x + relu(x + first)


@pytest.mark.parametrize(("times", "sizes"), [(0, (False, False)), (1, (False, True)), (2, (True, True))])
def test_a_branch_in_a_loop_is_seen_in_the_iterations_that_take_it(times: int, sizes: tuple[bool, bool]) -> None:
    model = named(NESTED)
    odd = next(node.outputs[0].name for node in model.ir.graph.all_nodes() if node.name == "lin1")
    assert tuple(value.size > 0 for value in seen(model, loop(times), str(odd), "b")) == sizes


def test_a_nan_is_seen_even_where_the_samples_miss_it() -> None:
    text = IF.replace("[1,4]", "[1,N]").replace("p = MatMul(h, w)", "p = Sqrt(x)")
    model = named(text, w=np.eye(1500, dtype=np.float32))
    x = np.ones((1, 1500), np.float32)
    for index in range(0, 1500, 777):
        x[0, index] = -1
        (value,) = seen(model, {"c": np.array(True), "x": x}, "p")
        assert np.isnan(value).any()
        x[0, index] = 1
    (value,) = seen(model, {"c": np.array(True), "x": x}, "p")
    assert not np.isnan(value).any()


def test_values_of_other_types_become_float32() -> None:
    model = named(
        """g (bool c, float16[2] x) => (float16[2] y) {
            [choice] y = If (c) <
                then_branch = t () => (float16[2] a) { [one] p = Neg(x) [two] a = Neg(p) },
                else_branch = e () => (float16[2] b) { [three] b = Abs(x) }
            >
        }"""
    )
    (value,) = seen(model, {"c": np.array(True), "x": np.array([1, 2], np.float16)}, "p")
    assert value.dtype == np.float32
    assert samples(value) == [-1, -2]


def test_values_of_the_main_graph_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no value 'h' in a body"):
        surface(named(IF), ["h"])

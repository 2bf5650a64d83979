"""The order of float tensors and the search along it, on networks that are nothing but numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantcli.algorithms.fallback import Outline, first_reached, greedy_order, without_superfluous
from quantcli.algorithms.sensitivity import Sensitivity


def chain(noises: list[float], weights: float = 0.0):
    """A chain of layers l1 … between tensors t0, t1, …: a float tensor makes float layers of its neighbours."""
    names = [f"t{i}" for i in range(len(noises))]
    layers = frozenset(f"l{i}" for i in range(1, len(noises)))

    def outline(floats: frozenset[str]) -> Outline:
        numbers = {int(name[1:]) for name in floats}
        lost = {f"l{j}" for i in numbers for j in (i, i + 1)}
        left = layers - lost
        return Outline(groups=tuple(name for name in names if name not in floats), nodes=left, layers=left)

    sensitivity = Sensitivity(
        outputs=("y",),
        tensors={name: (noise,) for name, noise in zip(names, noises, strict=True)},
        weights=(weights,),
    )
    return sensitivity, outline


def never(_: object) -> bool:
    return False


def test_the_greatest_benefit_for_its_cost_comes_first():
    sensitivity, outline = chain([0.0, 5.0, 0.0, 0.0, 4.0, 0.0, 0.0, 3.0, 0.0])
    even = greedy_order(sensitivity, outline, {f"l{i}": 1.0 for i in range(9)}, never)
    assert even[-1].tensors == ("t1", "t4", "t7")
    dear = greedy_order(sensitivity, outline, {f"l{i}": 10.0 if i in (1, 2) else 1.0 for i in range(9)}, never)
    assert dear[-1].tensors == ("t4", "t7", "t1")


def test_a_layer_is_paid_for_once():
    """t1 and t2 share l2: with t1 in float, t2 costs one layer only and overtakes t4, which makes more noise."""
    sensitivity, outline = chain([0.0, 9.0, 3.0, 0.0, 5.0, 0.0])
    steps = greedy_order(sensitivity, outline, {f"l{i}": 1.0 for i in range(1, 6)}, never)
    assert steps[-1].tensors == ("t1", "t2", "t4")
    assert [step.float_layers for step in steps] == [0, 2, 3, 5]
    assert [step.cost for step in steps] == [0, 2, 3, 5]


def test_nodes_that_are_faster_in_float_come_first():
    sensitivity, outline = chain([0.0, 9.0, 0.0, 0.0, 1.0, 0.0])
    steps = greedy_order(sensitivity, outline, {"l1": 1.0, "l2": 1.0, "l4": -1.0, "l5": 0.5}, never)
    assert steps[-1].tensors == ("t4", "t1")


def test_the_noise_is_what_is_left():
    sensitivity, outline = chain([1.0, 2.0, 4.0], weights=0.5)
    steps = greedy_order(sensitivity, outline, {}, lambda noise: noise[0] <= 3.5)
    assert [step.noise for step in steps] == [(7.5,), (3.5,)]


def test_the_worst_output_decides():
    _, outline = chain([0.0, 0.0, 0.0, 0.0, 0.0])
    sensitivity = Sensitivity(outputs=("y", "z"), tensors={"t1": (5.0, 0.0), "t3": (0.0, 6.0)}, weights=(0.0, 0.0))
    steps = greedy_order(sensitivity, outline, {}, never)
    assert steps[-1].tensors == ("t3", "t1")


def test_tensors_without_noise_are_never_taken():
    sensitivity, outline = chain([0.0, 0.0, 1.0])
    assert greedy_order(sensitivity, outline, {}, never)[-1].tensors == ("t2",)


@given(st.integers(1, 200), st.data())
def test_the_first_position_is_found_whatever_was_guessed(count: int, data: st.DataObject):
    first = data.draw(st.integers(0, count))
    guess = data.draw(st.integers(0, count))
    asked: list[int] = []

    def reached(position: int) -> bool:
        asked.append(position)
        return position >= first

    found = first_reached(count, guess, reached)
    assert found == (first if first < count else None)
    assert len(asked) == len(set(asked))
    distance = abs(min(first, count - 1) - min(max(guess, 1), count - 1)) + 1
    assert len(asked) <= 3 + 2 * math.ceil(math.log2(distance + 1))


def test_what_is_not_needed_is_taken_back_the_dearest_first():
    prices = {"a": 1.0, "b": 3.0, "c": 3.0, "d": 2.0}
    asked: list[frozenset[str]] = []

    def reached(tensors: frozenset[str]) -> bool:
        asked.append(tensors)
        return {"a", "c"} <= tensors

    assert without_superfluous("abcd", prices.__getitem__, lambda _: True, reached) == ("a", "c")
    assert asked[0] == frozenset("acd")


def test_hopeless_sets_are_not_run():
    kept = without_superfluous("ab", lambda _: 1.0, lambda _: False, lambda _: pytest.fail("a real run"))
    assert kept == ("a", "b")

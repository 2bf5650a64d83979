"""Which tensors to leave in float: the order of greatest benefit for the least time, and a search along it.

A tensor t that is left in float makes float layers of those that read or make it. With D(F) the nodes that are
integer kernels without float tensors and float ones with F, and c_n the time that node n costs more in float,

    benefit of t = N(F) − N(F ∪ t)       at the output that is worst so far,
    cost of t    = Σ c_n over D(F ∪ t) ∖ D(F),

tensors are taken in the order of benefit / cost (the greedy algorithm for a covering problem with additive
gains). Where a node is *faster* in float, or is in float already, the cost is (nearly) nothing, so that its
tensors come first.

The prediction says where along the order the target lies; then real runs decide: gallop from there, bisect,
and at last take tensors back whose noise the target can bear (the order is greedy, so some early one may have
become superfluous). Nothing here knows of models: plans and measurements are callables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quantcli.algorithms.sensitivity import Noise, Sensitivity

_SMALLEST_SHARE = 1e-3
"""A tensor costs at least so much of the mean cost of a node: nothing is free when it is timed."""

MOST_TAKEN_BACK = 8
"""Real runs that are spent on taking tensors back; each of them is a whole conversion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What is quantized with some tensors in float.

    Attributes:
        groups: Sharing groups with Q/DQ, in order of production.
        nodes: Nodes that are integer kernels.
        layers: Those of them with a weight.
    """

    groups: tuple[str, ...]
    nodes: frozenset[str]
    layers: frozenset[str]


Outliner = Callable[[frozenset[str]], Outline]
"""Float tensors → outline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A position in the order.

    Attributes:
        tensors: Tensors in float, in the order in which they were taken.
        noise: Predicted noise of each output, without the constant.
        float_layers: Layers that the float tensors make float.
        cost: Σ c_n over the nodes that they make float.
    """

    tensors: tuple[str, ...]
    noise: Noise
    float_layers: int
    cost: float


def greedy_order(
    sensitivity: Sensitivity,
    outline: Outliner,
    costs: Mapping[str, float],
    enough: Callable[[Noise], bool],
) -> tuple[Step, ...]:
    """Positions from no float tensors to as many as are ``enough``, or all.

    Args:
        sensitivity: Measured noises.
        outline: Gives the outline of any set; a cheap one is called once or twice for each tensor.
        costs: Node → c_n, in any unit; 0 for those that are missing.
        enough: Whether the order may end at this predicted noise.
    """
    whole = outline(frozenset())
    alone = {group: outline(frozenset({group})) for group in whole.groups}
    floor = _SMALLEST_SHARE * sum(map(abs, costs.values())) / max(len(costs), 1)
    steps = [_step((), whole, whole, sensitivity, costs)]
    current = whole
    while not enough(steps[-1].noise):
        taken = steps[-1].tensors
        worst = max(range(len(steps[-1].noise)), key=steps[-1].noise.__getitem__)
        ranked = [
            (_gain(alone[group], current, sensitivity)[worst] / _price(alone[group], current, costs, floor), group)
            for group in current.groups
            if group in alone
        ]
        if not ranked:
            break
        best, group = max(ranked, key=lambda item: item[0])
        if best <= 0:
            break
        current = outline(frozenset({*taken, group}))
        steps.append(_step((*taken, group), whole, current, sensitivity, costs))
    return tuple(steps)


def _gain(alone: Outline, current: Outline, sensitivity: Sensitivity) -> Noise:
    """Noise that goes with what is quantized now and is not with one tensor in float."""
    kept = set(alone.groups)
    lost = [sensitivity.tensors[g] for g in current.groups if g not in kept and g in sensitivity.tensors]
    before = sensitivity.weights_of(current.nodes)
    after = sensitivity.weights_of(current.nodes & alone.nodes)
    weights = tuple(a - b for a, b in zip(before, after, strict=True))
    return tuple(sum(part) for part in zip(weights, *lost, strict=True))


def _price(alone: Outline, current: Outline, costs: Mapping[str, float], floor: float) -> float:
    return max(floor, sum(costs.get(node, 0.0) for node in sorted(current.nodes - alone.nodes))) or 1.0


def _step(
    tensors: tuple[str, ...],
    whole: Outline,
    now: Outline,
    sensitivity: Sensitivity,
    costs: Mapping[str, float],
) -> Step:
    return Step(
        tensors=tensors,
        noise=sensitivity.noise(now.groups, now.nodes),
        float_layers=len(whole.layers - now.layers),
        cost=sum(costs.get(node, 0.0) for node in sorted(whole.nodes - now.nodes)),
    )


def first_reached(count: int, guess: int, reached: Callable[[int], bool]) -> int | None:
    """Smallest position of 0 … count − 1 that is reached, supposing that all behind it are, too.

    Gallops from ``guess`` with steps of 1, 2, 4, … and then bisects: 2 + 2·log2(distance of the guess) runs at
    most, and position 0 first, which is needed anyway.
    """
    if reached(0):
        return 0
    low, high = 0, count  # ``low`` fails; ``high`` is reached, or the end
    position, stride = min(max(guess, 1), count - 1), 1
    while low < position < high:
        if reached(position):
            high = position
            position -= stride
        else:
            low = position
            position = min(position + stride, count - 1)
        stride *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high if high < count else None


def without_superfluous(
    tensors: Sequence[str],
    price: Callable[[str], float],
    hopeful: Callable[[frozenset[str]], bool],
    reached: Callable[[frozenset[str]], bool],
    most: int = MOST_TAKEN_BACK,
) -> tuple[str, ...]:
    """The tensors that are really needed, in their order.

    Args:
        tensors: Float tensors with which the target is reached.
        price: What one of them costs; the dearest are taken back first.
        hopeful: Whether a set is worth a real run.
        reached: Whether the target is reached with a set.
        most: Real runs to spend on it.
    """
    kept = list(tensors)
    runs = 0
    for name in sorted(tensors, key=lambda name: (-price(name), tensors.index(name))):
        fewer = frozenset(kept) - {name}
        if runs == most or not hopeful(fewer):
            continue
        runs += 1
        if reached(fewer):
            kept.remove(name)
    return tuple(kept)

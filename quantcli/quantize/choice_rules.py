"""Nodes that stay in float because a choice says so: the structures that the choices are about.

A *layer* is a node with a weight (Conv, ConvTranspose, Gemm, MatMul). A *gate* is Mul(x, Sigmoid(·)). A
*squeeze-excite branch* is what leads from a mean over the map of x to the Mul that scales x with it:

    Mul(x, g(pool(x))),  g any chain of nodes that reads nothing else but constants
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from quantcli.graph.view import GraphView
from quantcli.ops.reasons import Reason
from quantcli.quantize.choices import Choices
from quantcli.quantize.stem import is_first

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_POOLS = {"GlobalAveragePool", "MaxPool"}
_MEANS = {"GlobalAveragePool", "ReduceMean", "AveragePool"}

_LONGEST_BRANCH = 12
"""Nodes of a squeeze-excite branch at most; the usual one has five to seven."""


def chosen_float(view: GraphView, choices: Choices) -> dict[str, Reason]:
    """Node → reason, for the nodes that ``choices`` leaves in float."""
    if choices.whole == "float":
        return {node.name: _reason("no integer form of the model was faster") for node in view.nodes}
    found: dict[str, Reason] = {}
    for name, (sentence, nodes) in _STRUCTURES.items():
        if getattr(choices, name) == "float":
            found |= {node: _reason(sentence) for node in nodes(view)}
    return found


def _reason(sentence: str) -> Reason:
    return Reason(code="F209", sentence=sentence)


def _operators(*names: str) -> Callable[[GraphView], Iterator[str]]:
    def select(view: GraphView) -> Iterator[str]:
        return (node.name for node in view.nodes if node.op in names)

    return select


def _first_convolutions(view: GraphView) -> Iterator[str]:
    return (node.name for node in view.nodes if node.op == "Conv" and is_first(view, node))


def _gates(view: GraphView) -> Iterator[str]:
    for node in view.nodes:
        makers = [view.producer(name) for name in node.inputs] if node.op == "Mul" else []
        if node.op == "Sigmoid" or any(maker is not None and maker.op == "Sigmoid" for maker in makers):
            yield node.name


def _residuals(view: GraphView) -> Iterator[str]:
    for node in view.nodes:
        if node.op == "Add" and not any(view.is_constant(name) for name in node.inputs):
            yield node.name


def _last_layers(view: GraphView) -> Iterator[str]:
    """Layers with a constant weight that no other such layer reads from, directly or through other nodes."""
    leading: set[str] = set()  # values from which a layer is reached
    for node in reversed(view.nodes):
        layer = node.op in _LAYERS and any(view.is_constant(name) for name in node.inputs[:2])
        leads = any(name in leading for name in node.outputs)
        if layer or leads:
            leading.update(name for name in (*node.inputs, *node.captures) if name)
        if layer and not leads:
            yield node.name


def _squeeze_excite(view: GraphView) -> Iterator[str]:
    for node in view.nodes:
        if node.op != "Mul" or any(view.is_constant(name) for name in node.inputs):
            continue
        for source, gate in (node.inputs, node.inputs[::-1]):
            branch = _branch(view, source, gate)
            if branch:
                yield from (*sorted(branch), node.name)


def _branch(view: GraphView, source: str, gate: str) -> set[str]:
    """Nodes between a mean over ``source`` and ``gate``; none where that is not all that ``gate`` depends on."""
    found: set[str] = set()
    stack = [gate]
    while stack:
        name = stack.pop()
        node = view.producer(name)
        if node is None or name == source or len(found) > _LONGEST_BRANCH:
            return set()
        if node.name in found:
            continue
        found.add(node.name)
        if node.op not in _MEANS or node.inputs[0] != source:
            stack.extend(other for other in node.inputs if other and not view.is_constant(other))
    return found


_STRUCTURES: Mapping[str, tuple[str, Callable[[GraphView], Iterable[str]]]] = {
    "stem": ("the first convolution is to stay in float", _first_convolutions),
    "concat": ("Concat is to stay in float", _operators("Concat")),
    "pools": ("pools are to stay in float", _operators(*sorted(_POOLS))),
    "gates": ("Sigmoid and the Mul behind it are to stay in float", _gates),
    "squeeze_excite": ("squeeze-excite blocks are to stay in float", _squeeze_excite),
    "residual": ("the sum of two activations is to stay in float", _residuals),
    "last_layer": ("the last layer is to stay in float", _last_layers),
}
"""Choice → what the reason says, and the nodes it means."""

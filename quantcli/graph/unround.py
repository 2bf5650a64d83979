"""A quantized model with parts of its rounding taken back.

Both edits work on a model in its float form (``graph.float_form``):

* without the rounding of activations: QuantizeLinear and DequantizeLinear of anything but constants become
  Identity, so that the values themselves go through, also through what moves integers between the two;
  DynamicQuantizeLinear gives its input with scale 1 and zero point 0. A limit of the integers (of their type, or
  of the Clip behind their quantizer) stays where it stands for an operator: quantizers leave out a Relu or Clip
  whose limits are those of the integers.
* with other weights: constants in the place of what given inputs of nodes read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.graph.view import GraphView, NodeInfo

_QUANTIZE = frozenset({"QuantizeLinear", "com.microsoft.QuantizeLinear"})
_DEQUANTIZE = frozenset({"DequantizeLinear", "com.microsoft.DequantizeLinear"})
_DYNAMIC = "DynamicQuantizeLinear"


def without_activation_rounding(model: OnnxModel, limits: Sequence[float] = ()) -> OnnxModel:
    """A copy of ``model`` whose activations are not rounded.

    What is quantized for an output of the graph stays so: the output's type is part of the interface.

    Args:
        model: In its float form; not changed.
        limits: Bounds of the original's Clip operators. An end of the integers' range that is within a step of one
            of them, or of zero at the lower end, goes on limiting the values.
    """
    copy = model.clone()
    view = copy.view()
    editor = GraphEditor(copy)
    integers = _rounded(view)
    for node in view.nodes:
        if node.op == _DYNAMIC and node.outputs[0] in integers:
            _pass_dynamic(editor, node)
        elif node.op in _QUANTIZE and node.outputs[0] in integers:
            _pass_static(editor, view, node, limits)
        elif (node.op in _DEQUANTIZE or _narrows(view, node)) and node.input(0) in integers:
            editor.replace_node(node.name, "Identity", [node.input(0)])
        elif node.op == "Pad" and node.input(0) in integers and node.input(2):
            editor.set_input(node.name, 2, editor.add_initializer(f"{node.name}_zero", np.zeros((), np.float32)))
    for name in sorted(integers):
        editor.set_value_type(name, "float32")
    editor.finish()
    return copy


def with_constants(model: OnnxModel, constants: Mapping[tuple[str, int], np.ndarray]) -> OnnxModel:
    """A copy of ``model`` in which node inputs (name, index) read these float32 arrays."""
    copy = model.clone()
    view = copy.view()
    editor = GraphEditor(copy)
    for (node, index), array in sorted(constants.items()):
        name = editor.add_initializer(f"{node}_{index}_original", np.ascontiguousarray(array, dtype=np.float32))
        editor.set_input(node, index, name)
        if view.node_by_name[node].op == "Gather":  # rows of a table that held integers
            editor.set_value_type(view.node_by_name[node].outputs[0], "float32")
    editor.finish()
    return copy


def _rounded(view: GraphView) -> frozenset[str]:
    """Integer values that come from activations and lead to DequantizeLinear only."""
    fixed: set[str] = set()
    found: set[str] = set()
    for node in view.nodes:
        first = node.input(0)
        if node.op in _DEQUANTIZE:
            continue
        if node.op in _QUANTIZE or node.op == _DYNAMIC:
            if not _constant(view, first):
                found.add(node.outputs[0])
            else:
                fixed.add(node.outputs[0])
        elif any(name in found for name in node.inputs) and _moves(view, node):
            found.update(name for name in node.outputs if name)
    return frozenset(found - _needed(view, found))


def _constant(view: GraphView, name: str) -> bool:
    return view.is_constant(name)


def _moves(view: GraphView, node: NodeInfo) -> bool:
    """Whether ``node`` passes integers on as integers (a Shape, say, does not)."""
    kept = view.tensors[node.outputs[0]].dtype if node.outputs[0] in view.tensors else None
    return node.op not in ("Shape", "Size", "Cast", "ArgMax", "ArgMin", "NonZero") and kept in (
        None, "uint8", "int8", "uint16", "int16",
    )  # fmt: skip


def _narrows(view: GraphView, node: NodeInfo) -> bool:
    """Whether ``node`` clips what a quantizer gives."""
    maker = view.producer(node.input(0))
    return node.op == "Clip" and maker is not None and maker.op in _QUANTIZE


def _needed(view: GraphView, found: set[str]) -> set[str]:
    """Those of ``found`` that lead to an output of the graph as integers, and all on the way there."""
    needed = {name for name in found if view.tensors[name].is_output}
    for node in reversed(view.nodes):
        if node.op in _DEQUANTIZE or node.op in _QUANTIZE or node.op == _DYNAMIC:
            continue
        if any(name in needed for name in node.outputs):
            needed.update(name for name in node.inputs if name in found)
    return needed


def _pass_static(editor: GraphEditor, view: GraphView, node: NodeInfo, limits: Sequence[float]) -> None:
    """Identity, or Max and Min, in the place of a QuantizeLinear."""
    ends = _ends(view, node, limits)
    value, result = node.input(0), node.outputs[0]
    steps = [(op, end) for op, end in zip(("Max", "Min"), ends, strict=True) if end is not None]
    if not steps:
        editor.replace_node(node.name, "Identity", [value])
        return
    editor.remove_node(node.name)
    for index, (op, end) in enumerate(steps):
        last = index == len(steps) - 1
        bound = editor.add_initializer(f"{node.name}_{op}_bound", np.full((), end, dtype=np.float32))
        output = result if last else editor.new_value_name(f"{result}_{op}")
        editor.add_node(op, [value, bound], [output], name=f"{node.name}_{op}")
        if not last:
            editor.set_value_type(output, "float32")
        value = output


def _ends(view: GraphView, node: NodeInfo, limits: Sequence[float]) -> tuple[float | None, float | None]:
    """Ends of the range of a QuantizeLinear that stand for an operator."""
    zero = node.input(2)
    if not view.is_constant(node.input(1)) or (zero and not view.is_constant(zero)):
        return None, None
    scale = view.constant(node.input(1)).astype(np.float64)
    offset = view.constant(zero) if zero else np.zeros((), dtype=np.uint8)
    if scale.size != 1 or offset.size != 1 or offset.dtype.kind not in "iu":
        return None, None
    step, kind = float(scale.reshape(())), np.iinfo(offset.dtype)
    codes = [float(kind.min), float(kind.max)]
    readers = [use.node for use in view.uses(node.outputs[0])]
    if len(readers) == 1 and _narrows(view, readers[0]) and all(map(view.is_constant, readers[0].inputs[1:3])):
        codes = [float(view.constant(name).reshape(())) for name in readers[0].inputs[1:3]]
    low, high = (step * (end - float(offset.reshape(()))) for end in codes)
    lower = next((bound for bound in (0.0, *limits) if abs(low - bound) <= step * (bound != 0.0)), None)
    upper = next((bound for bound in limits if abs(high - bound) <= step), None)
    return lower, upper


def _pass_dynamic(editor: GraphEditor, node: NodeInfo) -> None:
    """x, 1 and 0 in the place of what DynamicQuantizeLinear gives."""
    editor.remove_node(node.name)
    values: tuple[np.ndarray, ...] = (np.ones((), dtype=np.float32), np.zeros((), dtype=np.uint8))
    sources = [node.input(0)]
    sources += [editor.add_initializer(f"{node.name}_{i}", value) for i, value in enumerate(values)]
    for source, output in zip(sources, node.outputs, strict=False):
        if output:
            editor.add_node("Identity", [source], [output], name=f"{node.name}_{output}")

"""The equalized model: new constants and multiplications put into a copy of the graph.

Constants that several nodes read are changed in place where all of them get the same array; otherwise every
different array is a new initializer, and the readers that want the old one keep it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from quantcli.algorithms.equalization import Equalization
from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.graph.view import GraphView


def apply_equalization(model: OnnxModel, equalization: Equalization) -> OnnxModel:
    """A copy of ``model`` with the edits of ``equalization``.

    Args:
        model: The graph that was equalized; left as it is.
        equalization: What ``equalize`` found for its view.
    """
    view = model.view()
    copy = model.clone()
    editor = GraphEditor(copy)
    _put_constants(editor, view, equalization.constants)
    for item in equalization.multiplications:
        info = view.tensors[item.value]
        factors = item.factors.reshape(-1, *(1,) * (item.rank - item.axis - 1))
        constant = editor.add_initializer(f"{item.value}_equalization", factors)
        product = editor.new_value_name(f"{item.value}_equalized")
        editor.add_node("Mul", [item.value, constant], [product], name=f"{item.value}_equalize")
        editor.set_value_type(product, "float32", info.shape)
        editor.replace_uses(item.value, product, uses=item.readers)
    editor.finish()
    return copy


def _put_constants(editor: GraphEditor, view: GraphView, constants: Mapping[tuple[str, int], np.ndarray]) -> None:
    """Give every reader its constant."""
    changes: dict[str, dict[bytes, list[tuple[str, int]]]] = {}
    for (node, index), array in constants.items():
        name = view.node_by_name[node].inputs[index]
        key = repr(array.shape).encode() + array.tobytes()
        changes.setdefault(name, {}).setdefault(key, []).append((node, index))
    for name, variants in changes.items():
        for readers in variants.values():
            array = constants[readers[0]]
            if len(readers) == len(view.uses(name)) and not view.tensors[name].is_output:
                editor.set_initializer(name, array)
            else:
                new = editor.add_initializer(f"{name}_equalized", array)
                editor.replace_uses(name, new, uses=readers)

"""Small graphs in the weight-only form, and the weights that they should compute with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.graph.opset import upgrade_opset
from quantcli.quantize.emit_nbits import NBitsEmitter
from quantcli.quantize.emit_weight_only import WeightOnlyEmitter
from quantcli.quantize.plan import Plan
from quantcli.quantize.plan_weight_only import make_weight_only_plan
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.solve_weight_only import solve_weight_only
from quantcli.runtime.session import Session, SessionSettings

EXACT = {"session.qdq_matmulnbits_accuracy_level": "1"}
"""Session setting at which fused products are float32."""


@dataclass(frozen=True)
class Stored:
    """A weight-only graph and its plan."""

    model: OnnxModel
    plan: Plan

    def run(self, feeds: dict[str, np.ndarray], optimization: str = "all") -> dict[str, np.ndarray]:
        settings = SessionSettings(optimization=optimization, config=EXACT)
        return Session(self.model.to_bytes(), settings).run(feeds)

    def constants(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Initializer → type and shape, those of shapes left out."""
        tensors = self.model.view().tensors
        return {
            name: (tensor.dtype, tensor.shape)
            for name, tensor in tensors.items()
            if tensor.is_constant and tensor.dtype != "int64"
        }


def stored(model: OnnxModel, form: str = "qdq", **recipe: object) -> Stored:
    """``model`` with integer weights, at the opset that they need."""
    emitter = {"qdq": WeightOnlyEmitter, "qoperator": NBitsEmitter}[form]
    plan = make_weight_only_plan(model.view(), Recipe(**{"accuracy_level": 1, **recipe}))
    copy = model.clone()
    needed = emitter(GraphEditor(copy.clone()), copy.view(), plan, {}).lowest_opset()
    if needed > copy.opset:
        upgrade_opset(copy, needed)
    view = copy.view()
    editor = GraphEditor(copy)
    emitter(editor, view, plan, solve_weight_only(plan, view)).emit()
    editor.finish()
    return Stored(copy, plan)


def grid(values: np.ndarray, bits: int, *, symmetric: bool) -> np.ndarray:
    """The values of one block (any shape), rounded to its own grid by the textbook formulas, in float64."""
    x = values.astype(np.float64)
    top = 2 ** (bits - 1) - 1
    if symmetric:
        scale = float(np.float32(np.abs(x).max() / top)) or 1.0
        return np.clip(np.rint(np.float32(x) / np.float32(scale)), -top - 1, top) * scale
    low, high = min(0.0, x.min()), max(0.0, x.max())
    scale = float(np.float32((high - low) / (2**bits - 1))) or 1.0
    zero = np.clip(np.rint(-top - 1 - low / scale), -top - 1, top)
    q = np.clip(np.rint(np.float32(x) / np.float32(scale)) + zero, -top - 1, top)
    return (q - zero) * scale


def blocked(weight: np.ndarray, axis: int, block: int, bits: int, *, symmetric: bool) -> np.ndarray:
    """``weight`` with every ``block`` values along ``axis`` rounded to a grid of their own."""
    rows = np.moveaxis(weight, axis, -1)
    found = np.empty(rows.shape)
    for place in np.ndindex(rows.shape[:-1]):
        for start in range(0, rows.shape[-1], block):
            part = (*place, slice(start, start + block))
            found[part] = grid(rows[part], bits, symmetric=symmetric)
    return np.moveaxis(found, -1, axis)


def product_error(x: np.ndarray, weight: np.ndarray) -> float:
    """Bound of the rounding of a float32 product over K values: K·2⁻²⁴·max Σ|x·w|."""
    return float(math.prod(x.shape[-1:]) * 2.0**-24 * (np.abs(x).astype(np.float64) @ np.abs(weight)).max())

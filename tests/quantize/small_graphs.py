"""Small float graphs, quantized without files: plan, min-max ranges from a plain run, parameters, edits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.quantize.emit_direct import DirectQdqEmitter
from quantcli.quantize.emit_qoperator import QOperatorEmitter
from quantcli.quantize.plan import Action, Plan
from quantcli.quantize.planner import make_plan, observed_tensors
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.solve import Solution, solve
from quantcli.runtime.session import Session, SessionSettings

EMITTERS = {"qdq": DirectQdqEmitter, "qoperator": QOperatorEmitter}


def graph(text: str, *, opset: int = 13, **constants: np.ndarray) -> OnnxModel:
    """A model from ONNX text without its header; nodes are named n0, n1, … in order."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'
    proto = onnx.parser.parse_model(header + text)
    for name, array in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
    return OnnxModel(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))


def plan_of(model: OnnxModel, **recipe: object) -> Plan:
    """The plan for a recipe given by its fields."""
    return make_plan(model.view(), Recipe(**recipe))


def actions(plan: Plan) -> dict[str, Action]:
    """Node → action."""
    return {node.name: node.action for node in plan.nodes}


def reason(plan: Plan, node: str) -> str:
    """Reason code of a float node."""
    found = plan.node(node).reason
    assert found is not None
    return found.code


def ranges(
    model: OnnxModel, names: tuple[str, ...], feeds: dict[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Exact min and max of values on one run."""
    copy = model.clone()
    values = {value.name: value for node in copy.ir.graph for value in node.outputs}
    outputs = {value.name for value in copy.ir.graph.outputs}
    for name in names:
        if name in values and name not in outputs:
            copy.ir.graph.outputs.append(values[name])
    found = {**feeds, **Session(copy.to_bytes(), SessionSettings(optimization="disabled")).run(feeds)}
    return {name: (float(found[name].min()), float(found[name].max())) for name in names}


@dataclass(frozen=True)
class Quantized:
    """A quantized graph and what it was made of."""

    source: OnnxModel
    model: OnnxModel
    plan: Plan
    solution: Solution

    def run(self, feeds: dict[str, np.ndarray], optimization: str = "all") -> dict[str, np.ndarray]:
        """Outputs of the quantized graph."""
        return Session(self.model.to_bytes(), SessionSettings(optimization=optimization)).run(feeds)

    def run_float(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of the float graph."""
        return Session(self.source.to_bytes(), SessionSettings(optimization="disabled")).run(feeds)

    def expected_kernels(self) -> dict[str, str]:
        """Nodes that are to be integer kernels."""
        return {node.name: node.op_type for node in self.plan.nodes if node.action is Action.QUANTIZE}


def quantize_graph(
    model: OnnxModel, feeds: dict[str, np.ndarray], form: str = "qdq", **recipe: object
) -> Quantized:
    """Quantize ``model`` with the ranges that it has on ``feeds``."""
    view = model.view()
    plan = make_plan(view, Recipe(**recipe))
    found = ranges(model, observed_tensors(plan), feeds)
    solution = solve(plan, view, lambda name, _: found[name])
    copy = model.clone()
    editor = GraphEditor(copy)
    EMITTERS[form](editor, view, plan, solution).emit()
    editor.finish()
    return Quantized(source=model, model=copy, plan=plan, solution=solution)

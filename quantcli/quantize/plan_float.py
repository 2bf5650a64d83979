"""The plan of a conversion to float16 or bfloat16: which nodes compute in it, and which stay float32 and why.

A node becomes narrow unless something speaks against it, in this order: the user; it is quantized already, has
bodies, is unknown or works on other types; the ONNX specification; the runtime; it computes shapes or indices; one
of its constants or tensors lies outside of what the type can hold. Then whatever only moves values between nodes
in float32 goes back to float32: Casts around it would cost more than it saves.

Constants that narrow nodes read are stored narrow, and so are the larger ones of nodes that would be narrow if the
runtime or the specification let them (a Cast widens those again).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np

from quantcli.graph.op_types import OperatorTypes, operator_types
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.ops.float_kernels import missing_kernel
from quantcli.ops.reasons import Reason
from quantcli.ops.table import BODY_OPS
from quantcli.quantize.already import already_quantized
from quantcli.quantize.form import Form
from quantcli.quantize.narrow_facts import LARGEST, LOWEST_SQNR, Survey, TensorFact, survey
from quantcli.quantize.narrow_graph import SMALLEST_STORED, index_nodes, islands, shape_values
from quantcli.quantize.plan import Action, NarrowConstant, NarrowPlan, NodePlan, Plan
from quantcli.quantize.recipe import Recipe, select, select_tensors

FLOAT32 = "float32"

STORED_NARROW = frozenset({"F701", "F702"})
"""Reasons of nodes whose constants are stored narrow all the same."""

_BY_ATTRIBUTE = frozenset({
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "EyeLike", "ConstantOfShape",
    "Bernoulli", "Multinomial", "BlackmanWindow", "HannWindow", "HammingWindow", "MelWeightMatrix", "Constant",
})  # fmt: skip
"""Operators whose float type an attribute says."""

_READS_ANY = frozenset({"Shape", "Size"})

_MASKS = {"Add": 2.0, "Sub": 2.0, "Mul": 2.0, "Where": 2.0, "Clip": 1.0, "Min": 1.0, "Max": 1.0}
"""Operators that read large numbers as "minus infinity" → by how much these stay below the largest value, so that
what is added to them does not overflow."""

_SENTINEL = 1e6
"""Magnitude from which on a number beyond the type stands for infinity rather than for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was found out by running the model.

    Attributes:
        facts: Of tensors on samples; empty without samples.
        kept: Nodes that must stay float32, with the reason.
    """

    facts: Mapping[str, TensorFact]
    kept: Mapping[str, Reason]


NOTHING_KNOWN = Known(facts={}, kept={})


def make_float_plan(view: GraphView, recipe: Recipe, known: Known = NOTHING_KNOWN) -> Plan:
    """Plan the conversion of a graph whose nodes are named and whose types are known.

    Raises:
        ConfigError: C101 or C102, a selector is wrong.
    """
    return _Planner(view, recipe, known).plan()


class _Planner:
    def __init__(self, view: GraphView, recipe: Recipe, known: Known) -> None:
        self.view = view
        self.recipe = recipe
        self.known = known
        self.dtype = recipe.float_type
        self.limits: dict[str, float | None] = {}
        self.surveys: dict[str, Survey] = {}
        self.rules: dict[str, str] = {}

    def plan(self) -> Plan:
        reasons = self._selected()
        shapes = shape_values(self.view)
        index = index_nodes(self.view)
        for node in self.view.nodes:
            if node.name not in reasons:
                reason = self._refusal(node, shapes, index)
                if reason is not None:
                    reasons[node.name] = reason
        narrow = {node.name for node in self.view.nodes if node.name not in reasons}
        for name in islands(self.view, narrow, self._ports):
            sentence = f"{self.view.node_by_name[name].op_type} only moves values between nodes in float32"
            reasons[name] = Reason(code="F706", sentence=sentence)
        stored = tuple(self._constants(reasons))
        kept = {constant.name for constant in stored}
        return Plan(
            target=self.recipe.target,
            form=Form.FLOAT,
            nodes=tuple(self._node_plan(node, reasons, kept) for node in self.view.nodes),
            tensors={},
            narrow=NarrowPlan(dtype=self.dtype, constants=stored, convert_io=not self.recipe.keep_io),
        )

    def _node_plan(self, node: NodeInfo, reasons: Mapping[str, Reason], stored: AbstractSet[str]) -> NodePlan:
        reason = reasons.get(node.name)
        if reason is not None and reason.code in STORED_NARROW and not stored.isdisjoint(node.inputs):
            reason = replace(reason, sentence=f"{reason.sentence}; its weights are stored as {self.dtype}")
        action = Action.NARROW if reason is None else Action.FLOAT
        rule = self.rules.get(node.name, "")
        return NodePlan(name=node.name, op_type=node.op, action=action, reason=reason, rule=rule, body=node.scope)

    # Reasons ----------------------------------------------------------------------------------------

    def _selected(self) -> dict[str, Reason]:
        """Nodes that the user leaves out; those that make or read a tensor that is left out as well."""
        found: dict[str, Reason] = {}
        excluded = select(self.recipe.excluded_nodes, self.view)
        included = select(self.recipe.include, self.view) if self.recipe.include else None
        tensors = select_tensors(self.recipe.excluded_tensors, self.view)
        for node in self.view.nodes:
            touched = next((name for name in (*node.inputs, *node.outputs) if name in tensors), "")
            if node.name in excluded:
                self.rules[node.name] = f"--exclude {excluded[node.name]}"
                found[node.name] = Reason(code="F101", sentence=f"excluded by '{excluded[node.name]}'")
            elif included is not None and node.name not in included:
                self.rules[node.name] = "--include"
                found[node.name] = Reason(code="F101", sentence="not named by --include")
            elif touched:
                found[node.name] = Reason(code="F102", sentence=f"'{touched}' is left in float32")
        return found

    def _refusal(self, node: NodeInfo, shapes: Collection[str], index: Collection[str]) -> Reason | None:
        if node.name in self.known.kept:
            return self.known.kept[node.name]
        already = already_quantized(self.view, node)
        if already:
            return Reason(code="F902", sentence=already)
        if node.yields:
            return Reason(
                code="F901", sentence=f"{node.op_type} itself computes nothing; the nodes of its bodies do"
            )
        if node.op_type in BODY_OPS:
            return Reason(code="F206", sentence=f"{node.op_type} has a body, which stays in float32")
        inputs, outputs = self._floats(node.inputs), self._floats(node.outputs)
        if self._is_foreign(node, inputs, outputs):
            return self._foreign(node)
        return self._by_form(node, inputs, outputs, shapes, index) or self._by_values(node)

    def _is_foreign(self, node: NodeInfo, inputs: Collection[int], outputs: Collection[int]) -> bool:
        """Whether ``node`` does not compute on float32."""
        if node.op_type == "Cast" and not node.domain:
            return not outputs
        return node.op_type in _READS_ANY or not (inputs or outputs)

    def _foreign(self, node: NodeInfo) -> Reason:
        kinds = {self.view.tensors[name].dtype for name in (*node.inputs, *node.outputs) if name}
        if "float64" in kinds:
            return Reason(code="F302", sentence=f"{node.op_type} works on float64, not float32")
        half = sorted(kind for kind in kinds if kind is not None and kind in LARGEST)
        if half:
            return Reason(code="F302", sentence=f"{node.op_type} works on {half[0]} already")
        return Reason(code="F901", sentence=f"{node.op_type} does not compute on floats")

    def _by_form(
        self,
        node: NodeInfo,
        inputs: Collection[int],
        outputs: Collection[int],
        shapes: Collection[str],
        index: Collection[str],
    ) -> Reason | None:
        """Operator, types, runtime and place in the graph."""
        unknown = [
            name for name in (*node.inputs, *node.outputs) if name and self.view.tensors[name].dtype is None
        ]
        if unknown:
            return Reason(
                code="F302", sentence=f"{node.op_type} works on '{unknown[0]}', which is no known tensor"
            )
        types = self._types(node)
        if types is None:
            return Reason(code="F205", sentence=f"operator {node.op} is not one of ai.onnx that is known")
        if not node.domain and node.op_type in _BY_ATTRIBUTE:
            return Reason(code="F706", sentence=f"{node.op_type} makes float32 by an attribute")
        main = types.outputs.allows(min(outputs)) if outputs else all(map(types.inputs.allows, inputs))
        if not main:
            sentence = f"ONNX allows no {self.dtype} for {node.op_type} at opset {self.view.opset}"
            return Reason(code="F702", sentence=sentence)
        missing = missing_kernel(node.op_type, self.dtype, node.attributes)
        if missing:
            return Reason(code="F701", sentence=f"{node.op_type} in {self.dtype}: {missing}")
        if any(name in shapes for name in node.outputs):
            return Reason(code="F703", sentence=f"{node.op_type} computes on shapes")
        if node.name in index:
            return Reason(code="F703", sentence=f"the result of {node.op_type} becomes an integer")
        return None

    def _by_values(self, node: NodeInfo) -> Reason | None:
        """Constants and measured tensors."""
        for _, name in self._ports(node):
            if self.view.is_constant(name):
                sentence = self._constant_refusal(node, name)
                if sentence:
                    return Reason(code="F704", sentence=sentence)
        for name in (*node.inputs, *node.outputs):
            fact = self.known.facts.get(name)
            sentence = "" if fact is None else fact.refusal(name, self.dtype)
            if sentence:
                return Reason(code="F705", sentence=sentence)
        return None

    def _constant_refusal(self, node: NodeInfo, name: str) -> str:
        """Why ``node`` cannot read constant ``name`` in the narrow type; notes the limit of a mask."""
        found = self._surveyed(name)
        if found.overflows:
            share = _MASKS.get(node.op_type)
            if share is None or found.least_over < _SENTINEL:
                return f"'{name}' holds {found.over:.3g}; {self.dtype} ends at {LARGEST[self.dtype]:.5g}"
            limit = LARGEST[self.dtype] / share
            self.limits[name] = min(limit, self.limits.get(name) or math.inf)
        if found.vanishes:
            return f"'{name}' holds {found.least:.3g}, which {self.dtype} makes 0"
        if found.size > 1 and found.sqnr < LOWEST_SQNR:
            return f"'{name}' is so small that {self.dtype} would lose most of its bits"
        return ""

    def _surveyed(self, name: str) -> Survey:
        """What becomes of a constant; each is read once."""
        if name not in self.surveys:
            self.surveys[name] = survey(np.asarray(self.view.constant(name)), self.dtype)
        return self.surveys[name]

    # Constants --------------------------------------------------------------------------------------

    def _constants(self, reasons: Mapping[str, Reason]) -> Iterator[NarrowConstant]:
        """Constants that become narrow, or get a narrow copy where some readers must not see them rounded."""
        for name, info in self.view.tensors.items():
            if not info.is_constant or info.dtype != FLOAT32:
                continue
            large = info.nbytes >= SMALLEST_STORED * 4
            wanted = [
                self._wants_narrow(use.node, use.index, reasons, large=large) for use in self.view.uses(name)
            ]
            if not any(wanted) or not self._holds(name):
                continue
            copied = info.is_output or any(want is None for want in wanted)
            if not copied or not large or name in self.limits:
                yield NarrowConstant(name=name, limit=self.limits.get(name), copied=copied)

    def _wants_narrow(
        self, node: NodeInfo, index: int, reasons: Mapping[str, Reason], *, large: bool
    ) -> bool | None:
        """Whether a reading wants a constant narrow (True), takes it so (False), or must not get it so (None)."""
        reason = reasons.get(node.name)
        if reason is None:
            types = self._types(node)
            return (types is not None and types.inputs.allows(index)) or None
        if reason.code in STORED_NARROW or (reason.code == "F206" and index < 0):
            types = self._types(node)
            weight = index < 0 or (types is not None and bool(types.inputs.variable(index)))
            return large if weight else None
        if reason.code == "F706":
            return False
        return None

    def _holds(self, name: str) -> bool:
        """Whether the type can hold the constant, masks that were given a limit included."""
        found = self._surveyed(name)
        return not (found.overflows and name not in self.limits) and not found.vanishes

    # Types ------------------------------------------------------------------------------------------

    def _types(self, node: NodeInfo) -> OperatorTypes | None:
        return operator_types(node.domain, node.op_type, self.view.opsets.get(node.domain, 0), self.dtype)

    def _floats(self, names: Collection[str]) -> list[int]:
        """Places of float32 values."""
        return [i for i, name in enumerate(names) if name and self.view.tensors[name].dtype == FLOAT32]

    def _ports(self, node: NodeInfo) -> list[tuple[int, str]]:
        """(index, value) of the inputs that would be narrow."""
        types = self._types(node)
        if types is None:
            return []
        return [(i, node.inputs[i]) for i in self._floats(node.inputs) if types.inputs.allows(i)]

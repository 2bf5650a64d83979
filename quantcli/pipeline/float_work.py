"""A conversion to a narrower float type under way: what is known, the plan by it, the model, and its trial."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from quantcli.data.base import Sample
from quantcli.errors import ModelError, OutputError
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import save_model
from quantcli.graph.shapes import forget_types
from quantcli.ops.reasons import Reason
from quantcli.pipeline.already_quantized import quantized_before
from quantcli.pipeline.source import FloatModel
from quantcli.quantize.emit_float import emit_float
from quantcli.quantize.narrow_facts import TensorFact
from quantcli.quantize.plan import Action, Plan
from quantcli.quantize.plan_float import Known, make_float_plan
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.session import runtime_version
from quantcli.runtime.trial_run import trial_run

_NO_KERNEL = re.compile(r"Could not find an implementation for (\w+)\(\d+\)")
_BAD_TYPE = re.compile(r"of operator \((\w+)\) in node")


@dataclass(slots=True, kw_only=True)
class FloatWork:
    """One conversion.

    Attributes:
        recipe: What is wanted.
        source: The model as it is.
        feed: What the result is tried on; None where there is nothing.
        threads: Intra-op threads.
        facts: Of tensors, on samples.
        kept: Nodes that turned out to have to stay float32; grows.
    """

    recipe: Recipe
    source: FloatModel
    feed: Sample | None
    threads: int = 1
    facts: Mapping[str, TensorFact] = field(default_factory=dict)
    kept: dict[str, Reason] = field(default_factory=dict)

    def plan(self, also: Mapping[str, Reason] | None = None) -> Plan:
        """The plan by what is known, with further nodes kept."""
        known = Known(facts=self.facts, kept={**self.kept, **(also or {})})
        return make_float_plan(self.source.whole, self.recipe, known)

    def emit(self, plan: Plan) -> OnnxModel:
        """The model that ``plan`` says, with the types of all values."""
        model = self.source.prepared.clone()
        emit_float(model, plan)
        return model

    def tried(self, plan: Plan) -> tuple[OnnxModel, str]:
        """The model, and what is wrong with it, "" for nothing."""
        model = self.emit(plan)
        forget_types(model, self.source.stated)
        with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
            path = Path(folder) / "trial.onnx"
            save_model(model, path, durable=False)
            return model, trial_run(path, self.feed, threads=self.threads, in_parts=self.source.large)

    def that_runs(self) -> tuple[Plan, OnnxModel]:
        """The plan with all operators in float32 that the runtime turns out not to take."""
        while True:
            plan = self.plan()
            if not anything(plan):
                raise _nothing(self.source, plan)
            model, failure = self.tried(plan)
            if not failure:
                return plan, model
            blamed = self._blamed(plan, failure) or self._culprit(plan, failure)
            if not blamed:
                raise broken(failure)
            self.kept |= blamed

    def _blamed(self, plan: Plan, failure: str) -> dict[str, Reason]:
        """Narrow nodes of the operator that ``failure`` names."""
        found = _NO_KERNEL.search(failure) or _BAD_TYPE.search(failure)
        if found is None:
            return {}
        op = found.group(1)
        sentence = f"{op} in {self.recipe.float_type}: onnxruntime {runtime_version()} has no kernel for it"
        reason = Reason(code="F701", sentence=sentence)
        return {node.name: reason for node in plan.nodes if node.action is Action.NARROW and node.op_type == op}

    def _culprit(self, plan: Plan, failure: str) -> dict[str, Reason]:
        """The narrow node with which the runtime begins to fail, by bisection; none where it fails without any.

        With the first of the narrow nodes (in order of computation) alone it goes well, with all it does not; each
        step halves the distance.
        """
        names = [node.name for node in plan.nodes if node.action is Action.NARROW]
        if not names or self.tried(restricted(plan, frozenset()))[1]:
            return {}
        good, bad = 0, len(names)
        while bad - good > 1:
            middle = (good + bad) // 2
            if self.tried(restricted(plan, frozenset(names[:middle])))[1]:
                bad = middle
            else:
                good = middle
        node = plan.node(names[bad - 1])
        sentence = f"{node.op_type} in {self.recipe.float_type} here: {failure} (onnxruntime {runtime_version()})"
        return {node.name: Reason(code="F701", sentence=sentence)}


def restricted(plan: Plan, names: frozenset[str]) -> Plan:
    """``plan`` with no other narrow nodes than ``names``."""
    nodes = (
        node if node.action is not Action.NARROW or node.name in names else replace(node, action=Action.FLOAT)
        for node in plan.nodes
    )
    return replace(plan, nodes=tuple(nodes))


def anything(plan: Plan) -> bool:
    """Whether a plan makes anything narrow."""
    return plan.count(Action.NARROW) > 0 or (plan.narrow is not None and bool(plan.narrow.constants))


def _nothing(source: FloatModel, plan: Plan) -> ModelError:
    before = quantized_before(plan)
    reasons = sorted({f"{n.op_type}: {n.reason.sentence}" for n in plan.nodes if n.reason is not None})
    dtype = plan.narrow.dtype if plan.narrow is not None else ""
    return ModelError(
        "M304",
        f"nothing in '{source.path.name}' can become {dtype} ({'; '.join(reasons[:3]) or 'it has no nodes'}"
        f"{f'; {before} of its nodes are quantized already' if before else ''})",
        hint="see every node's reason with: quantcli convert MODEL --bits fp16 --dry-run -v",
    )


def broken(failure: str) -> OutputError:
    """The error for a result that does not run."""
    return OutputError(
        "O301",
        f"the converted model does not run, and was not written: {failure}",
        hint="please report it with the model; --exclude of the operator at fault is a way round",
    )

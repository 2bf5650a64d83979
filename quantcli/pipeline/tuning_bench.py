"""Conversions of one model again and again, each with other tensors in float.

Calibration is done once. Everything behind it (equalization, the second calibration, rounding) is done for each
set of float tensors as ``convert`` does it, so that what was measured is what the recipe gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from quantcli.algorithms.effort import EFFORTS
from quantcli.algorithms.probes import nodes_with_constants, probe, tensor_groups
from quantcli.algorithms.sensitivity import WEIGHTS
from quantcli.calibration.estimators import parse_method
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import save_model
from quantcli.graph.view import GraphView
from quantcli.pipeline.carry_out import Made
from quantcli.pipeline.contest import best_of
from quantcli.pipeline.source import FloatModel
from quantcli.pipeline.types import ConvertRequest
from quantcli.pipeline.workbench import Workbench
from quantcli.progress import SilentProgress
from quantcli.quantize.plan import Plan
from quantcli.quantize.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TuningBench:
    """What the search for float tensors needs of a conversion.

    Attributes:
        request: The conversion without further float tensors.
        bench: Float graph, statistics and samples; not equalized.
    """

    request: ConvertRequest
    bench: Workbench

    @property
    def source(self) -> FloatModel:
        """The float model before equalization: plans and names are those of its graph."""
        return self.bench.source

    @property
    def recipe(self) -> Recipe:
        """The recipe without further float tensors."""
        return self.request.recipe

    def plan(self, recipe: Recipe) -> Plan:
        """The plan of a recipe; cheap."""
        return self.bench.plan(recipe)

    def make(self, recipe: Recipe) -> Made:
        """The conversion of a recipe."""
        if recipe == self.recipe:
            return self.first
        return self._make(recipe)

    def build(self, recipe: Recipe, path: Path) -> None:
        """Write the quantized model of a recipe."""
        save_model(self.make(recipe).model, path, overwrite=True)

    @cached_property
    def first(self) -> Made:
        """The conversion without further float tensors."""
        return self._make(self.recipe)

    def probe(self, kind: str, name: str) -> OnnxModel:
        """The float graph with one part of the first conversion: "tensor" and a group, or "weight" and a node.

        The graph is the equalized one; a group is that of the plan before.
        """
        made = self.first
        nodes = nodes_with_constants(made.plan)
        tensors: tuple[str, ...] = ()
        constants: tuple[str, ...] = ()
        if kind == "tensor":
            members = set(tensor_groups(self.plan(self.recipe))[name])
            tensors = tuple(t for t in made.plan.tensors if self._origin(t) in members)
        else:
            constants = nodes if name == WEIGHTS else (name,)
        source = made.bench.source
        return probe(source.prepared, source.whole, made.plan, made.solution, tensors=tensors, constants=constants)

    def _make(self, recipe: Recipe) -> Made:
        asked = replace(self.request, recipe=recipe)
        effort, method = EFFORTS[asked.effort], parse_method(recipe.method)
        return best_of(self.bench, asked, effort, method, SilentProgress())

    def _origin(self, name: str) -> str:
        """The value of the graph before equalization that a value of the equalized one is a scaled form of."""
        view: GraphView = self.first.bench.source.whole
        while name not in self.source.whole.tensors:
            maker = view.producer(name)
            if maker is None:
                return name
            name = maker.inputs[0]
        return name

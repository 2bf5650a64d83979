"""A conversion in parts, as the search for float tensors needs it: plan, parameters, model, all in memory.

``Workbench`` is what is needed; ``NearestWorkbench`` does it with weights rounded to nearest.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from quantcli.calibration.estimators import parse_method
from quantcli.calibration.file_format import encode
from quantcli.calibration.statistics import CalibrationStatistics
from quantcli.graph.model_io import save_model
from quantcli.pipeline.convert import _emit, _plan, _possible, _ranges
from quantcli.pipeline.source import FloatModel
from quantcli.quantize.plan import Plan
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.solve import Solution, solve


class Workbench(Protocol):
    """A float model that can be quantized again and again with other float tensors."""

    @property
    def source(self) -> FloatModel:
        """The float model; plans are made for its prepared graph."""

    @property
    def recipe(self) -> Recipe:
        """The recipe without further float tensors."""

    @property
    def digest(self) -> str:
        """Digest of all that the results depend on besides float tensors."""

    def plan(self, recipe: Recipe) -> Plan:
        """The plan of a recipe; cheap."""

    def solve(self, plan: Plan) -> Solution:
        """Its parameters."""

    def build(self, recipe: Recipe, path: Path) -> None:
        """Write the quantized model of a recipe."""


class NearestWorkbench:
    """Ranges by the recipe's method, weights rounded to nearest."""

    def __init__(self, source: FloatModel, recipe: Recipe, statistics: CalibrationStatistics, form: str) -> None:
        self.source = source
        self.recipe = _possible(recipe, source)
        self._statistics = statistics
        self._form = form
        self._ranges = _ranges(source.view, statistics, parse_method(recipe.method))

    @property
    def digest(self) -> str:
        """Digest of model, statistics and recipe."""
        parts = (self.source.digest, encode(self._statistics), asdict(self.recipe), self._form)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def plan(self, recipe: Recipe) -> Plan:
        """The plan of a recipe."""
        return _plan(self.source, recipe, self._statistics)

    def solve(self, plan: Plan) -> Solution:
        """Its parameters."""
        return solve(plan, self.source.view, self._ranges)

    def build(self, recipe: Recipe, path: Path) -> None:
        """Write the quantized model of a recipe."""
        plan = self.plan(recipe)
        model = _emit(self.source, plan, self.solve(plan), self._form)
        save_model(model, path, overwrite=True)

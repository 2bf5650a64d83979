"""When a conversion is followed by a search for float tensors, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from quantcli.pipeline import convert_or_rescue as module
from quantcli.pipeline.convert_or_rescue import convert_or_rescue
from quantcli.pipeline.types import ConvertRequest, ConvertResult, DataOptions, RoundingFacts
from quantcli.progress import SilentProgress
from quantcli.quantize.plan import Plan
from quantcli.quantize.recipe import Recipe

PLAN = Plan(target="ort-cpu", nodes=(), tensors={})


class Fakes:
    """Conversions that reach a given fidelity in their trial, and a search that finds given tensors."""

    def __init__(self, monkeypatch, reached: float | None, found: tuple[str, ...]) -> None:
        self.converted: list[ConvertRequest] = []
        self.searched: list[object] = []
        self.reached, self.found = reached, found
        monkeypatch.setattr(module, "convert", self.convert)
        monkeypatch.setattr(module, "search", self.search)

    def convert(self, request, _progress):
        self.converted.append(request)
        facts = RoundingFacts(effort=request.effort, trial_sqnr=self.reached)
        return ConvertResult(plan=PLAN, rounding=facts, notes=("converted",))

    def search(self, request, _state, _progress):
        self.searched.append(request)
        return SimpleNamespace(recipe=Recipe()), SimpleNamespace(tensors=self.found, gates=()), ("searched",)


def asked(effort: str = "max") -> ConvertRequest:
    data, unseen = DataOptions(specs=("calib.npz",)), DataOptions(specs=("eval.npz",))
    return ConvertRequest(model=Path("m.onnx"), data=data, eval_data=unseen, effort=effort)


@pytest.mark.parametrize(("effort", "reached"), [("max", 20.0), ("max", None), ("balanced", 3.0), ("fast", 3.0)])
def test_a_good_result_or_a_lower_effort_is_left_alone(monkeypatch, effort, reached):
    fakes = Fakes(monkeypatch, reached, ("t",))
    result = convert_or_rescue(asked(effort), SilentProgress())
    assert (len(fakes.converted), fakes.searched) == (1, [])
    assert result.notes == ("converted",)


def test_a_poor_result_is_made_again_with_the_tensors_at_fault_in_float(monkeypatch):
    fakes = Fakes(monkeypatch, 6.7, ("t", "u"))
    result = convert_or_rescue(asked(), SilentProgress())
    assert fakes.converted[1].recipe.excluded_tensors == ("tensor:t", "tensor:u")
    assert fakes.converted[1].overwrite
    assert any("2 tensors are left in float" in note for note in result.notes)


def test_evaluation_samples_stay_unseen_by_the_search(monkeypatch):
    fakes = Fakes(monkeypatch, 6.7, ("t",))
    convert_or_rescue(asked(), SilentProgress())
    (request,) = fakes.searched
    assert not request.conversion.eval_data.specs
    assert request.options.gates == ("sqnr>=21",)
    assert fakes.converted[1].eval_data.specs == ("eval.npz",)


def test_a_search_without_a_find_keeps_the_first_result(monkeypatch):
    fakes = Fakes(monkeypatch, 6.7, ())
    convert_or_rescue(asked(), SilentProgress())
    assert len(fakes.converted) == 1

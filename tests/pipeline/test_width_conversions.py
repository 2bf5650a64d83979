"""Conversions to other widths through the use case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quantcli.core.dtypes import FLOAT8E4M3FN, INT16, UINT4, UINT16
from quantcli.errors import ModelError, UsageError
from quantcli.pipeline.convert import convert
from quantcli.pipeline.types import ConvertRequest, ConvertResult, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.recipe import Recipe

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
DATA = SAMPLES / "data" / "digits_calib.npz"


def converted(tmp_path: Path, recipe: Recipe, **fields: object) -> ConvertResult:
    request = ConvertRequest(
        model=SAMPLES / "digits_cnn.onnx",
        output=tmp_path / "out.onnx",
        data=DataOptions(specs=(str(DATA),), samples=16),
        recipe=recipe,
        effort="fast",
        placement="static",
    )
    return convert(replace(request, **fields), SilentProgress())


def test_16_bits_are_told_to_run_in_float_and_reach_60_db(tmp_path):
    result = converted(tmp_path, Recipe(weight_dtype=INT16, activation_dtype=UINT16))
    assert result.kernels is not None
    assert (result.kernels.expected, dict(result.kernels.unfused)) == (0, {})
    assert min(result.fidelity.values()) > 60
    assert sum("16-bit activations run as float on ort-cpu" in note for note in result.notes) == 1
    assert result.report is not None
    assert result.report.kernels is not None
    assert result.report.kernels.note.startswith("16-bit activations run as float")


def test_float8_is_better_than_its_three_digits_alone(tmp_path):
    """Errors of at most 1/16 of each value: 24 dB, and they average out."""
    recipe = Recipe(weight_dtype=FLOAT8E4M3FN, activation_dtype=FLOAT8E4M3FN, symmetric=True)
    result = converted(tmp_path, recipe)
    assert min(result.fidelity.values()) > 20
    assert recipe.label == "fp8"


def test_an_opset_below_that_of_a_width_is_refused(tmp_path):
    with pytest.raises(ModelError, match="activations of 16 bits exist from opset 21 on") as error:
        converted(tmp_path, Recipe(activation_dtype=UINT16), opset=17)
    assert error.value.code == "M303"


def test_integer_operators_of_other_widths_are_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="not for 4 bits"):
        converted(tmp_path, Recipe(activation_dtype=UINT4), format="qoperator")


def test_a_plan_of_16_bits_is_carried_out_again(tmp_path):
    recipe = Recipe(weight_dtype=INT16, activation_dtype=UINT16)
    first = converted(tmp_path, recipe, plan_out=tmp_path / "p.json")
    again = converted(tmp_path, Recipe(), plan=tmp_path / "p.json", output=tmp_path / "again.onnx")
    assert again.plan == first.plan
    assert np.isclose(min(again.fidelity.values()), min(first.fidelity.values()))

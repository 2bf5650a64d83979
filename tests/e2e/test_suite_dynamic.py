"""Models of the ONNX backend suite through the dynamic form, LSTM included, however small their weights are.

All inputs but the first are made constants, so that layers have weights. What is quantized loads, runs, fuses,
keeps its interface and stays close; what is refused is refused with a code.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from test_suite_conversion import REFUSALS, assert_near, suite, with_constants

from quantcli.data.base import Sample
from quantcli.errors import QuantcliError
from quantcli.graph.edit import GraphEditor
from quantcli.pipeline.source import load_float_model, runnable
from quantcli.pipeline.verify import verify
from quantcli.quantize import plan_dynamic
from quantcli.quantize.emit_dynamic import DynamicEmitter
from quantcli.quantize.form import Form
from quantcli.quantize.plan import Action
from quantcli.quantize.plan_dynamic import make_dynamic_plan
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.solve_dynamic import solve_dynamic, solve_recurrent
from quantcli.runtime.session import Session

OPSET = 11

TOO_NEW = "M303"
"""Models of an opset that onnxruntime has no quantizers for, and that cannot be lowered."""


def convert_and_check(name: str, path: Path, feed: Sample) -> str:
    """What became of one model."""
    source = load_float_model(path, "ort-cpu", lowest=OPSET)
    plan = make_dynamic_plan(source.whole, Recipe(form=Form.DYNAMIC, dynamic_lstm=True))
    if not plan.count(Action.QUANTIZE):
        return "unchanged"
    model = source.prepared.clone()
    editor = GraphEditor(model, bodies=True)
    solution, gates = solve_dynamic(plan, source.whole), solve_recurrent(plan, source.whole)
    DynamicEmitter(editor, source.whole, plan, solution, gates).emit()
    editor.finish()
    expected = Session(path).run(feed)
    with runnable(model) as loadable:
        kernels = verify(loadable, source, plan, feed, threads=1)
        found = Session(loadable).run(feed)
    # onnxruntime removes a multiplication by a single 1 (the scale of a weight of zeros), and with it the pattern.
    ones = {node for node, layer in solution.layers.items() if layer.weight_params.scale.tolist() == 1}
    assert set(kernels.unfused) <= ones, name
    assert_near(found, expected, name)
    return "quantized"


def run_suite(folder: Path, step: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    refused: list[tuple[str, str, str]] = []
    for name, proto, arrays in suite(step):
        model, feed = with_constants(proto, arrays)
        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        try:
            Session(path).run(feed)
        except QuantcliError:
            counts["not run by onnxruntime"] += 1
            continue
        try:
            counts[convert_and_check(name, path, feed)] += 1
        except QuantcliError as error:
            counts["refused"] += 1
            refused.append((name, error.code, error.message))
    assert [case for case in refused if case[1] not in {*REFUSALS, TOO_NEW}] == []
    return counts


def test_a_share_of_the_suite_converts_or_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("SMALLEST_WEIGHT", "SMALLEST_LSTM"):
        monkeypatch.setattr(plan_dynamic, limit, 0)
    counts = run_suite(tmp_path, step=25)
    assert counts["unchanged"] >= 40


@pytest.mark.slow
def test_the_whole_suite_converts_or_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("SMALLEST_WEIGHT", "SMALLEST_LSTM"):
        monkeypatch.setattr(plan_dynamic, limit, 0)
    counts = run_suite(tmp_path, step=1)
    assert counts["quantized"] >= 10
    assert counts["unchanged"] >= 1000

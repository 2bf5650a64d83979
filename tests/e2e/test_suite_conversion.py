"""Models of the ONNX backend suite through preparation, planning, calibration, emission and verification.

All inputs but the first are made constants, so that layers have weights. Nothing may crash; what is quantized
loads, runs, keeps its interface and stays close; what is refused is refused with a code.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.calibration.collector import collect
from quantcli.calibration.estimators import estimate, parse_method
from quantcli.calibration.probe import ObservedTensor
from quantcli.errors import QuantcliError
from quantcli.graph.edit import GraphEditor
from quantcli.graph.model import OnnxModel
from quantcli.pipeline.source import load_float_model, runnable
from quantcli.pipeline.verify import verify
from quantcli.quantize.emit_direct import DirectQdqEmitter
from quantcli.quantize.emit_qoperator import QOperatorEmitter
from quantcli.quantize.plan import Action
from quantcli.quantize.planner import make_plan, observed_tensors
from quantcli.quantize.recipe import Recipe
from quantcli.quantize.solve import solve
from quantcli.runtime.session import Session

REFUSALS = {"M105", "M210", "M303", "K101"}
"""Opset 6, Scan 8, opset 28 where it differs from the newest with quantizers, and outputs that are infinite."""

WIDE = ("poison", "large_number")
"""Models whose point is a range that no 8-bit form can hold."""


def suite(step: int) -> Iterator[tuple[str, onnx.ModelProto, list[np.ndarray]]]:
    """Every ``step``-th model of the suite that onnxruntime runs on its own tensors."""
    from onnx.backend.test import loader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [case for kind in ("node", "simple") for case in loader.load_model_tests(kind=kind)]
        for case in cases[::step]:
            if case.model is None or not case.data_sets:
                continue
            arrays = list(case.data_sets[0][0])
            if arrays and all(isinstance(array, np.ndarray) for array in arrays):
                yield case.name, case.model, arrays


def with_constants(
    model: onnx.ModelProto, arrays: list[np.ndarray]
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model with all inputs but the first as initializers, and its feed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = min(copy.ir_version, 13)
    known = {initializer.name for initializer in copy.graph.initializer}
    names = [value.name for value in copy.graph.input if value.name not in known]
    for name, array in list(zip(names, arrays, strict=False))[1:]:
        copy.graph.initializer.append(numpy_helper.from_array(array, name))
        copy.graph.input.remove(next(value for value in copy.graph.input if value.name == name))
    return copy, {names[0]: arrays[0]}


def session(model: OnnxModel) -> Session:
    with runnable(model) as loadable:
        return Session(loadable)


def convert_and_check(name: str, path: Path, feed: dict[str, np.ndarray], target: str) -> str:
    """What became of one model."""
    source = load_float_model(path, target)
    plan = make_plan(source.view, Recipe(target=target))
    if not plan.count(Action.QUANTIZE):
        return "unchanged"
    observed = [ObservedTensor(name=tensor) for tensor in observed_tensors(plan)]
    statistics = collect(source.prepared, observed, [feed], make_session=session)

    def range_of(tensor, spec):
        found = estimate(statistics.tensors[tensor], spec, parse_method("minmax"))
        return found.min, found.max

    solution = solve(plan, source.view, range_of)
    expected = Session(path).run(feed)
    for emitter in (DirectQdqEmitter, QOperatorEmitter):
        model = source.prepared.clone()
        editor = GraphEditor(model)
        emitter(editor, source.view, plan, solution).emit()
        editor.finish()
        with runnable(model) as loadable:
            kernels = verify(loadable, source, plan, feed, threads=1)
            found = Session(loadable).run(feed)
        assert target != "ort-cpu" or not kernels.unfused, name
        assert_near(found, expected, name)
    return "quantized"


def assert_near(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], name: str) -> None:
    """A few roundings to 1/255 of a range each stay inside; a wrong scale or axis is far outside."""
    for output, values in expected.items():
        if values.dtype.kind == "f" and values.size and not any(word in name for word in WIDE):
            bound = 0.1 * np.abs(values[np.isfinite(values)]).max(initial=0) + 1e-6
            np.testing.assert_allclose(found[output], values, rtol=0, atol=bound, err_msg=name)


def run_suite(folder: Path, target: str, step: int) -> Counter[str]:
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
            counts[convert_and_check(name, path, feed, target)] += 1
        except QuantcliError as error:
            counts["too old or too new" if error.code == "M105" else "refused"] += 1
            refused.append((name, error.code, error.message))
    assert [case for case in refused if case[1] not in REFUSALS] == []
    return counts


@pytest.mark.parametrize("target", ["ort-cpu", "generic"])
def test_a_share_of_the_suite_converts_or_is_refused(target: str, tmp_path: Path) -> None:
    counts = run_suite(tmp_path, target, step=6)
    assert counts["quantized"] >= 10
    assert counts["unchanged"] >= 100


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort-cpu", "generic"])
def test_the_whole_suite_converts_or_is_refused(target: str, tmp_path: Path) -> None:
    counts = run_suite(tmp_path, target, step=1)
    assert counts["quantized"] >= 80
    assert counts["unchanged"] >= 1000
    assert counts["refused"] <= 6

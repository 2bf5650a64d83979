import math
from pathlib import Path

import numpy as np
import pytest
from toy_models import FLOAT, Samples, half_steps, qdq_text, save

from quantcli.errors import RuntimeFailure, UsageError
from quantcli.evaluate.checks import CheckOptions
from quantcli.evaluate.compare import compare_models
from quantcli.report.to_json import from_json, to_json

DATA = half_steps(40)


@pytest.fixture
def models(tmp_path):
    return save(FLOAT, tmp_path / "net.onnx"), save(qdq_text(), tmp_path / "net.int8.onnx")


def checked(models, *gates, **options):
    return compare_models(*models, dataset=Samples({"x": DATA}), checks=CheckOptions(**options), gates=gates)


def test_an_exact_model_passes_every_check(models):
    report = checked(models)
    (share,) = report.attribution
    assert (share.output, share.weights_only, share.activations_only, share.both) == ("logits", *[math.inf] * 3)
    (fusion,) = report.fusion
    assert (fusion.steps, fusion.flagged) == (0.0, False)
    assert [(item.op, item.count) for item in report.kernels.integer] == [("MatMulIntegerToFloat", 1)]
    assert (report.saturation.layers, report.saturation.safe, report.saturation.samples) == (1, 1, 0)
    assert report.memory is None
    assert from_json(to_json(report)) == report


def test_without_samples_only_the_weights_speak(models):
    report = compare_models(*models, checks=CheckOptions())
    assert report.saturation.layers == 1
    assert (report.kernels, report.fusion, report.attribution) == (None, (), ())


def test_without_checks_nothing_is_looked_at(models):
    report = compare_models(*models, dataset=Samples({"x": DATA}))
    assert (report.saturation, report.kernels, report.fusion) == (None, None, ())


def test_a_layer_that_saturates_is_emulated(tmp_path):
    full = [127, 1, 1, 127, *[1] * 8]  # the first column begins with 127, 127: neighbours
    models = save(FLOAT, tmp_path / "a.onnx"), save(qdq_text(codes=full), tmp_path / "b.onnx")
    data = Samples({"x": np.full((4, 4), 60, np.float32)})
    report = compare_models(*models, dataset=data, checks=CheckOptions(), gates=["no_vnni_sqnr>=100:warn"])
    assert [risk.node for risk in report.saturation.risks] == ["fc"]
    assert report.saturation.saturated == 1 / 6  # one of 3 · 2 pairs
    assert report.saturation.samples == 4
    (output,) = report.saturation.outputs
    # x is 60 / 0.5 + 128 = 248 in steps; the exact sum of the first column is 120 · (127 + 127 + 1 + 1)
    lost = 0.25 * (248 * 254 - 32767)
    exact = 0.25 * 120 * np.array([256, 4, 4])
    reference = 60 * np.array([0.5 + 2 - 1 + 1, 1 + 0.5 + 3 + 1, -1.5 + 1 + 0.5 - 2])
    noise = np.sum((reference - (exact - np.array([lost, 0, 0]))) ** 2)
    assert output.sqnr == pytest.approx(10 * math.log10(np.sum(reference**2) / noise))
    assert output.sqnr_exact == pytest.approx(
        10 * math.log10(np.sum(reference**2) / np.sum((reference - exact) ** 2))
    )
    assert report.gates[0].value == output.sqnr


@pytest.mark.parametrize(
    ("gate", "value"),
    [
        ("weights_only_sqnr>=60", math.inf),
        ("logits.activations_only_sqnr>=60", math.inf),
        ("no_vnni_sqnr>=60", math.inf),
        ("fusion_steps<=2", 0.0),
        ("unfused_nodes==0", 0.0),
        ("saturation_risks==0", 0.0),
    ],
)
def test_gates_read_the_checks(models, gate, value):
    (result,) = checked(models, gate).gates
    assert (result.status, result.value) == ("pass", value)


def test_a_gate_on_memory_is_held_against_the_ratio(models):
    report = checked(models, "memory_ratio<=1000", memory=True, samples=0, emulated=0, kernels=False)
    assert report.memory.baseline_bytes > 2**20
    assert report.gates[0].value == report.memory.ratio
    assert 0.2 < report.memory.ratio < 5  # of two models of a few numbers: no more than the processes vary by
    assert any("says little" in note for note in report.notes)


@pytest.mark.parametrize("gate", ["fusion_steps<=2", "unfused_nodes==0", "memory_ratio<=1"])
def test_gates_on_what_is_not_checked_are_refused(models, gate):
    with pytest.raises(UsageError, match="which is not given"):
        compare_models(*models, dataset=Samples({"x": DATA}), gates=[gate])


def test_memory_needs_samples(models):
    with pytest.raises(UsageError, match="measuring memory needs samples"):
        compare_models(*models, checks=CheckOptions(memory=True))


def test_a_gate_on_an_output_without_a_value_is_not_measured(models):
    report = checked(models, "fusion_steps<=2", samples=1)
    assert report.gates[0].status == "pass"
    alone = compare_models(
        *models, dataset=Samples({"x": DATA}), checks=CheckOptions(emulated=0), gates=["weights_only_sqnr>=1"]
    )
    assert alone.gates[0].status == "pass"


def test_a_check_that_breaks_off_is_told_and_undoes_nothing(models, monkeypatch):
    def broken(*_, **__):
        raise RuntimeFailure("R102", "no such kernel")

    monkeypatch.setattr("quantcli.evaluate.checks.attribute_error", broken)
    report = checked(models)
    assert any("broke off: no such kernel" in note for note in report.notes)
    assert report.outputs[0].sqnr == math.inf


def test_a_model_that_is_not_quantized_is_not_checked(tmp_path):
    path = save(FLOAT, tmp_path / "a.onnx")
    report = compare_models(path, path, dataset=Samples({"x": DATA}), checks=CheckOptions())
    assert (report.attribution, report.fusion, report.kernels, report.saturation) == ((), (), None, None)


def test_the_fingerprint_of_a_run_does_not_depend_on_the_machine(models):
    assert str(Path.cwd()) not in to_json(checked(models))

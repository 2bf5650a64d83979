import gzip
import hashlib
import math

import numpy as np
import onnx
import onnx.parser
import pytest
from toy_models import CODES, FLOAT, Samples, half_steps, qdq_text, save

from quantcli.errors import RuntimeFailure, UsageError
from quantcli.evaluate.compare import LatencyOptions, compare_models
from quantcli.progress import SilentProgress
from quantcli.report.to_json import from_json, to_json

DATA = half_steps(200)
LABELS = (DATA @ (np.array(CODES).reshape(4, 3) / 2)).argmax(1)


@pytest.fixture
def original(tmp_path):
    return save(FLOAT, tmp_path / "net.onnx")


@pytest.fixture
def quantized(tmp_path):
    return save(qdq_text(), tmp_path / "net.int8.onnx")


def test_without_data_files_graphs_and_weights_are_compared(original, quantized):
    report = compare_models(original, quantized, compressed=True, command="quantcli compare a b")
    assert (report.original.name, report.quantized.name) == ("net.onnx", "net.int8.onnx")
    assert report.original.sha256 == hashlib.sha256(original.read_bytes()).hexdigest()
    assert report.original.bytes == original.stat().st_size
    assert report.size.ratio == quantized.stat().st_size / original.stat().st_size
    assert report.original.gzip_bytes == pytest.approx(len(gzip.compress(original.read_bytes(), 6)), abs=12)
    assert (report.structure.original.compute_float, report.structure.quantized.compute_quantized) == (1, 1)
    assert report.weights.layers[0].sqnr == math.inf
    assert (report.outputs, report.data, report.accuracy, report.latency, report.threads) == (
        (),
        None,
        None,
        None,
        None,
    )
    assert report.verdict.status == "no-gates"
    assert set(report.tools) == {"quantcli", "onnx", "onnxruntime", "numpy"}
    assert report.command == "quantcli compare a b"
    assert from_json(to_json(report)) == report


def test_with_data_labels_and_timing_everything_is_compared(original, quantized):
    report = compare_models(
        original,
        quantized,
        dataset=Samples({"x": DATA}),
        labels=LABELS,
        latency=LatencyOptions(repeats=6),
        gates=["sqnr>=inf", "logits.cosine>=1", "top1_agreement>=95%", "accuracy>=95%", "accuracy_drop<=5pp",
               "size_ratio<=10", "float_nodes<=0", "quantized_nodes>=1", "weight_sqnr>=40", "latency_ratio<=1000"],
    )  # fmt: skip
    assert [gate.status for gate in report.gates] == ["pass"] * 10
    assert report.verdict.status == "pass"
    assert (report.accuracy.original.value, report.accuracy.quantized.value, report.accuracy.drop) == (
        1.0,
        1.0,
        0.0,
    )
    assert (report.data.name, report.data.samples, report.data.synthetic) == ("toy.npz", 200, False)
    assert report.data.notes == ("cast to float32",)
    assert (report.latency.pairs, report.latency.threads, report.threads) == (6, 1, 1)
    assert from_json(to_json(report)) == report


def test_without_timing_the_report_is_the_same_byte_for_byte(original, quantized):
    texts = {
        to_json(compare_models(original, quantized, dataset=Samples({"x": DATA}), labels=LABELS)) for _ in range(2)
    }
    assert len(texts) == 1


FAULTS = {
    "scale doubled": (qdq_text(scale=1.0), "sqnr>=10"),
    "channels swapped": (
        qdq_text(codes=np.array(CODES).reshape(4, 3)[:, [1, 0, 2]].ravel()),
        "top1_agreement>=90%",
    ),
    "rows swapped": (qdq_text(codes=np.array(CODES).reshape(4, 3)[[1, 0, 2, 3]].ravel()), "cosine>=0.9"),
    "zero point shifted": (qdq_text().replace("int8 wz = {0}", "int8 wz = {2}"), "weight_sqnr>=10"),
    "activation zero point shifted": (qdq_text().replace("xz = {128}", "xz = {250}"), "cosine>=0.9"),
    "labels lost": (qdq_text(codes=[1] * 12), "accuracy_drop<=1pp"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_model_fails_its_gate(fault, original, tmp_path):
    text, gate = FAULTS[fault]
    broken = save(text, tmp_path / "broken.onnx")
    report = compare_models(original, broken, dataset=Samples({"x": DATA}), labels=LABELS, gates=[gate])
    assert report.verdict.status == "fail", report.gates[0].sentence
    assert report.gates[0].margin < 0


def test_a_weight_changed_by_more_than_rounding_is_remarked(original, tmp_path):
    report = compare_models(original, save(qdq_text(scale=1.0), tmp_path / "b.onnx"))
    assert "1 of 1 weights differ by more than rounding" in report.notes[0]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"gates": ["sqnr>=1"]}, "G104"),
        ({"gates": ["latency_ratio<=1"], "dataset": Samples({"x": DATA})}, "G104"),
        ({"gates": ["accuracy>=0.5"], "dataset": Samples({"x": DATA})}, "G104"),
        ({"labels": LABELS}, "G104"),
        ({"latency": LatencyOptions()}, "G104"),
        ({"gates": ["nonsense>=1"]}, "G101"),
        ({"gates": ["boxes.sqnr>=1"], "dataset": Samples({"x": DATA})}, "G106"),
        ({"labels": LABELS, "dataset": Samples({"x": DATA}, synthetic=True)}, "G105"),
        ({"dataset": Samples({"x": DATA}), "latency": LatencyOptions(repeats=3)}, "G204"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_sample_is_read(original, quantized, options, code):
    with pytest.raises(UsageError) as caught:
        compare_models(original, quantized, **options)
    assert caught.value.code == code


def test_made_up_samples_are_remembered(original, quantized):
    report = compare_models(original, quantized, dataset=Samples({"x": DATA}, synthetic=True), gates=["sqnr>=1"])
    assert report.synthetic
    assert report.verdict.status == "pass"


def test_a_model_that_does_not_load_is_named(original, tmp_path):
    head = '<ir_version: 8, opset_import: ["" : 13, "no.such" : 1]>'
    text = head + "net (float[N,4] x) => (float[N,3] y) { [c] y = no.such.Op(x) }"
    with pytest.raises(RuntimeFailure, match=r"'odd\.onnx'") as caught:
        compare_models(original, save(text, tmp_path / "odd.onnx"), dataset=Samples({"x": DATA}))
    assert caught.value.code == "R101"


def test_external_data_count_in_size_and_digest(tmp_path, quantized):
    model = onnx.parser.parse_model(FLOAT)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((4, 3), np.float32), "w"))
    path = tmp_path / "big.onnx"
    onnx.save(model, path, save_as_external_data=True, location="big.data", size_threshold=0)
    report = compare_models(path, quantized)
    assert report.original.external_bytes == (tmp_path / "big.data").stat().st_size == 48
    assert report.original.bytes == path.stat().st_size + 48


def test_nodes_in_bodies_are_counted(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 13]>
    net (bool c, float[2] x) => (float[2] y) {
      [branch] y = If (c) <
        then_branch = a () => (float[2] p) { p = Relu(x) }, else_branch = b () => (float[2] q) { q = Neg(x) }>
    }"""
    path = save(text, tmp_path / "if.onnx")
    report = compare_models(path, path)
    assert not report.notes
    assert report.structure.original.nodes == 3


def test_every_stage_of_progress_ends(original, quantized):
    class Stages(SilentProgress):
        def __init__(self):
            self.events = []

        def start(self, stage, total):
            self.events.append(f"{stage} {total}")

        def finish(self):
            self.events.append("done")

    stages = Stages()
    options = LatencyOptions(repeats=7)
    compare_models(original, quantized, dataset=Samples({"x": DATA}), latency=options, progress=stages)
    assert stages.events == ["compare 200", "done", "latency 7", "done"]


def test_models_without_node_names_are_compared(tmp_path):
    text = FLOAT.replace("[fc]", "")
    quantized = qdq_text()
    for name in ("q", "dq", "wdq", "fc"):
        quantized = quantized.replace(f"[{name}]", "")
    report = compare_models(save(text, tmp_path / "a.onnx"), save(quantized, tmp_path / "b.onnx"))
    assert report.weights.matched == 1
    assert report.structure.original.float_compute[0].name == "MatMul_logits"

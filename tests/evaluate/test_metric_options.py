import numpy as np
import pytest
from toy_models import FLOAT, Samples, half_steps, qdq_text, save

from quantcli.errors import UsageError
from quantcli.evaluate.compare import compare_models
from quantcli.evaluate.gate_syntax import parse_gate
from quantcli.evaluate.metric_options import MetricOptions, parse_range
from quantcli.evaluate.task_spec import parse_task
from quantcli.evaluate.user_metric import load_metric
from quantcli.report.to_json import from_json, to_json

DATA = half_steps(60)
CODE = """
def norm(outputs, inputs): return float((outputs["logits"] ** 2).sum())
norm.better = "lower"
def right(outputs, labels): return outputs["logits"].argmax(1)[0] == labels[0, 0]
"""


@pytest.fixture
def pair(tmp_path):
    (tmp_path / "own.py").write_text(CODE)
    return save(FLOAT, tmp_path / "net.onnx"), save(qdq_text(scale=0.45), tmp_path / "net.int8.onnx")


def own(pair, name, prefix=""):
    return load_metric(f"{prefix}{pair[0].parent / 'own.py'}:{name}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("255", (None, 255)), ("0:1", (None, 1)), ("y=-1:1", ("y", 2)), ("a=b=2.5", ("a=b", 2.5))],
)
def test_a_range_is_a_length_or_two_ends(text, expected):
    assert parse_range(text) == expected


@pytest.mark.parametrize("text", ["", "x", "0", "-3", "1:0", "1:1", "=3", "y=", "inf", "nan", "0:inf"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_range(text)
    assert caught.value.code == "G108"


def test_psnr_is_the_range_over_the_error(pair):
    report = compare_models(*pair, dataset=Samples({"x": DATA}), metrics=MetricOptions(ranges={None: 40.0}))
    (out,) = report.outputs
    weights = np.array([0.5, 1, -1.5, 2, 0.5, 1, -1, 3, 0.5, 1, 1, -2]).reshape(4, 3)
    error = DATA.astype(float) @ weights * 0.1  # the scale is 0.45 in place of 0.5
    assert out.psnr == pytest.approx(20 * np.log10(40 / np.sqrt((error**2).mean())), abs=1e-4)
    assert out.peak == 40.0


def test_an_exact_output_has_an_infinite_psnr(pair, tmp_path):
    exact = save(qdq_text(), tmp_path / "exact.onnx")
    options = MetricOptions(ranges={"logits": 1.0})
    report = compare_models(pair[0], exact, dataset=Samples({"x": DATA}), metrics=options, gates=["psnr>=90"])
    assert (report.outputs[0].psnr, report.verdict.status) == (np.inf, "pass")


def test_gates_say_which_numbers_of_classes_are_measured(pair):
    report = compare_models(*pair, dataset=Samples({"x": DATA}), gates=["top2_agreement>=1%"])
    assert [found.k for found in report.outputs[0].topk] == [2]
    assert report.verdict.status == "pass"
    assert compare_models(*pair, dataset=Samples({"x": DATA})).outputs[0].topk == ()


def test_metrics_of_the_user_are_in_the_report_and_in_gates(pair):
    labels = np.arange(60)[:, None] % 3  # fit no output: for the metric only
    options = MetricOptions(functions=(own(pair, "norm"), own(pair, "right", "hits=")))
    report = compare_models(
        *pair,
        dataset=Samples({"x": DATA}),
        labels=labels,
        metrics=options,
        gates=["norm_drop<=0", "hits_drop<=20pp"],
    )
    norm, hits = report.metrics
    assert (norm.name, norm.better, hits.name) == ("norm", "lower", "hits")
    assert norm.drop == pytest.approx((0.9**2 - 1) * norm.original)
    assert (hits.original, hits.drop, hits.interval) == (hits.quantized, 0, "paired")
    assert [gate.status for gate in report.gates] == ["pass", "pass"]
    assert report.accuracy is None
    assert any("labels fit no output" in note for note in report.notes)
    assert from_json(to_json(report)) == report


@pytest.mark.parametrize("rows", [1, 4])
def test_labels_of_a_call_are_its_rows(pair, rows):
    (pair[0].parent / "rows.py").write_text(
        "def count(outputs, labels): return labels.shape[0] + labels[0] / 1000\n"
    )
    options = MetricOptions(functions=(load_metric(f"{pair[0].parent / 'rows.py'}:count"),))
    report = compare_models(
        *pair, dataset=Samples({"x": DATA}, rows=rows), labels=np.zeros(60, int), metrics=options
    )
    assert report.metrics[0].original == rows
    assert report.accuracy is not None


@pytest.mark.parametrize(
    ("options", "given", "code"),
    [
        ({"tasks": (parse_task("segmentation?truth=a.npy"),)}, {"data": False}, "G104"),
        ({"ranges": {None: 1.0}}, {"data": False}, "G104"),
        ({"top_k": (3,)}, {"data": False}, "G104"),
        ({"tasks": (parse_task("segmentation?truth=a.npy"),)}, {"synthetic": True}, "G105"),
        ({"tasks": (parse_task("segmentation?truth=a.npy"),) * 2}, {}, "G107"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, given, code):
    with pytest.raises(UsageError) as caught:
        MetricOptions(**options).check(**{"data": True, "labels": True, "synthetic": False, **given})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("names", "given", "code"),
    [
        (("norm", "norm="), {}, "G108"),
        (("sqnr=",), {}, "G108"),
        (("top9_accuracy=",), {}, "G108"),
        (("right",), {"labels": False}, "G104"),
        (("norm",), {"data": False}, "G104"),
    ],
)
def test_metrics_need_names_of_their_own_and_what_they_take(pair, names, given, code):
    functions = tuple(
        own(pair, "norm", f"{name.removesuffix('=') or 'norm'}=") if "=" in name else own(pair, name)
        for name in names
    )
    options = MetricOptions(functions=functions)
    with pytest.raises(UsageError) as caught:
        options.check(**{"data": True, "labels": True, "synthetic": False, **given})
    assert caught.value.code == code


def test_a_range_of_an_output_that_does_not_exist_is_refused(pair):
    with pytest.raises(UsageError, match="--output-range names the output 'z'"):
        compare_models(*pair, dataset=Samples({"x": DATA}), metrics=MetricOptions(ranges={"z": 1.0}))


def test_a_decoder_has_to_be_a_function(tmp_path):
    task = parse_task("detection?truth=a.npy&boxes=xyxy&decode=own.py")
    np.save(tmp_path / "a.npy", np.zeros((1, 6)))
    with pytest.raises(UsageError, match="names no function"):
        MetricOptions(tasks=(task,)).scorers()


def test_numbers_of_classes_come_from_options_and_gates():
    options = MetricOptions(top_k=(7,)).for_gates([parse_gate("top3_agreement>=1%"), parse_gate("sqnr>=1")])
    assert options.top_k == (3, 7)

import math

import numpy as np
import pytest
from toy_models import CODES, FLOAT, Samples, half_steps, qdq_text, save

from quantcli.errors import DataError, ModelError, RuntimeFailure, UsageError
from quantcli.evaluate.outputs import compare_outputs
from quantcli.progress import SilentProgress
from quantcli.runtime.session import Session

HEAD = '<ir_version: 8, opset_import: ["" : 13]>\n'


@pytest.fixture
def session(tmp_path):
    """Opens the model that a text says."""
    made = iter(range(100))
    return lambda text: Session(save(text, tmp_path / f"m{next(made)}.onnx"))


def test_an_exactly_representable_model_has_no_error(session):
    found = compare_outputs(session(FLOAT), session(qdq_text()), Samples({"x": half_steps(40)}))
    (out,) = found.outputs
    assert (out.sqnr, out.rmse, out.max_abs, out.cosine, out.cosine_min) == (math.inf, 0.0, 0.0, 1.0, 1.0)
    assert (out.samples, out.elements, out.top1.value, out.class_axis) == (40, 120, 1.0, 1)
    assert found.samples == 40
    assert found.accuracy is None
    assert found.notes == ()


def test_a_doubled_scale_is_seen_by_sqnr_though_not_by_cosine_or_argmax(session):
    found = compare_outputs(session(FLOAT), session(qdq_text(scale=1.0)), Samples({"x": half_steps(40)}))
    (out,) = found.outputs
    assert out.sqnr == pytest.approx(0.0, abs=1e-9)  # the error is as large as the signal
    assert out.cosine == pytest.approx(1.0, abs=1e-12)
    assert out.top1.value == 1.0


def test_swapped_channels_are_seen_by_all_metrics(session):
    swapped = np.array(CODES).reshape(4, 3)[:, [1, 0, 2]].ravel().tolist()
    found = compare_outputs(session(FLOAT), session(qdq_text(codes=swapped)), Samples({"x": half_steps(80)}))
    (out,) = found.outputs
    assert out.sqnr < 10
    assert out.cosine < 0.9
    assert out.top1.value < 0.7


def test_the_metrics_are_those_of_all_samples_stacked(session):
    data = half_steps(30)
    codes = [code + (index % 3 == 0) for index, code in enumerate(CODES)]
    (out,) = compare_outputs(session(FLOAT), session(qdq_text(codes=codes)), Samples({"x": data})).outputs
    reference = data @ (np.array(CODES).reshape(4, 3) / 2)
    other = data @ (np.array(codes).reshape(4, 3) / 2)
    error = reference - other
    assert out.sqnr == pytest.approx(10 * np.log10((reference**2).sum() / (error**2).sum()), rel=1e-9)
    assert out.rmse == pytest.approx(np.sqrt((error**2).mean()), rel=1e-9)
    assert out.max_abs == np.abs(error).max()
    assert out.top1.value == np.mean(reference.argmax(1) == other.argmax(1))
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(other, axis=1)
    assert out.cosine == pytest.approx(np.mean((reference * other).sum(1) / norms), rel=1e-9)


def test_batches_give_the_same_agreement_as_single_samples(session):
    data, codes = half_steps(30), [code + (index % 3 == 0) for index, code in enumerate(CODES)]
    models = session(FLOAT), session(qdq_text(codes=codes))
    single = compare_outputs(*models, Samples({"x": data})).outputs[0]
    batch = compare_outputs(*models, Samples({"x": data}, rows=7)).outputs[0]
    assert batch.top1 == single.top1
    assert batch.sqnr == pytest.approx(single.sqnr, rel=1e-12)


class Recorder(SilentProgress):
    def __init__(self):
        self.events = []

    def start(self, stage, total):
        self.events.append((stage, total))

    def advance(self, steps=1):
        self.events.append(steps)

    def finish(self):
        self.events.append("done")


def test_progress_is_told_of_every_sample(session):
    recorder = Recorder()
    compare_outputs(session(FLOAT), session(FLOAT), Samples({"x": half_steps(2)}), progress=recorder)
    assert recorder.events == [("compare", 2), 1, 1, "done"]


def test_a_data_set_without_samples_is_an_error(session):
    with pytest.raises(DataError, match="holds no samples") as caught:
        compare_outputs(session(FLOAT), session(FLOAT), Samples({"x": half_steps(0)}))
    assert caught.value.code == "D106"


def test_a_sample_without_an_input_is_an_error_that_names_it(session):
    with pytest.raises(DataError, match="sample 0 has no value for the input 'x'"):
        compare_outputs(session(FLOAT), session(FLOAT), Samples({"y": half_steps(1)}))


def test_a_model_that_fails_at_run_time_is_reported(session):
    with pytest.raises(RuntimeFailure) as caught:
        compare_outputs(session(FLOAT), session(FLOAT), Samples({"x": np.zeros((1, 9), np.float32)}))
    assert caught.value.code == "R102"


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ("net (float[N,4] z) => (float[N,4] y) { y = Relu(z) }", "'x' exists in the original only; 'z'"),
        ("net (double[N,4] x) => (double[N,4] y) { y = Relu(x) }", r"float32 \[N,4\] in the original and float64"),
        ("net (float[N,5] x) => (float[N,5] y) { y = Relu(x) }", r"\[N,5\] in the quantized model"),
        ("net (float[4] x) => (float[4] y) { y = Relu(x) }", r"float32 \[4\] in the quantized"),
    ],
)
def test_models_with_other_inputs_are_refused(session, other, complaint):
    with pytest.raises(ModelError, match=complaint) as caught:
        compare_outputs(session(FLOAT), session(HEAD + other), Samples({"x": half_steps(1)}))
    assert caught.value.code == "G201"


TWO = HEAD + "net (float[N,4] x) => (float[N,4] %s, float[N,4] %s) { %s = Relu(x)  %s = Neg(x) }"


def test_outputs_are_matched_by_name_whatever_their_order(session):
    models = session(TWO % ("a", "b", "a", "b")), session(TWO % ("b", "a", "a", "b"))
    found = compare_outputs(*models, Samples({"x": half_steps(3)}))
    assert [(out.name, out.sqnr) for out in found.outputs] == [("a", math.inf), ("b", math.inf)]
    assert found.notes == ()


def test_renamed_outputs_are_matched_by_position_with_a_note(session):
    models = session(TWO % ("a", "b", "a", "b")), session(TWO % ("b", "a_q", "b", "a_q"))
    found = compare_outputs(*models, Samples({"x": half_steps(3)}))
    assert [(out.name, out.quantized_name) for out in found.outputs] == [("a", "a_q"), ("b", "b")]
    assert "'a' with 'a_q'" in found.notes[0]


def test_an_output_that_only_the_quantized_model_has_is_noted(session):
    one = HEAD + "net (float[N,4] x) => (float[N,4] a) { a = Relu(x) }"
    found = compare_outputs(session(one), session(TWO % ("a", "b", "a", "b")), Samples({"x": half_steps(3)}))
    assert [out.name for out in found.outputs] == ["a"]
    assert found.notes == ("outputs that only the quantized model has were not compared: 'b'",)


def test_outputs_that_cannot_be_matched_are_refused(session):
    one = HEAD + "net (float[N,4] x) => (float[N,4] c) { c = Relu(x) }"
    with pytest.raises(ModelError, match="cannot be matched") as caught:
        compare_outputs(session(TWO % ("a", "b", "a", "b")), session(one), Samples({"x": half_steps(3)}))
    assert caught.value.code == "G202"


def test_models_without_a_numeric_output_are_refused(session):
    text = HEAD + "net (float[4] x) => (seq(float[4]) s) { s = SequenceConstruct(x) }"
    with pytest.raises(ModelError, match="nothing can be compared"):
        compare_outputs(session(text), session(text), Samples({"x": half_steps(3)[0:1]}))


def test_outputs_that_differ_by_axes_of_length_1_are_compared(session):
    flat = HEAD + "net (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
    deep = HEAD + (
        "net (float[N,4] x) => (float[N,4,1,1] y) <int64[4] s = {-1,4,1,1}> { r = Relu(x)  y = Reshape(r, s) }"
    )
    for models in ((flat, deep), (deep, flat)):
        (out,) = compare_outputs(session(models[0]), session(models[1]), Samples({"x": half_steps(5)})).outputs
        assert (out.sqnr, out.shape_mismatches, out.top1.value) == (math.inf, 0, 1.0)


def test_other_shapes_are_counted_and_not_compared(session):
    """NonZero of different values: as many columns as there are nonzero elements."""
    text = HEAD + "net (float[N,4] x) => (int64[2,K] y) <float t = {%s}> { c = Sub(x, t)  y = NonZero(c) }"
    data = np.array([[1, 0, 0, 0], [5, 5, 5, 5]], dtype=np.float32)
    (out,) = compare_outputs(session(text % 0), session(text % 1), Samples({"x": data})).outputs
    assert (out.shape_mismatches, out.samples, out.sqnr, out.top1) == (1, 2, math.inf, None)


def test_shapes_may_change_from_sample_to_sample(session):
    text = HEAD + "net (float[N,L] x) => (float[N,L] y) { y = Neg(x) }"

    class Ragged(Samples):
        def __iter__(self):
            for length in (3, 1, 5):
                yield {"x": np.ones((1, length), np.float32)}

    found = compare_outputs(session(text), session(text), Ragged({"x": np.zeros(3)}))
    assert found.outputs[0].elements == 9


def test_a_nan_in_one_model_makes_the_error_infinite(session):
    root = HEAD + "net (float[N,4] x) => (float[N,4] y) { y = Sqrt(x) }"
    plain = HEAD + "net (float[N,4] x) => (float[N,4] y) { a = Abs(x)  y = Sqrt(a) }"
    data = np.array([[1, 4, 9, 16], [1, -4, 9, 16]], dtype=np.float32)
    (out,) = compare_outputs(session(plain), session(root), Samples({"x": data})).outputs
    assert (out.nonfinite_quantized, out.nonfinite_original, out.nonfinite_differ) == (1, 0, 1)
    assert out.sqnr == -math.inf


def test_labels_give_the_accuracy_of_both_models(session):
    data = half_steps(60)
    codes = [code + (index % 3 == 0) for index, code in enumerate(CODES)]
    labels = (data @ (np.array(CODES).reshape(4, 3) / 2)).argmax(1)
    labels[::4] = (labels[::4] + 1) % 3
    models = session(FLOAT), session(qdq_text(codes=codes))
    found = compare_outputs(*models, Samples({"x": data}), labels=labels).accuracy
    other = (data @ (np.array(codes).reshape(4, 3) / 2)).argmax(1)
    assert found.original.value == 0.75
    assert found.quantized.value == np.mean(other == labels)
    assert found.drop == pytest.approx(0.75 - np.mean(other == labels))
    assert found.drop_low < found.drop < found.drop_high
    assert (found.output, found.ignored) == ("logits", 0)
    batched = compare_outputs(*models, Samples({"x": data}, rows=16), labels=labels).accuracy
    assert batched == found


SEQUENCE = HEAD + (
    "net (float[N,L,4] x) => (float[N,4] pooled, float[N,L,4] logits) "
    "<int64[1] a = {1}> { logits = Neg(x)  pooled = ReduceSum<keepdims = 0>(logits, a) }"
)


def test_labels_per_position_find_the_output_that_fits_and_skip_negative_ones(session):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(6, 5, 4)).astype(np.float32)
    labels = (-data).argmax(2)
    labels[:, 4] = -100
    labels[0, 0] = (labels[0, 0] + 1) % 4
    found = compare_outputs(session(SEQUENCE), session(SEQUENCE), Samples({"x": data}), labels=labels).accuracy
    assert found.output == "logits"
    assert found.original.value == pytest.approx(23 / 24)
    assert (found.ignored, found.original.trials, found.original.samples) == (6, 24, 6)


def test_labels_go_to_the_first_output_that_fits_or_to_the_one_named(session):
    data = np.ones((3, 4), dtype=np.float32) * np.arange(4, dtype=np.float32)
    both = session(TWO % ("a", "b", "a", "b"))
    labels = np.array([3, 3, 0])
    assert compare_outputs(both, both, Samples({"x": data}), labels=labels).accuracy.output == "a"
    found = compare_outputs(both, both, Samples({"x": data}), labels=labels, output_for_labels="b").accuracy
    assert (found.output, found.original.value) == ("b", pytest.approx(1 / 3))
    with pytest.raises(UsageError, match="names the output 'c'"):
        compare_outputs(both, both, Samples({"x": data}), labels=labels, output_for_labels="c")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("count", [2, 4])
def test_as_many_labels_as_samples_are_needed(session, known, count):
    model = session(FLOAT)
    with pytest.raises(DataError, match=f"there are {count} labels") as caught:
        compare_outputs(model, model, Samples({"x": half_steps(3)}, known=known), labels=np.zeros(count, int))
    assert caught.value.code == "D121"


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        (np.array([0, 1, 3]), "there is a label 3, and output 'logits' has classes 0 to 2"),
        (np.zeros((3, 2), int), r"fit no output; there are 'logits' \[1, 3\]"),
        (np.zeros(3), "labels are class numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(session, labels, complaint):
    model = session(FLOAT)
    with pytest.raises(DataError, match=complaint) as caught:
        compare_outputs(model, model, Samples({"x": half_steps(3)}), labels=labels)
    assert caught.value.code == "G203"


def test_labels_that_are_all_void_are_refused(session):
    model = session(FLOAT)
    with pytest.raises(DataError, match="all labels are below zero"):
        compare_outputs(model, model, Samples({"x": half_steps(3)}), labels=np.full(3, -1))

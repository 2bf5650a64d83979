import numpy as np
import pytest

from quantcli.data.user_code import load_callable
from quantcli.errors import DataError, UsageError
from quantcli.evaluate.detection import DetectionScorer, boxes_of
from quantcli.evaluate.scoring import Observation
from quantcli.evaluate.task_spec import parse_task

TRUTH = np.array([[0, 1, 10, 10, 30, 30], [0, 2, 50, 50, 90, 70], [1, 1, 5, 5, 25, 45]], float)

GOOD = [
    np.array([[10, 10, 30, 30, 0.9, 1], [50, 50, 90, 70, 0.8, 2]], np.float32),
    np.array([[5, 5, 25, 45, 0.7, 1], [0, 0, 4, 4, 0.1, 2]], np.float32),
]
POOR = [np.where([[True]], GOOD[0], 0)[:1], GOOD[1]]  # one box of the first image is missing


def spec(tmp_path, options="&boxes=xyxy", truth=TRUTH):
    np.save(tmp_path / "truth.npy", truth)
    return parse_task(f"detection?truth={tmp_path / 'truth.npy'}{options}")


def run(scorer, original, quantized):
    for index, (ours, theirs) in enumerate(zip(original, quantized, strict=True)):
        outputs = [one if isinstance(one, dict) else {"y": one} for one in (ours, theirs)]
        scorer.observe(Observation(index=index, inputs={}, original=outputs[0], quantized=outputs[1]))
    return {metric.name: metric for metric in scorer.results()}


def test_a_missing_object_costs_its_class_its_precision(tmp_path):
    found = run(DetectionScorer(spec(tmp_path)), GOOD, POOR)
    assert (found["map"].original, found["map50"].original) == (pytest.approx(1), pytest.approx(1))
    # class 1 is found twice; class 2 never
    assert found["map50"].quantized == pytest.approx(0.5)
    assert [(c.label, c.samples, c.original, c.quantized) for c in found["map"].classes] == [
        ("1", 2, pytest.approx(1), pytest.approx(1)),
        ("2", 1, pytest.approx(1), 0),
    ]
    assert found["map"].interval == "bootstrap"
    assert found["map"].drop == pytest.approx(0.5)
    assert found["map"].drop_low <= 0.5 <= found["map"].drop_high


def same(tmp_path, outputs, options):
    """MAP of outputs that say what GOOD says."""
    return run(DetectionScorer(spec(tmp_path, options)), outputs, outputs)["map"].original


def with_scores(rows, classes=4):
    table = np.zeros((len(rows), 4 + classes), np.float32)
    table[:, :4] = rows[:, :4]
    table[np.arange(len(rows)), 4 + rows[:, 5].astype(int)] = rows[:, 4]
    return table


def test_every_form_of_output_says_the_same(tmp_path):
    batch = [rows[None] for rows in GOOD]
    assert same(tmp_path, batch, "&boxes=xyxy") == pytest.approx(1)
    flipped = [rows[:, [0, 1, 2, 3, 5, 4]] for rows in GOOD]
    assert same(tmp_path, flipped, "&boxes=xyxy&columns=class,score") == pytest.approx(1)
    scores = [with_scores(rows) for rows in GOOD]
    assert same(tmp_path, scores, "&boxes=xyxy&columns=scores") == pytest.approx(1)
    objects = [np.insert(table, 4, 0.5, axis=1) for table in scores]
    assert same(tmp_path, objects, "&boxes=xyxy&columns=object,scores") == pytest.approx(1)
    centres = [
        np.hstack([(rows[:, :2] + rows[:, 2:4]) / 2 / 100, (rows[:, 2:4] - rows[:, :2]) / 100, rows[:, 4:]])
        for rows in GOOD
    ]
    assert same(tmp_path, centres, "&boxes=cxcywh&scale=100") == pytest.approx(1)
    apart = [{"b": r[None, :, :4], "s": r[None, :, 4], "c": r[None, :, 5].astype(np.int64)} for r in GOOD]
    names = "&boxes-output=b&scores-output=s"
    assert same(tmp_path, apart, f"&boxes=xyxy{names}&classes-output=c") == pytest.approx(1)
    one_image = [{"b": r[:, :4], "s": r[:, 4], "c": r[:, 5]} for r in GOOD]
    assert same(tmp_path, one_image, f"&boxes=xyxy{names}&classes-output=c") == pytest.approx(1)
    by_class = [{"b": r[:, :4], "s": with_scores(r)[:, 4:]} for r in GOOD]
    assert same(tmp_path, by_class, f"&boxes=xyxy{names}") == pytest.approx(1)


def test_a_call_may_hold_several_images(tmp_path):
    batch = [np.stack(GOOD)]
    assert same(tmp_path, batch, "&boxes=xyxy") == pytest.approx(1)


def test_a_low_score_and_a_double_can_be_left_out(tmp_path):
    doubled = [np.vstack([rows, rows - [0, 0, 0, 0, 0.05, 0]]) for rows in GOOD]
    task = spec(tmp_path, "&boxes=xyxy&nms=0.5&score=0.2")
    scorer = DetectionScorer(task)
    run(scorer, doubled, doubled)
    assert [sum(len(found.scores) for found in image.values()) for image in scorer._images[0]] == [2, 1]


def test_images_without_detections_are_images(tmp_path):
    none = [np.empty((0, 6), np.float32)] * 2
    found = run(DetectionScorer(spec(tmp_path)), GOOD, none)
    assert (found["map"].quantized, found["map"].samples) == (0, 2)


def test_values_that_are_nan_find_nothing(tmp_path):
    broken = [np.full_like(rows, np.nan) for rows in GOOD]
    assert run(DetectionScorer(spec(tmp_path)), GOOD, broken)["map50"].quantized == 0


def test_a_decoder_makes_rows_or_outputs(tmp_path):
    (tmp_path / "own.py").write_text(
        "def rows(outputs): return outputs['raw'] * [10, 10, 10, 10, 1, 1]\n"
        "def named(outputs): return {'y': rows(outputs), 'z': outputs['raw']}\n"
        "def words(outputs): return 'words'\n"
        "def images(outputs): return [outputs['raw'][0], outputs['raw'][1][:1]]\n"
    )
    raw = [{"raw": rows / [10, 10, 10, 10, 1, 1], "more": rows} for rows in GOOD]

    def scorer(name, options="&boxes=xyxy"):
        return DetectionScorer(spec(tmp_path, options), load_callable(str(tmp_path / "own.py"), name, name, ""))

    assert run(scorer("rows"), raw, raw)["map"].original == pytest.approx(1)
    assert run(scorer("named", "&boxes=xyxy&output=y"), raw, raw)["map"].original == pytest.approx(1)
    batch = [{"raw": np.stack(GOOD)}]
    assert run(scorer("images"), batch, batch)["map"].original == pytest.approx(1)
    with pytest.raises(DataError, match="gave str, which is no array"):
        run(scorer("words"), raw, raw)


@pytest.mark.parametrize(
    ("outputs", "options", "message"),
    [
        ({"y": np.zeros((3, 5))}, "", "rows of 5 numbers are no box"),
        ({"y": np.zeros((3, 4))}, "&columns=scores", "rows of 4 numbers are no box"),
        ({"y": np.zeros(6)}, "", r"shape \[6\] holds no boxes"),
        (
            {"y": np.zeros((3, 6)), "z": np.zeros(3)},
            "",
            "does not say which output holds the boxes; there are y, z",
        ),
        ({"b": np.zeros((3, 5)), "s": np.zeros(3)}, "&boxes-output=b&scores-output=s", "holds no boxes"),
        ({"b": np.zeros((3, 4)), "s": np.zeros(2)}, "&boxes-output=b&scores-output=s", "do not belong together"),
    ],
)
def test_outputs_that_are_no_boxes_are_refused(tmp_path, outputs, options, message):
    with pytest.raises(DataError, match=message) as caught:
        boxes_of(outputs, spec(tmp_path, f"&boxes=xyxy{options}"))
    assert caught.value.code == "G109"


def test_outputs_that_do_not_exist_are_named(tmp_path):
    with pytest.raises(UsageError, match="names the output 'q'"):
        boxes_of({"y": GOOD[0]}, spec(tmp_path, "&boxes=xyxy&output=q"))


def test_a_truth_beyond_the_samples_is_refused_unless_samples_were_limited(tmp_path):
    with pytest.raises(DataError, match="objects in image 1, and there are 1 samples"):
        run(DetectionScorer(spec(tmp_path)), GOOD[:1], GOOD[:1])
    limited = run(DetectionScorer(spec(tmp_path), limited=True), GOOD[:1], GOOD[:1])
    assert limited["map"].samples == 1


def test_models_that_see_other_numbers_of_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="2 images of one model, 1 of the other"):
        run(DetectionScorer(spec(tmp_path)), [np.stack(GOOD)], [GOOD[0]])


def test_images_without_a_truth_have_no_precision(tmp_path):
    truth = np.add(TRUTH, [5, 0, 0, 0, 0, 0])
    with pytest.raises(DataError, match="no object in the images that were run"):
        run(DetectionScorer(spec(tmp_path, truth=truth), limited=True), GOOD, GOOD)

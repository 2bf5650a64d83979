import numpy as np
import pytest

from quantcli.errors import DataError, UsageError
from quantcli.evaluate.scoring import Observation
from quantcli.evaluate.segmentation import SegmentationScorer
from quantcli.evaluate.task_spec import parse_task

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 3, size=(6, 5, 7))


def one_hot(maps, axis=1, classes=4):
    return np.moveaxis(np.eye(classes, dtype=np.float32)[maps], -1, axis)


def noisy(maps, share, seed=1):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(maps.shape) < share, rng.integers(0, 3, maps.shape), maps)


def scorer(tmp_path, truth=TRUTH, options="", limited=False):
    np.save(tmp_path / "maps.npy", truth)
    spec = parse_task(f"segmentation?truth={tmp_path / 'maps.npy'}{options}")
    return SegmentationScorer(spec, limited=limited)


def run(task, original, quantized, rows=1, name="y"):
    for index, start in enumerate(range(0, len(original), rows)):
        part = slice(start, start + rows)
        task.observe(
            Observation(index=index, inputs={}, original={name: original[part]}, quantized={name: quantized[part]})
        )
    (found,) = task.results()
    return found


def expected(truth, predicted, ignore=None):
    """The mean of intersection over union by sets of pixels."""
    counted = truth >= 0 if ignore is None else (truth >= 0) & (truth != ignore)
    values = []
    for label in np.unique(truth[counted]):
        ours, theirs = (truth == label) & counted, (predicted == label) & counted
        values.append((ours & theirs).sum() / (ours | theirs).sum())
    return np.mean(values)


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("rows", [1, 4])
def test_miou_of_both_models_is_that_of_the_sets_of_pixels(tmp_path, axis, rows):
    first, second = noisy(TRUTH, 0.2), noisy(TRUTH, 0.4)
    found = run(scorer(tmp_path), one_hot(first, axis), one_hot(second, axis), rows)
    assert (found.name, found.samples, found.interval) == ("miou", 6, "bootstrap")
    assert found.original == pytest.approx(expected(TRUTH, first))
    assert found.quantized == pytest.approx(expected(TRUTH, second))
    assert found.drop == pytest.approx(found.original - found.quantized)
    assert found.original_low <= found.original <= found.original_high <= 1
    assert [one.label for one in found.classes] == ["0", "1", "2"]
    assert [one.samples for one in found.classes] == np.bincount(TRUTH.ravel()).tolist()
    assert all(type(one.samples) is int for one in found.classes)
    assert np.mean([one.quantized for one in found.classes]) == pytest.approx(found.quantized)


def test_outputs_may_be_maps_themselves(tmp_path):
    first, second = noisy(TRUTH, 0.2), noisy(TRUTH, 0.4)
    found = run(scorer(tmp_path), first[:, None].astype(np.int64), second[:, None].astype(np.int64))
    assert (found.original, found.quantized) == (
        pytest.approx(expected(TRUTH, first)),
        pytest.approx(expected(TRUTH, second)),
    )


def test_void_pixels_count_nowhere(tmp_path):
    truth = TRUTH.copy()
    truth[:, 0], truth[:, 1] = 255, -1
    first = noisy(TRUTH, 0.3)
    found = run(scorer(tmp_path, truth, "&ignore=255"), one_hot(first), one_hot(first))
    assert found.original == pytest.approx(expected(truth, first, ignore=255))
    assert found.drop == 0


def test_a_class_that_the_output_does_not_have_hints_at_the_option(tmp_path):
    truth = np.where(TRUTH == 0, 255, TRUTH)
    with pytest.raises(DataError, match="has a class 255, and output 'y' has classes 0 to 3") as caught:
        run(scorer(tmp_path, truth), one_hot(TRUTH), one_hot(TRUTH))
    assert "&ignore=255" in caught.value.hint


def test_a_model_whose_output_has_another_shape_has_no_pixel_right(tmp_path):
    found = run(scorer(tmp_path), one_hot(TRUTH), one_hot(TRUTH)[..., :3])
    assert (found.original, found.quantized) == (1.0, 0.0)


def test_pixels_that_are_nan_are_wrong(tmp_path):
    broken = one_hot(TRUTH)
    broken[:] = np.nan
    assert run(scorer(tmp_path), one_hot(TRUTH), broken).quantized == 0


@pytest.mark.parametrize("count", [4, 8])
def test_truths_and_samples_have_to_be_as_many(tmp_path, count):
    maps = one_hot(np.resize(TRUTH, (count, 5, 7)))
    with pytest.raises(DataError, match="holds 6 images") as caught:
        run(scorer(tmp_path), maps, maps)
    assert caught.value.code == "G109"


def test_with_fewer_samples_than_truths_on_purpose_the_first_ones_count(tmp_path):
    maps = one_hot(TRUTH[:2])
    assert run(scorer(tmp_path, limited=True), maps, maps).samples == 2


def test_outputs_that_do_not_fit_are_listed(tmp_path):
    with pytest.raises(DataError, match=r"fits no output; there are 'y' \[1, 4, 5, 6\]"):
        run(scorer(tmp_path), one_hot(TRUTH)[..., :6], one_hot(TRUTH)[..., :6])


def test_the_named_output_is_taken_and_has_to_exist(tmp_path):
    maps = one_hot(TRUTH)
    assert run(scorer(tmp_path, options="&output=main"), maps, maps, name="main").original == 1
    with pytest.raises(UsageError, match="names the output 'main'"):
        run(scorer(tmp_path, options="&output=main"), maps, maps)


def test_a_truth_of_nothing_is_refused(tmp_path):
    maps = one_hot(TRUTH)
    with pytest.raises(DataError, match="'no class' everywhere"):
        run(scorer(tmp_path, np.full_like(TRUTH, -1)), maps, maps)

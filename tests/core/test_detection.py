"""Oracle: average precision by its definition, in plain Python, one image set after the other."""

import numpy as np
import pytest

from quantcli.core.boxes import overlaps
from quantcli.core.detection import THRESHOLDS, AveragePrecision, Detections, Truths, match_image


def found(*rows):
    table = np.array(rows, float).reshape(-1, 6)
    return Detections(boxes=table[:, :4], scores=table[:, 4], classes=table[:, 5].astype(int))


def there(*rows):
    table = np.array(rows, float).reshape(-1, 6)
    return Truths(boxes=table[:, :4], classes=table[:, 4].astype(int), crowd=table[:, 5].astype(bool))


def definition(images, label, threshold):
    """AP of a class over [(detections, truths)], by the three steps of the definition."""
    ranked, truths = [], 0
    for number, (seen, real) in enumerate(images):
        own = [i for i in np.argsort(-seen.scores, kind="stable") if seen.classes[i] == label][:100]
        targets = [j for j in range(len(real.classes)) if real.classes[j] == label]
        truths += sum(not real.crowd[j] for j in targets)
        taken = set()
        for place, i in enumerate(own):
            shares = {j: overlaps(seen.boxes[i : i + 1], real.boxes[j : j + 1], real.crowd[j : j + 1]).item()
                      for j in targets}  # fmt: skip
            free = [j for j in targets if not real.crowd[j] and j not in taken and shares[j] >= threshold]
            if free:
                best = max(free, key=lambda j: (shares[j], -j))
                taken.add(best)
                ranked.append((-seen.scores[i], number, place, True))
            elif not any(real.crowd[j] and shares[j] >= threshold for j in targets):
                ranked.append((-seen.scores[i], number, place, False))
    hits, curve = 0, []
    for count, entry in enumerate(sorted(ranked), start=1):
        hits += entry[3]
        curve.append((hits, hits / count))
    return np.mean([max((p for h, p in curve if 100 * h >= j * truths), default=0.0) for j in range(101)])


def random_images(count, seed, digits=1):
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        k, extra = rng.integers(0, 5), rng.integers(0, 5)
        low = rng.uniform(0, 50, (k, 2))
        boxes = np.hstack([low, low + rng.uniform(10, 40, (k, 2))])
        classes = rng.integers(0, 3, k)
        crowd = rng.random(k) < 0.2
        near = np.repeat(boxes + rng.normal(size=boxes.shape) * 3, 2, axis=0)
        far = rng.uniform(0, 50, (extra, 2))
        seen = np.vstack([near, np.hstack([far, far + 20])])
        scores = np.round(rng.random(len(seen)), digits)  # with one digit: ties within and between images
        labels = np.concatenate([np.repeat(classes, 2), rng.integers(0, 4, extra)])
        images.append(
            (
                Detections(boxes=seen, scores=scores, classes=labels),
                Truths(boxes=boxes, classes=classes, crowd=crowd),
            )
        )
    return images


def matched(images):
    return AveragePrecision([match_image(*image) for image in images])


def once(images):
    return np.ones((1, len(images)), int)


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_is_that_of_the_definition(seed):
    images = random_images(12, seed)
    model = matched(images)
    values = model.of_classes(once(images))[0]
    for row, threshold in enumerate(THRESHOLDS):
        for column, label in enumerate(model.classes):
            assert values[row, column] == pytest.approx(definition(images, label, threshold)), (threshold, label)


def test_images_that_count_several_times_or_not_at_all_are_like_copies():
    images = random_images(8, 7, digits=9)
    counts = np.array([[2, 0, 1, 3, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0, 4, 0]])
    found_values = matched(images).means(counts)
    for row, times in enumerate(counts):
        copies = [image for image, count in zip(images, times, strict=True) for _ in range(count)]
        direct = matched(copies).means(once(copies))
        assert [found_values[0][row], found_values[1][row]] == pytest.approx([direct[0][0], direct[1][0]])


def test_a_textbook_example():
    # Three truths; by score: right, wrong, right. Precision 1 up to recall 1/3, 2/3 up to recall 2/3, then 0:
    # 34 and 33 of the 101 recalls.
    image = (
        found((0, 0, 10, 10, 0.9, 0), (80, 80, 90, 90, 0.8, 0), (20, 20, 30, 30, 0.7, 0)),
        there((0, 0, 10, 10, 0, 0), (20, 20, 30, 30, 0, 0), (40, 40, 50, 50, 0, 0)),
    )
    assert matched([image]).of_classes(once([image]))[0, 0, 0] == pytest.approx((34 + 33 * 2 / 3) / 101)


def test_a_truth_is_found_once_and_its_double_is_wrong():
    image = (found((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.8, 0)), there((0, 0, 10, 10, 0, 0)))
    matches = match_image(*image)[0]
    assert matches.hit[0].tolist() == [True, False]
    assert matched([image]).means(once([image]))[0] == pytest.approx(1)  # recall was complete before


def test_the_map_falls_with_the_thresholds_that_a_box_misses():
    image = (found((0, 0, 10, 7.2, 0.9, 0)), there((0, 0, 10, 10, 0, 0)))  # IoU 0.72 reaches 0.50 … 0.70
    over_all, at_half = matched([image]).means(once([image]))
    assert (over_all[0], at_half[0]) == (pytest.approx(0.5), pytest.approx(1))


def test_what_lies_in_a_crowd_counts_nowhere():
    crowd = there((0, 0, 100, 100, 0, 1), (200, 200, 210, 210, 0, 0))
    image = (found((10, 10, 20, 20, 0.9, 0), (200, 200, 210, 210, 0.8, 0)), crowd)
    model = matched([image])
    assert model.truths == (1,)
    assert model.means(once([image]))[1] == pytest.approx(1)


def test_only_the_best_detections_of_a_class_count():
    rows = [(50, 50, 60, 60, 0.9 - 0.001 * i, 0) for i in range(100)]
    image = (found(*rows, (0, 0, 10, 10, 0.1, 0)), there((0, 0, 10, 10, 0, 0)))
    assert matched([image]).means(once([image]))[0] == 0


def test_classes_without_a_truth_have_no_part():
    image = (found((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.9, 5)), there((0, 0, 10, 10, 0, 0)))
    assert matched([image]).classes == (0,)
    assert matched([image]).means(once([image]))[0] == pytest.approx(1)


def test_without_any_truth_there_is_no_precision():
    image = (found((0, 0, 10, 10, 0.9, 0)), there())
    assert np.isnan(matched([image]).means(once([image]))).all()


def test_an_image_without_detections_lowers_recall():
    empty = (found(), there((0, 0, 10, 10, 0, 0)))
    full = (found((0, 0, 10, 10, 0.9, 0)), there((0, 0, 10, 10, 0, 0)))
    assert matched([empty, full]).means(once([empty, full]))[1] == pytest.approx(51 / 101)

import numpy as np
import pytest

from quantcli.data.truth import read_boxes, read_maps
from quantcli.errors import DataError

ROWS = np.array([[0, 3, 10, 20, 40, 60], [2, 1, 0, 0, 5, 5]], np.float32)


def stored(path, array):
    np.save(path, array)
    return path


def test_rows_are_image_class_and_box(tmp_path):
    found = read_boxes(stored(tmp_path / "b.npy", ROWS), "xyxy")
    assert found.images == 3
    assert found.of_image(0).boxes.tolist() == [[10, 20, 40, 60]]
    assert found.of_image(0).classes.tolist() == [3]
    assert found.of_image(1).boxes.shape == (0, 4)
    assert not found.truths.crowd.any()


def test_a_seventh_number_says_crowd(tmp_path):
    rows = np.hstack([ROWS, [[0], [1]]])
    assert read_boxes(stored(tmp_path / "b.npy", rows), "xyxy").truths.crowd.tolist() == [False, True]


def test_the_format_of_the_truth_is_its_own(tmp_path):
    rows = np.array([[0, 3, 25, 40, 30, 40]])
    assert read_boxes(stored(tmp_path / "b.npy", rows), "cxcywh").truths.boxes.tolist() == [[10, 20, 40, 60]]


def test_an_npz_may_name_its_columns(tmp_path):
    np.savez(tmp_path / "b.npz", image=[0, 1], boxes=ROWS[:, 2:], crowd=[True, False], **{"class": [4, 5]})
    found = read_boxes(tmp_path / "b.npz", "xyxy")
    assert (found.truths.classes.tolist(), found.truths.crowd.tolist()) == ([4, 5], [True, False])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:, :5], "float32 of shape"),
        (ROWS[:0], "no objects"),
        (np.where(ROWS == 3, np.nan, ROWS), "no finite numbers"),
        (ROWS - [[0, 4, 0, 0, 0, 0]], "do not count from 0"),
        (np.add(ROWS, [0.5, 0, 0, 0, 0, 0]), "do not count from 0"),
        (ROWS[:, [0, 1, 4, 5, 2, 3]], "second corner is before the first"),
    ],
)
def test_what_is_no_truth_of_boxes_is_refused(tmp_path, rows, message):
    with pytest.raises(DataError, match=message) as caught:
        read_boxes(stored(tmp_path / "b.npy", rows), "xyxy")
    assert caught.value.code == "G109"


def test_arrays_of_an_npz_have_to_belong_together(tmp_path):
    np.savez(tmp_path / "b.npz", image=[0, 1, 2], boxes=ROWS[:, 2:], **{"class": [4, 5]})
    with pytest.raises(DataError, match="do not belong together"):
        read_boxes(tmp_path / "b.npz", "xyxy")
    np.savez(tmp_path / "c.npz", image=[0, 1], box=[1])
    with pytest.raises(DataError, match="arrays image, box"):
        read_boxes(tmp_path / "c.npz", "xyxy")


def test_maps_are_integers_of_every_pixel(tmp_path):
    maps = np.zeros((3, 4, 5), np.uint8)
    assert read_maps(stored(tmp_path / "m.npy", maps)).shape == (3, 4, 5)
    np.savez(tmp_path / "m.npz", maps=maps)
    assert read_maps(tmp_path / "m.npz").dtype == np.uint8


@pytest.mark.parametrize("array", [np.zeros((3, 4, 5)), np.zeros((4, 5), int), np.zeros((0, 4, 5), int)])
def test_what_is_no_map_is_refused(tmp_path, array):
    with pytest.raises(DataError, match="not the class of every pixel"):
        read_maps(stored(tmp_path / "m.npy", array))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match=r"'no\.npy' does not exist"):
        read_maps(tmp_path / "no.npy")
    (tmp_path / "m.png").write_bytes(b"x")
    with pytest.raises(DataError, match="no kind that can be read"):
        read_maps(tmp_path / "m.png")
    (tmp_path / "m.npy").write_bytes(b"x")
    with pytest.raises(DataError, match="damaged"):
        read_maps(tmp_path / "m.npy")
    np.savez(tmp_path / "two.npz", a=[1], b=[2])
    with pytest.raises(DataError, match="holds 2 arrays"):
        read_maps(tmp_path / "two.npz")


def test_pickled_objects_are_not_read(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError) as caught:
        read_maps(tmp_path / "o.npy")
    assert caught.value.code == "D104"

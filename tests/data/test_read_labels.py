import numpy as np
import pytest

from quantcli.data.labels import read_labels
from quantcli.errors import DataError


def text(tmp_path, content, name="labels.csv"):
    path = tmp_path / name
    path.write_text(content)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", ">i4"])
def test_integer_arrays_are_labels(tmp_path, dtype):
    np.save(tmp_path / "l.npy", np.array([3, 1, 2], dtype))
    labels = read_labels(tmp_path / "l.npy", 3)
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, 1, 2]


def test_labels_may_have_more_axes(tmp_path):
    np.save(tmp_path / "l.npy", np.zeros((4, 8, 8), np.uint8))
    assert read_labels(tmp_path / "l.npy", 4).shape == (4, 8, 8)


@pytest.mark.parametrize(
    "content",
    [
        "3\n1\n2\n",
        "3\r\n1\r\n2",
        "\n3\n\n1\n2\n",
        "label\n3\n1\n2\n",
        "file,label\na.png,3\nb.png,1\nc.png,2\n",
        " 3\n1 \n2",
    ],
)
def test_text_holds_one_label_a_line(tmp_path, content):
    assert read_labels(text(tmp_path, content), 3).tolist() == [3, 1, 2]
    assert read_labels(text(tmp_path, content, "l.txt"), None).tolist() == [3, 1, 2]


def test_quoted_file_names_may_hold_commas(tmp_path):
    assert read_labels(text(tmp_path, '"a,b.png",7\n'), 1).tolist() == [7]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("1\ncat\n", "line 2: 'cat' is no integer"),
        ("0.5\n1\n", "line 1: '0.5' is no integer"),
        ("label\n1.0\n", "line 2: '1.0' is no integer"),
        ("99999999999999999999\n", "no class number"),
        ("", "are empty"),
        ("label\n", "are empty"),
    ],
)
def test_text_without_integers_is_told_with_the_line(tmp_path, content, told):
    with pytest.raises(DataError, match=told) as caught:
        read_labels(text(tmp_path, content), None)
    assert caught.value.code == "D121"


def test_another_number_of_labels_is_told(tmp_path):
    with pytest.raises(DataError, match="hold 3 rows for 5 samples"):
        read_labels(text(tmp_path, "1\n2\n3\n"), 5)


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros(3, bool), np.int64(3)])
def test_arrays_that_are_no_rows_of_integers_are_told(tmp_path, array):
    np.save(tmp_path / "l.npy", array)
    with pytest.raises(DataError, match="not a row of integers") as caught:
        read_labels(tmp_path / "l.npy", None)
    assert caught.value.code == "D121"


def test_pickled_labels_are_refused(tmp_path):
    np.save(tmp_path / "l.npy", np.array([1, None], object), allow_pickle=True)
    with pytest.raises(DataError, match="never unpickled"):
        read_labels(tmp_path / "l.npy", None)


def test_missing_files_and_other_kinds_are_told(tmp_path):
    with pytest.raises(DataError, match="do not exist"):
        read_labels(tmp_path / "l.npy", None)
    with pytest.raises(DataError, match="no kind that can be read"):
        read_labels(text(tmp_path, "1", "l.json"), None)

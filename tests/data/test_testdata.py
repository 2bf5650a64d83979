import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.data.base import InputSpec
from quantcli.data.dataset import open_dataset
from quantcli.errors import DataError

INPUTS = [
    InputSpec(name="a", dtype="float32", shape=(2, 3)),
    InputSpec(name="b", dtype="int64", shape=()),
]


def write(folder, number, array, name=""):
    folder.mkdir(exist_ok=True, parents=True)
    tensor = numpy_helper.from_array(np.asarray(array), name)
    (folder / f"input_{number}.pb").write_bytes(tensor.SerializeToString())


def a(value):
    return np.full((2, 3), value, np.float32)


def test_every_set_is_one_complete_feed(tmp_path):
    for index in (10, 2):
        write(tmp_path / f"test_data_set_{index}", 0, a(index))
        write(tmp_path / f"test_data_set_{index}", 1, np.int64(index))
    dataset = open_dataset([str(tmp_path)], INPUTS)
    assert [(s["a"].shape, float(s["a"][0, 0]), int(s["b"])) for s in dataset] == [
        ((2, 3), 2.0, 2),
        ((2, 3), 10.0, 10),
    ]
    assert len(dataset) == 2


def test_one_set_may_be_given_by_itself(tmp_path):
    write(tmp_path / "test_data_set_0", 0, a(1))
    write(tmp_path / "test_data_set_0", 1, np.int64(5))
    assert len(open_dataset([str(tmp_path / "test_data_set_0")], INPUTS)) == 1


def test_names_go_before_numbers(tmp_path):
    write(tmp_path, 0, np.int64(5), "b")
    write(tmp_path, 1, a(1), "a")
    assert int(next(iter(open_dataset([str(tmp_path)], INPUTS)))["b"]) == 5


def test_numbers_count_where_the_names_are_no_inputs(tmp_path):
    write(tmp_path, 0, a(1), "other")
    write(tmp_path, 1, np.int64(5), "names")
    assert int(next(iter(open_dataset([str(tmp_path)], INPUTS)))["b"]) == 5


def test_casts_are_noted(tmp_path):
    write(tmp_path, 0, a(1))
    write(tmp_path, 1, np.int32(5))
    dataset = open_dataset([str(tmp_path)], INPUTS)
    assert next(iter(dataset))["b"].dtype == np.int64
    assert dataset.notes == ("'input_1.pb': int32 is cast to int64 for input 'b'",)


def test_misfits_are_told_with_the_file(tmp_path):
    write(tmp_path / "test_data_set_0", 0, np.zeros((1, 3), np.float32))
    write(tmp_path / "test_data_set_0", 1, np.int64(5))
    with pytest.raises(DataError, match=r"'test_data_set_0/input_0.pb' has float32 \[1,3\]: dimension 0"):
        open_dataset([str(tmp_path)], INPUTS)


def test_more_files_than_inputs_are_told(tmp_path):
    for number in range(3):
        write(tmp_path, number, a(1))
    with pytest.raises(DataError, match=r"input_2.pb, but there are 2 inputs"):
        open_dataset([str(tmp_path)], INPUTS)


def test_a_missing_file_is_a_missing_input(tmp_path):
    write(tmp_path, 0, a(1))
    with pytest.raises(DataError, match=r"input 'b' .* has no data"):
        open_dataset([str(tmp_path)], INPUTS)


def test_strings_are_read(tmp_path):
    write(tmp_path, 0, np.array(["x", "yz"], dtype=object))
    spec = InputSpec(name="s", dtype="str", shape=(2,))
    assert next(iter(open_dataset([str(tmp_path)], [spec])))["s"].tolist() == ["x", "yz"]


def test_what_is_no_tensor_is_damaged(tmp_path):
    (tmp_path / "input_0.pb").write_bytes(b"\xff\xff\xff\xff")
    with pytest.raises(DataError, match=r"'input_0.pb' holds no serialised tensor") as caught:
        open_dataset([str(tmp_path)], INPUTS[:1])
    assert caught.value.code == "D104"


def test_a_sequence_is_no_tensor(tmp_path):
    sequence = numpy_helper.from_list([a(1)])
    (tmp_path / "input_0.pb").write_bytes(sequence.SerializeToString())
    with pytest.raises(DataError, match="no serialised tensor"):
        open_dataset([str(tmp_path)], INPUTS[:1])


def test_values_in_another_file_are_not_read(tmp_path):
    tensor = numpy_helper.from_array(a(1))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
    with pytest.raises(DataError, match="in another file"):
        open_dataset([str(tmp_path)], INPUTS[:1])

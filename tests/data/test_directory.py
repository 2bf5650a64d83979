import numpy as np
import pytest

from quantcli.data.base import InputSpec
from quantcli.data.dataset import open_dataset
from quantcli.errors import DataError

X = InputSpec(name="x", dtype="float32", shape=("N", 3))
Y = InputSpec(name="y/in:0", dtype="float32", shape=("N", 2))


def row(value, *shape):
    return np.full(shape, value, np.float32)


def firsts(dataset):
    return [float(sample["x"].flat[0]) for sample in dataset]


def test_files_are_samples_in_natural_order(tmp_path):
    for index in (10, 9, 2, 1):
        np.save(tmp_path / f"s{index}.npy", row(index, 1, 3))
    dataset = open_dataset([str(tmp_path)], [X])
    assert firsts(dataset) == [1, 2, 9, 10]
    assert dataset.length == 4


def test_a_file_may_hold_a_feed_a_feed_without_batch_axis_or_rows(tmp_path):
    np.save(tmp_path / "0.npy", row(0, 1, 3))
    np.save(tmp_path / "1.npy", row(1, 3))
    np.save(tmp_path / "2.npy", row(2, 4, 3))
    np.save(tmp_path / "3.npy", row(3, 2, 5, 3))
    dataset = open_dataset([str(tmp_path)], [X])
    assert [sample["x"].shape for sample in dataset] == [(1, 3)] * 6 + [(5, 3)] * 2
    assert firsts(dataset) == [0, 1, 2, 2, 2, 2, 3, 3]


def test_rows_feed_makes_every_file_one_feed(tmp_path):
    np.save(tmp_path / "0.npy", row(0, 4, 3))
    np.save(tmp_path / "1.npy", row(1, 7, 3))
    shapes = [sample["x"].shape for sample in open_dataset([f"{tmp_path}?rows=feed"], [X])]
    assert shapes == [(4, 3), (7, 3)]


def test_an_input_of_unknown_rank_takes_a_file_as_its_feed(tmp_path):
    np.save(tmp_path / "0.npy", row(0, 4, 3))
    spec = InputSpec(name="x", dtype="float32", shape=None)
    assert [s["x"].shape for s in open_dataset([f"{tmp_path}?rows=feed"], [spec])] == [(4, 3)]


def test_archives_hold_one_feed_of_a_step_model_each(tmp_path):
    inputs = [
        InputSpec(name="x", dtype="float32", shape=(None, None)),
        InputSpec(name="state", dtype="float32", shape=(2, None, 4)),
        InputSpec(name="sr", dtype="int64", shape=()),
    ]
    for index in range(3):
        np.savez(tmp_path / f"{index}.npz", x=row(index, 1, 8), state=row(0, 2, 1, 4), sr=np.int64(16_000))
    shapes = [[a.shape for a in sample.values()] for sample in open_dataset([str(tmp_path)], inputs)]
    assert shapes == [[(1, 8), (2, 1, 4), ()]] * 3


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_shards_can_be_shuffled(tmp_path, save):
    for index in range(3):
        save(tmp_path / f"{index}.npz", x=np.arange(12, dtype=np.float32).reshape(4, 3) + 12 * index)
    everything = np.arange(36, dtype=np.float32).reshape(12, 3)
    dataset = open_dataset([str(tmp_path)], [X], shuffle=True, seed=2)
    found = np.concatenate([sample["x"] for sample in dataset])
    np.testing.assert_array_equal(found, everything[np.random.default_rng(2).permutation(12)])


def test_arrays_named_after_the_inputs_are_columns(tmp_path):
    np.save(tmp_path / "x.npy", row(1, 4, 3))
    np.save(tmp_path / "y_in_0.npy", row(2, 4, 2))
    np.save(tmp_path / "labels.npy", np.arange(4))
    dataset = open_dataset([str(tmp_path)], [X, Y])
    assert [sorted(sample) for sample in dataset] == [["x", "y/in:0"]] * 4
    assert dataset.notes == (f"'{tmp_path.name}': not used: 'labels.npy'",)


def test_a_file_named_like_a_single_input_is_a_sample_among_others(tmp_path):
    spec = InputSpec(name="1", dtype="float32", shape=("N", 3))
    for index in range(3):
        np.save(tmp_path / f"{index}.npy", row(index, 3))
    assert [s["1"].flat[0] for s in open_dataset([str(tmp_path)], [spec])] == [0, 1, 2]


def test_hidden_files_are_left_out(tmp_path):
    np.save(tmp_path / "0.npy", row(0, 3))
    (tmp_path / "._0.npy").write_bytes(b"resource fork")
    assert len(open_dataset([str(tmp_path)], [X])) == 1


def test_mixed_kinds_and_empty_directories_are_told(tmp_path):
    with pytest.raises(DataError, match="holds no samples") as caught:
        open_dataset([str(tmp_path)], [X])
    assert caught.value.code == "D106"
    np.save(tmp_path / "0.npy", row(0, 3))
    np.savez(tmp_path / "0.npz", x=row(0, 3))
    with pytest.raises(DataError, match=r"both .npz and .npy"):
        open_dataset([str(tmp_path)], [X])


def test_a_thousand_bad_files_do_not_make_a_thousand_lines(tmp_path):
    for index in range(50):
        np.save(tmp_path / f"{index}.npy", row(0, 1, 4))
    with pytest.raises(DataError) as caught:
        open_dataset([str(tmp_path)], [X])
    assert "45 more files have such problems" in caught.value.message
    assert caught.value.message.count("\n") < 20


def test_files_that_lack_an_input_are_told(tmp_path):
    np.savez(tmp_path / "0.npz", x=row(0, 3), y=row(0, 2))
    np.savez(tmp_path / "1.npz", x=row(0, 3))
    inputs = [X, InputSpec(name="y", dtype="float32", shape=("N", 2))]
    with pytest.raises(DataError, match="some files hold 'y', some do not"):
        open_dataset([str(tmp_path)], inputs)


def test_several_inputs_without_names_are_ambiguous(tmp_path):
    np.save(tmp_path / "0.npy", row(0, 3))
    with pytest.raises(DataError, match="does not say which input"):
        open_dataset([str(tmp_path)], [X, Y])


def test_damaged_files_are_told_beside_each_other(tmp_path):
    np.savez(tmp_path / "0.npz", x=row(0, 3))
    np.savez(tmp_path / "1.npz", y=row(0, 3), z=row(0, 3))
    (tmp_path / "2.npz").write_bytes(b"nothing")
    with pytest.raises(DataError) as caught:
        open_dataset([str(tmp_path)], [InputSpec(name="x", dtype="float32", shape=(1, 4))])
    for told in ("'x' of '0.npz'", "'1.npz' holds 'y', 'z', but not the input", "'2.npz' is damaged"):
        assert told in caught.value.message


def test_damaged_columns_are_told(tmp_path):
    (tmp_path / "x.npy").write_bytes(b"nothing")
    np.save(tmp_path / "y_in_0.npy", row(0, 4, 2))
    with pytest.raises(DataError, match=r"'x.npy' is damaged"):
        open_dataset([str(tmp_path)], [X, Y])
    np.save(tmp_path / "x.npy", row(0, 5, 3))
    with pytest.raises(DataError, match="unequal numbers of samples: 5 of 'x', 4 of 'y/in:0'"):
        open_dataset([str(tmp_path)], [X, Y])


def test_many_notes_of_one_kind_are_cut(tmp_path):
    for index in range(20):
        np.save(tmp_path / f"{index}.npy", row(0, 3).astype(np.float64))
    notes = open_dataset([str(tmp_path)], [X]).notes
    assert len(notes) == 6
    assert notes[-1].endswith("15 more notes of this kind")

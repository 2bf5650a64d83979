import numpy as np
import pytest

from quantcli.data.base import InputSpec
from quantcli.data.dataset import open_dataset
from quantcli.data.options import ImageOptions
from quantcli.errors import DataError, UsageError

X = InputSpec(name="x", dtype="float32", shape=("N", 3))
MASK = InputSpec(name="attention_mask", dtype="int64", shape=("N", "seq"))
IDS = InputSpec(name="input_ids", dtype="int64", shape=("N", "seq"))


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def test_a_misspelt_key_gets_a_suggestion(tmp_path):
    np.savez(tmp_path / "c.npz", input_id=ones(2, 4, dtype=np.int64), attention_mask=ones(2, 4, dtype=np.int64))
    with pytest.raises(DataError, match=r"input 'input_ids' .* has no data.*did you mean 'input_id'"):
        open_dataset([str(tmp_path / "c.npz")], [IDS, MASK])


def test_keys_that_fit_nothing_are_listed_with_what_is_needed(tmp_path):
    np.savez(tmp_path / "c.npz", image=ones(2, 3), labels=ones(2))
    with pytest.raises(DataError, match=r"holds 'image', 'labels', but not the input 'x' \(float32 \[N,3\]\)"):
        open_dataset([str(tmp_path / "c.npz")], [X])


def test_a_missing_input_is_told(tmp_path):
    np.save(tmp_path / "ids.npy", ones(2, 4, dtype=np.int64))
    with pytest.raises(DataError, match=r"input 'attention_mask' \(int64 \[N,seq\]\) has no data") as caught:
        open_dataset([f"input_ids={tmp_path / 'ids.npy'}"], [IDS, MASK])
    assert "attention_mask=PATH" in caught.value.hint


def test_an_unnamed_array_goes_to_the_one_input_that_no_name_claims(tmp_path):
    np.save(tmp_path / "a.npy", ones(2, 4, dtype=np.int64))
    dataset = open_dataset([f"input_ids={tmp_path / 'a.npy'}", str(tmp_path / "a.npy")], [IDS, MASK])
    assert [sorted(sample) for sample in dataset] == [["attention_mask", "input_ids"]] * 2


def test_an_unnamed_array_for_several_inputs_is_ambiguous(tmp_path):
    np.save(tmp_path / "a.npy", ones(2, 4, dtype=np.int64))
    with pytest.raises(DataError, match="does not say which input") as caught:
        open_dataset([str(tmp_path / "a.npy")], [IDS, MASK])
    assert caught.value.hint.startswith("write input_ids=a.npy")


def test_an_unknown_name_gets_a_suggestion(tmp_path):
    np.save(tmp_path / "a.npy", ones(2, 4, dtype=np.int64))
    with pytest.raises(DataError, match=r"'input_idz', which is no input \(did you mean 'input_ids'\?\)"):
        open_dataset([f"input_idz={tmp_path / 'a.npy'}"], [IDS])


def test_an_input_with_data_twice_is_told(tmp_path):
    np.save(tmp_path / "a.npy", ones(2, 3))
    np.save(tmp_path / "b.npy", ones(2, 3))
    with pytest.raises(DataError, match=r"input 'x' has data twice: 'a.npy', 'b.npy'"):
        open_dataset([f"x={tmp_path / 'a.npy'}", f"x={tmp_path / 'b.npy'}"], [X])


def test_unequal_numbers_of_samples_are_told_within_a_file_and_across_files(tmp_path):
    ids, mask = ones(2, 4, dtype=np.int64), ones(3, 4, dtype=np.int64)
    np.savez(tmp_path / "c.npz", input_ids=ids, attention_mask=mask)
    with pytest.raises(DataError, match="unequal numbers of samples: 2 of 'input_ids', 3 of 'attention_mask'"):
        open_dataset([str(tmp_path / "c.npz")], [IDS, MASK])
    np.save(tmp_path / "i.npy", ids)
    np.save(tmp_path / "m.npy", mask)
    with pytest.raises(DataError, match=r"unequal numbers of samples: 2 in 'i.npy', 3 in 'm.npy'"):
        open_dataset([f"input_ids={tmp_path / 'i.npy'}", f"attention_mask={tmp_path / 'm.npy'}"], [IDS, MASK])


def test_all_problems_are_told_at_once(tmp_path):
    np.save(tmp_path / "a.npy", ones(2, 4))
    with pytest.raises(DataError) as caught:
        open_dataset(
            [f"input_ids={tmp_path / 'a.npy'}", f"x={tmp_path / 'none.npy'}", f"y={tmp_path / 'a.npy'}"],
            [IDS, X, MASK],
        )
    assert caught.value.code == "D112"
    lines = caught.value.message
    assert lines.startswith("4 problems with the data:")
    for told in (
        "[D107] data is given for 'y', which is no input",
        "[D107] input 'input_ids' expects int64 [N,seq]; 'a.npy' has float32 [2,4]",
        "[D103] 'none.npy' does not exist",
        "[D107] input 'attention_mask' (int64 [N,seq]) has no data",
        "hint: save it as int64",
    ):
        assert told in lines


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "calib.npz").touch()
    with pytest.raises(DataError, match=r"'clib.npz' does not exist") as caught:
        open_dataset([str(tmp_path / "clib.npz")], [X])
    assert caught.value.code == "D103"
    assert caught.value.hint == "did you mean 'calib.npz'?"


def test_messages_hold_no_directories(tmp_path):
    with pytest.raises(DataError) as caught:
        open_dataset([str(tmp_path / "none" / "a.npz")], [X])
    assert str(tmp_path) not in caught.value.message + caught.value.hint


def test_a_file_of_unknown_kind_is_told_what_is_read(tmp_path):
    (tmp_path / "a.parquet").touch()
    with pytest.raises(DataError, match="of no kind that can be read") as caught:
        open_dataset([str(tmp_path / "a.parquet")], [X])
    assert ".npz" in caught.value.hint


def test_an_option_of_another_kind_is_a_usage_error(tmp_path):
    np.save(tmp_path / "a.npy", ones(2, 3))
    with pytest.raises(UsageError, match="'crop' does not apply to data of kind 'npy'") as caught:
        open_dataset([f"{tmp_path / 'a.npy'}?crop=3"], [X])
    assert caught.value.code == "D102"


def test_samples_takes_the_first_and_says_when_there_are_fewer(tmp_path):
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "a.npy", x)
    dataset = open_dataset([str(tmp_path / "a.npy")], [X], samples=2)
    assert len(dataset) == 2
    np.testing.assert_array_equal(np.concatenate([s["x"] for s in dataset]), x[:2])
    assert open_dataset([str(tmp_path / "a.npy")], [X], samples=9).notes == (
        "9 samples are asked for, 4 are there",
    )


def test_no_samples_and_no_data_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="0 samples"):
        open_dataset(["random:1"], [X], samples=0)
    with pytest.raises(UsageError, match="no data is given"):
        open_dataset([], [X])


def test_a_shape_replaces_dynamic_dimensions(tmp_path):
    np.save(tmp_path / "a.npy", ones(5, 3))
    dataset = open_dataset([str(tmp_path / "a.npy")], [X], shapes={"x": (2, 3)})
    assert [sample["x"].shape for sample in dataset] == [(2, 3), (2, 3)]


def test_a_shape_that_contradicts_the_model_or_names_no_input_is_a_usage_error():
    with pytest.raises(UsageError, match=r"1x4 for input 'x' contradicts the model's float32 \[N,3\]"):
        open_dataset(["random:1"], [X], shapes={"x": (1, 4)})
    with pytest.raises(UsageError, match="contradicts"):
        open_dataset(["random:1"], [X], shapes={"x": (1, 3, 1)})
    with pytest.raises(UsageError, match="'input', which is no input"):
        open_dataset(["random:1"], [X], shapes={"input": (1, 3)})


def test_preprocessing_of_the_command_applies_to_the_array_of_a_single_input(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 3), 255, np.uint8))
    dataset = open_dataset([str(tmp_path / "a.npy")], [X], image=ImageOptions(scale=1 / 255))
    assert [sample["x"].tolist() for sample in dataset] == [[[1.0, 1.0, 1.0]]] * 2


def test_a_specification_goes_before_the_command(tmp_path):
    np.save(tmp_path / "a.npy", np.full((1, 3), 3, np.uint8))
    dataset = open_dataset([f"{tmp_path / 'a.npy'}?scale=2"], [X], image=ImageOptions(scale=1 / 255))
    assert next(iter(dataset))["x"].tolist() == [[6.0, 6.0, 6.0]]


def test_preprocessing_that_cannot_apply_is_a_usage_error(tmp_path):
    np.save(tmp_path / "a.npy", ones(2, 3))
    with pytest.raises(UsageError, match="'--crop' apply to images"):
        open_dataset([str(tmp_path / "a.npy")], [X], image=ImageOptions(crop=3))
    y = InputSpec(name="y", dtype="float32", shape=("N", 3))
    with pytest.raises(UsageError, match="do not say which input"):
        open_dataset([f"x={tmp_path / 'a.npy'}", f"y={tmp_path / 'a.npy'}"], [X, y], image=ImageOptions(scale=2.0))


def test_the_name_holds_no_directories(tmp_path):
    np.save(tmp_path / "a.npy", ones(2, 3))
    assert open_dataset([f"x={tmp_path / 'a.npy'}?rows=batch"], [X]).name == "x=a.npy"


def test_feeds_come_in_the_order_of_the_model(tmp_path):
    np.savez(tmp_path / "c.npz", attention_mask=ones(1, 4, dtype=np.int64), input_ids=ones(1, 4, dtype=np.int64))
    for inputs in ([IDS, MASK], [MASK, IDS]):
        assert list(next(iter(open_dataset([str(tmp_path / "c.npz")], inputs)))) == [s.name for s in inputs]

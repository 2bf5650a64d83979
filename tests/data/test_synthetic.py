import numpy as np
import pytest

from quantcli.data.base import InputSpec
from quantcli.data.dataset import open_dataset
from quantcli.errors import DataError


def spec(dtype="float32", shape=("N", 3), name="x"):
    return InputSpec(name=name, dtype=dtype, shape=shape)


def stack(dataset, name="x"):
    return np.concatenate([np.atleast_1d(sample[name]) for sample in dataset])


def test_random_data_is_marked_synthetic():
    dataset = open_dataset(["random:4"], [spec()])
    assert dataset.synthetic
    assert not dataset.executes_code
    assert dataset.name == "random:4"
    assert len(dataset) == 4
    assert all(sample["x"].shape == (1, 3) for sample in dataset)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("float32", 0, 1),
        ("float16", 0, 1),
        ("int64", 0, 2),
        ("bool", 0, 2),
        ("uint8", 0, 256),
        ("int8", -128, 128),
    ],
)
def test_defaults_are_the_documented_ranges(dtype, low, high):
    drawn = stack(open_dataset(["random:200"], [spec(dtype, (1, 50))]))
    assert drawn.dtype == np.dtype(dtype)
    assert drawn.min() >= low
    assert drawn.max() < high or dtype == "float16"  # rounding to float16 may reach 1
    if np.dtype(dtype).kind in "iub":  # 10 000 draws of at most 256 values: all of them, but for 256·exp(-39)
        assert len(np.unique(drawn)) == high - low


def test_low_and_high_are_taken():
    drawn = stack(open_dataset(["random:200?low=-2&high=3"], [spec("int32", (1, 20))]))
    assert np.unique(drawn).tolist() == [-2, -1, 0, 1, 2]
    assert abs(stack(open_dataset(["random:99?low=5&high=6"], [spec()])).mean() - 5.5) < 0.1  # 6 σ = 0.10


def test_values_depend_on_the_seed_only():
    def draw(text, **more):
        return stack(open_dataset([text], [spec()], **more))

    np.testing.assert_array_equal(draw("random:5?seed=1"), draw("random:5", seed=1))
    assert (draw("random:5?seed=1") != draw("random:5?seed=2")).any()
    np.testing.assert_array_equal(draw("random:5"), draw("random:9", samples=5))
    everything = draw("random:9")
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_array_equal(draw("random:9", shuffle=True), everything[order])


def test_samples_and_inputs_differ():
    dataset = open_dataset(["random:2"], [spec(), spec(name="y")])
    first, second = dataset
    assert (first["x"] != second["x"]).any()
    assert (first["x"] != first["y"]).any()


def test_a_dynamic_first_axis_is_one_and_others_must_be_said():
    with pytest.raises(DataError, match="axis 1 has no fixed length") as caught:
        open_dataset(["random:2"], [spec("int64", ("N", "seq"), "ids")])
    assert caught.value.code == "D110"
    assert caught.value.hint == "say it: --shape ids=1xSEQ"


def test_a_symbol_fixed_by_one_shape_is_fixed_in_every_input():
    inputs = [spec("int64", ("N", "seq"), "ids"), spec("int64", ("N", "seq"), "mask")]
    dataset = open_dataset(["random:2"], inputs, shapes={"ids": (2, 7)})
    assert [array.shape for array in next(iter(dataset)).values()] == [(2, 7), (2, 7)]


def test_an_unknown_rank_needs_a_shape():
    with pytest.raises(DataError, match="no known shape"):
        open_dataset(["random:2"], [spec(shape=None)])
    assert len(open_dataset(["random:2"], [spec(shape=None)], shapes={"x": (4, 4)})) == 2


def test_scalars_are_drawn():
    sample = next(iter(open_dataset(["random:1"], [spec("int64", ())])))
    assert isinstance(sample["x"], np.ndarray)
    assert sample["x"].shape == ()
    assert sample["x"].dtype == np.int64


def test_random_data_feeds_what_no_name_claims(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 3), np.float32))
    dataset = open_dataset([f"x={tmp_path / 'x.npy'}", "random:3"], [spec(), spec("int64", (1,), "k")])
    assert dataset.synthetic
    assert [sorted(sample) for sample in dataset] == [["k", "x"]] * 3


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("uint8", "random:1?low=0&high=300"),
        ("int32", "random:1?high=0.5"),
        ("float32", "random:1?low=2"),
        ("bool", "random:1?high=5"),
        ("str", "random:1"),
        ("bfloat16", "random:1"),
    ],
)
def test_ranges_and_types_that_cannot_be_drawn_are_told(dtype, text):
    with pytest.raises(DataError) as caught:
        open_dataset([text], [spec(dtype)])
    assert caught.value.code == "D110"

"""Archives and arrays through open_dataset; the oracle is numpy's own indexing of the array that was saved."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from quantcli.data.base import InputSpec
from quantcli.data.dataset import open_dataset
from quantcli.errors import DataError

X = InputSpec(name="x", dtype="float32", shape=("N", 3))


def rng():
    return np.random.default_rng(7)


def floats(*shape):
    return rng().standard_normal(shape).astype(np.float32)


def values(dataset, name="x"):
    return [sample[name] for sample in dataset]


def assert_rows(dataset, expected, name="x"):
    found = values(dataset, name)
    assert len(found) == len(expected)
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_of_an_array_of_the_inputs_rank_get_their_batch_axis(tmp_path, save):
    x = floats(5, 3)
    save(tmp_path / "c.npz", x=x)
    dataset = open_dataset([str(tmp_path / "c.npz")], [X])
    assert len(dataset) == dataset.length == 5
    assert_rows(dataset, [x[i : i + 1] for i in range(5)])
    assert_rows(dataset, [x[i : i + 1] for i in range(5)])  # again


def test_rows_of_an_array_of_one_rank_more_are_complete_feeds(tmp_path):
    x = floats(4, 2, 3)
    np.save(tmp_path / "x.npy", x)
    assert_rows(open_dataset([str(tmp_path / "x.npy")], [X]), list(x))


def test_a_scalar_input_takes_one_value_per_sample(tmp_path):
    sr = np.array([8000, 16000, 8000])
    np.savez(tmp_path / "c.npz", x=floats(3, 3), sr=sr)
    dataset = open_dataset([str(tmp_path / "c.npz")], [X, InputSpec(name="sr", dtype="int64", shape=())])
    assert_rows(dataset, [np.array(v) for v in sr], "sr")


def test_an_input_of_fixed_batch_takes_groups_of_rows_and_says_what_it_drops(tmp_path):
    x = floats(7, 3)
    np.save(tmp_path / "x.npy", x)
    spec = InputSpec(name="x", dtype="float32", shape=(2, 3))
    dataset = open_dataset([str(tmp_path / "x.npy")], [spec])
    assert_rows(dataset, [x[0:2], x[2:4], x[4:6]])
    assert dataset.notes == ("'x.npy': the last 1 rows are dropped, as input 'x' takes 2 at once",)


def test_too_few_rows_for_a_fixed_batch_are_told(tmp_path):
    np.save(tmp_path / "x.npy", floats(1, 3))
    with pytest.raises(DataError, match="takes 2 rows at once"):
        open_dataset([str(tmp_path / "x.npy")], [InputSpec(name="x", dtype="float32", shape=(2, 3))])


def test_rows_feed_makes_one_feed_of_an_array_of_the_inputs_rank(tmp_path):
    x = floats(5, 3)
    np.save(tmp_path / "x.npy", x)
    assert_rows(open_dataset([f"{tmp_path / 'x.npy'}?rows=feed"], [X]), [x])


def test_an_input_of_unknown_rank_needs_to_be_told(tmp_path):
    x = floats(5, 3)
    np.save(tmp_path / "x.npy", x)
    spec = InputSpec(name="x", dtype="float32", shape=None)
    with pytest.raises(DataError, match="rank of the input is not known") as caught:
        open_dataset([str(tmp_path / "x.npy")], [spec])
    assert "rows=" in caught.value.hint
    assert_rows(open_dataset([f"{tmp_path / 'x.npy'}?rows=feed"], [spec]), list(x))
    assert_rows(open_dataset([f"{tmp_path / 'x.npy'}?rows=batch"], [spec]), [x[i : i + 1] for i in range(5)])


def test_big_endian_arrays_are_read(tmp_path):
    x = floats(3, 3)
    np.save(tmp_path / "x.npy", x.astype(">f4"))
    assert_rows(open_dataset([str(tmp_path / "x.npy")], [X]), [x[i : i + 1] for i in range(3)])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_fortran_order_is_read(tmp_path, save, shuffle):
    x = floats(6, 3)
    save(tmp_path / "c.npz", x=np.asfortranarray(x))
    dataset = open_dataset([str(tmp_path / "c.npz")], [X], shuffle=shuffle)
    found = np.concatenate(values(dataset))
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(x, axis=0))
    if not shuffle:
        np.testing.assert_array_equal(found, x)


def test_a_large_fortran_array_is_refused_since_it_cannot_be_streamed(tmp_path, monkeypatch):
    monkeypatch.setattr("quantcli.data.stored.FORTRAN_LIMIT", 10)
    np.save(tmp_path / "x.npy", np.asfortranarray(floats(6, 3)))
    with pytest.raises(DataError, match="Fortran order") as caught:
        open_dataset([str(tmp_path / "x.npy")], [X])
    assert "ascontiguousarray" in caught.value.hint


def test_strings_are_fed(tmp_path):
    text = np.array(["a", "bcd"])
    np.save(tmp_path / "x.npy", text)
    dataset = open_dataset([str(tmp_path / "x.npy")], [InputSpec(name="x", dtype="str", shape=(None,))])
    assert [v.tolist() for v in values(dataset)] == [["a"], ["bcd"]]


def test_a_single_key_of_any_name_is_taken_for_the_only_input_with_a_note(tmp_path):
    np.savez(tmp_path / "c.npz", floats(2, 3))
    dataset = open_dataset([str(tmp_path / "c.npz")], [X])
    assert len(dataset) == 2
    assert dataset.notes == ("'c.npz': key 'arr_0' is taken for input 'x', the only one",)


def test_keys_that_are_no_inputs_are_noted(tmp_path):
    np.savez(tmp_path / "c.npz", x=floats(2, 3), labels=np.arange(2))
    assert open_dataset([str(tmp_path / "c.npz")], [X]).notes == ("'c.npz': not used: 'labels'",)


def test_a_name_takes_one_array_of_an_archive(tmp_path):
    np.savez(tmp_path / "a.npz", x=floats(2, 3), y=np.zeros((2, 3), np.float32))
    np.save(tmp_path / "y.npy", np.ones((2, 3), np.float32))
    y = InputSpec(name="y", dtype="float32", shape=("N", 3))
    dataset = open_dataset([f"x={tmp_path / 'a.npz'}", f"y={tmp_path / 'y.npy'}"], [X, y])
    assert [list(sample) for sample in dataset] == [["x", "y"]] * 2
    assert np.all(values(dataset, "y")[0] == 1)
    assert dataset.name == "x=a.npz, y=y.npy"


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ("int32", "int64"),
        ("uint8", "int32"),
        ("float64", "float32"),
        ("float16", "float32"),
        ("float32", "float64"),
    ],
)
def test_casts_that_lose_nothing_are_made_and_noted(tmp_path, stored, wanted):
    x = np.arange(6).reshape(2, 3).astype(stored)
    np.save(tmp_path / "x.npy", x)
    dataset = open_dataset([str(tmp_path / "x.npy")], [InputSpec(name="x", dtype=wanted, shape=("N", 3))])
    assert_rows(dataset, [x[i : i + 1].astype(wanted) for i in range(2)])
    assert dataset.notes == (f"'x.npy': {stored} is cast to {wanted} for input 'x'",)


@pytest.mark.parametrize(
    ("stored", "wanted", "hint"),
    [
        ("int64", "int32", "array.astype('int32')"),
        ("int8", "uint8", "array.astype('uint8')"),
        ("bool", "int64", "array.astype('int64')"),
        ("float32", "int64", "array.astype('int64')"),
        ("bool", "float32", "array.astype('float32')"),
        ("complex64", "float32", "array.astype('float32')"),
        ("uint8", "float32", "?scale=1/255"),
        ("int64", "float32", "?scale=1"),
    ],
)
def test_casts_that_would_be_a_guess_are_refused_with_a_hint(tmp_path, stored, wanted, hint):
    np.save(tmp_path / "x.npy", np.zeros((2, 3), stored))
    with pytest.raises(DataError, match=f"{stored} does not become {wanted} by itself") as caught:
        open_dataset([str(tmp_path / "x.npy")], [InputSpec(name="x", dtype=wanted, shape=("N", 3))])
    assert caught.value.code == "D107"
    assert hint in caught.value.hint


def test_float64_beyond_float32_is_reported_as_inf(tmp_path):
    x = np.zeros((3, 3))
    x[2, 1] = 1e300
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match="sample 2 of input 'x' holds Inf"):
        list(open_dataset([str(tmp_path / "x.npy")], [X]))


@pytest.mark.parametrize(("value", "told"), [(np.nan, "NaN"), (np.inf, "Inf"), (-np.inf, "Inf")])
def test_nan_and_inf_are_reported_with_the_sample(tmp_path, value, told):
    x = floats(4, 3)
    x[1, 2] = value
    np.save(tmp_path / "x.npy", x)
    dataset = open_dataset([str(tmp_path / "x.npy")], [X])
    with pytest.raises(DataError, match=f"sample 1 of input 'x' holds {told}") as caught:
        list(dataset)
    assert caught.value.code == "D108"


def test_the_reported_sample_is_that_of_the_file_also_when_shuffled(tmp_path):
    x = floats(20, 3)
    x[13] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match="sample 13 "):
        list(open_dataset([str(tmp_path / "x.npy")], [X], shuffle=True))


def test_pickled_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('unpickled')",))

    ragged = np.array([Bomb(), None], dtype=object)
    np.savez(tmp_path / "c.npz", x=ragged, allow_pickle=True)
    with pytest.raises(DataError, match="Python objects, which are never unpickled") as caught:
        open_dataset([str(tmp_path / "c.npz")], [X])
    assert caught.value.code == "D105"


def test_records_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3, dtype=[("a", "f4"), ("b", "i4")]))
    with pytest.raises(DataError, match="records") as caught:
        open_dataset([str(tmp_path / "x.npy")], [X])
    assert caught.value.code == "D105"


@pytest.mark.parametrize(
    "data", [b"", b"not an array", b"\x93NUMPY\x01\x00\x10\x00{'descr': 'zzz'}", b"\x93NUMPY\x09\x00"]
)
def test_files_that_are_no_arrays_are_damaged(tmp_path, data):
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"'x.npy' is damaged or is not what its name says") as caught:
        open_dataset([str(tmp_path / "x.npy")], [X])
    assert caught.value.code == "D104"


def test_a_truncated_array_is_told_before_anything_runs(tmp_path):
    np.save(tmp_path / "x.npy", floats(5, 3))
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-4])
    with pytest.raises(DataError, match="promises 60 bytes, 56 are there"):
        open_dataset([str(tmp_path / "x.npy")], [X])


def test_a_header_with_a_negative_dimension_is_damaged(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (-1, 3)})
    (tmp_path / "x.npy").write_bytes(header.getvalue())
    with pytest.raises(DataError, match="damaged"):
        open_dataset([str(tmp_path / "x.npy")], [X])


def test_a_truncated_archive_is_damaged(tmp_path):
    np.savez(tmp_path / "c.npz", x=floats(5, 3))
    (tmp_path / "c.npz").write_bytes((tmp_path / "c.npz").read_bytes()[:-30])
    with pytest.raises(DataError, match=r"'c.npz' is damaged") as caught:
        open_dataset([str(tmp_path / "c.npz")], [X])
    assert caught.value.code == "D104"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_is_caught_while_streaming(tmp_path, save):
    save(tmp_path / "c.npz", x=floats(20_000, 3))
    data = bytearray((tmp_path / "c.npz").read_bytes())
    data[len(data) // 2] ^= 0x10
    (tmp_path / "c.npz").write_bytes(data)
    dataset = open_dataset([str(tmp_path / "c.npz")], [X])
    with pytest.raises(DataError, match=r"'x' of 'c.npz' is damaged"):
        list(dataset)


def test_a_file_that_changed_after_it_was_opened_is_told(tmp_path):
    np.save(tmp_path / "x.npy", floats(5, 3))
    dataset = open_dataset([str(tmp_path / "x.npy")], [X])
    np.save(tmp_path / "x.npy", floats(6, 3))
    with pytest.raises(DataError, match="changed while it was in use"):
        list(dataset)


def test_an_archive_without_arrays_holds_no_samples(tmp_path):
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(DataError, match="holds no arrays") as caught:
        open_dataset([str(tmp_path / "c.npz")], [X])
    assert caught.value.code == "D106"


def test_an_array_without_rows_is_empty(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((0, 3), np.float32))
    with pytest.raises(DataError, match="has no samples") as caught:
        open_dataset([str(tmp_path / "x.npy")], [X])
    assert caught.value.code == "D106"


def test_members_with_a_local_extra_field_are_read_in_any_order(tmp_path):
    x = floats(9, 3)
    body = io.BytesIO()
    np.save(body, x)
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        info = zipfile.ZipInfo("x.npy")
        info.extra = b"\x99\x99\x04\x00abcd"
        archive.writestr(info, body.getvalue())
    found = values(open_dataset([str(tmp_path / "c.npz")], [X], shuffle=True, seed=1))
    order = np.random.default_rng(1).permutation(9)
    np.testing.assert_array_equal(np.concatenate(found), x[order])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_shuffling_is_a_seeded_choice_of_whole_samples(tmp_path, save):
    x, y = floats(30, 3), np.arange(30)
    save(tmp_path / "c.npz", x=x, y=y)
    inputs = [X, InputSpec(name="y", dtype="int64", shape=("N",))]
    dataset = open_dataset([str(tmp_path / "c.npz")], inputs, samples=10, shuffle=True, seed=5)
    picked = np.concatenate(values(dataset, "y"))
    assert len(dataset) == 10
    assert len(set(picked)) == 10
    assert picked.tolist() != sorted(picked)
    np.testing.assert_array_equal(np.concatenate(values(dataset)), x[picked])
    again = open_dataset([str(tmp_path / "c.npz")], inputs, samples=10, shuffle=True, seed=5)
    np.testing.assert_array_equal(np.concatenate(values(again, "y")), picked)
    other = open_dataset([str(tmp_path / "c.npz")], inputs, samples=10, shuffle=True, seed=6)
    assert np.concatenate(values(other, "y")).tolist() != picked.tolist()


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_thousand_samples_take_the_memory_of_a_few(tmp_path, save, shuffle):
    sample_bytes = 16_384 * 4
    save(tmp_path / "c.npz", x=np.tile(floats(1, 16_384), (1000, 1)))
    inputs = [InputSpec(name="x", dtype="float32", shape=("N", 16_384))]
    tracemalloc.start()
    try:
        seen = sum(1 for _ in open_dataset([str(tmp_path / "c.npz")], inputs, shuffle=shuffle))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == 1000
    # Five samples and the pieces in which zip streams are skipped and unpacked; the whole is 62 MiB.
    assert peak < 5 * sample_bytes + 3 * 2**18 + 2**18


def test_only_the_bytes_of_the_wanted_samples_are_read(tmp_path):
    np.savez(tmp_path / "c.npz", x=floats(20_000, 3))
    data = bytearray((tmp_path / "c.npz").read_bytes())
    data[len(data) // 2] ^= 0x10  # caught by the checksum, were the whole member read
    (tmp_path / "c.npz").write_bytes(data)
    assert len(list(open_dataset([str(tmp_path / "c.npz")], [X], samples=3))) == 3


def test_layout_and_scale_turn_stored_images_into_inputs(tmp_path):
    pixels = rng().integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "c.npz", x=pixels)
    spec = InputSpec(name="x", dtype="float32", shape=("N", 3, 5, 6))
    text = f"{tmp_path / 'c.npz'}?layout=nhwc&scale=1/255&mean=0.1,0.2,0.3&std=0.5"
    mean = np.array([0.1, 0.2, 0.3], np.float32)
    wanted = (pixels.astype(np.float32) * np.float32(1 / 255) - mean) / np.float32(0.5)
    wanted = wanted.transpose(0, 3, 1, 2)
    dataset = open_dataset([text], [spec])
    assert_rows(dataset, [wanted[i : i + 1] for i in range(4)])
    assert all(v.flags.c_contiguous for v in values(dataset))


def test_the_hint_is_the_smallest_change_that_helps(tmp_path):
    np.savez(tmp_path / "c.npz", x=np.zeros((5, 8, 8, 3), np.uint8))
    spec = InputSpec(name="x", dtype="float32", shape=("N", 3, 8, 8))
    with pytest.raises(DataError) as caught:
        open_dataset([str(tmp_path / "c.npz")], [spec])
    assert caught.value.message.startswith(
        "input 'x' expects float32 [N,3,8,8]; 'x' of 'c.npz' has uint8 [5,8,8,3]: "
    )
    assert caught.value.hint == "add ?layout=nhwc&scale=1/255 to the data specification"


def test_a_dimension_that_differs_is_named(tmp_path):
    np.save(tmp_path / "x.npy", floats(5, 4))
    with pytest.raises(DataError, match="dimension 1 of a feed is 4, not 3") as caught:
        open_dataset([str(tmp_path / "x.npy")], [X])
    assert "another model" in caught.value.hint


def test_a_rank_that_differs_is_named(tmp_path):
    np.save(tmp_path / "x.npy", floats(3))
    with pytest.raises(DataError, match=r"an array of rank 2 .* or 3 .* is needed") as caught:
        open_dataset([str(tmp_path / "x.npy")], [X])
    assert caught.value.hint == "a single sample needs a leading axis of samples: array[None]"


@pytest.mark.parametrize(
    ("shape", "options", "told"),
    [
        ((2, 3), "layout=nhwc", "layout=nhwc is for samples of three axes"),
        ((2, 3), "mean=1,2,3", "a mean or std per channel needs images"),
        ((2, 3), "rows=batch&scale=1", None),
        ((2, 2, 3), "rows=batch", "with rows=batch an array of rank 2 is needed"),
    ],
)
def test_options_that_the_array_cannot_follow_are_told(tmp_path, shape, options, told):
    np.save(tmp_path / "x.npy", floats(*shape))
    text = f"{tmp_path / 'x.npy'}?{options}"
    if told is None:
        assert len(open_dataset([text], [X])) == 2
        return
    with pytest.raises(DataError, match=told):
        open_dataset([text], [X])


def test_means_must_be_as_many_as_channels(tmp_path):
    np.save(tmp_path / "x.npy", floats(2, 3, 4, 4))
    spec = InputSpec(name="x", dtype="float32", shape=("N", 3, 4, 4))
    with pytest.raises(DataError, match=r"\[2\] values, for 3 channels"):
        open_dataset([f"{tmp_path / 'x.npy'}?mean=1,2"], [spec])


def test_a_type_that_numpy_does_not_know_cannot_be_fed_from_a_file(tmp_path):
    np.save(tmp_path / "x.npy", floats(2, 3))
    with pytest.raises(DataError, match="float32 does not become bfloat16"):
        open_dataset([str(tmp_path / "x.npy")], [InputSpec(name="x", dtype="bfloat16", shape=("N", 3))])


def test_an_archive_that_vanished_is_told(tmp_path):
    np.savez(tmp_path / "c.npz", x=floats(2, 3))
    dataset = open_dataset([str(tmp_path / "c.npz")], [X])
    (tmp_path / "c.npz").unlink()
    with pytest.raises(DataError, match="cannot be read: No such file") as caught:
        list(dataset)
    assert caught.value.code == "D103"

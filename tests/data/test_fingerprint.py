import hashlib

import numpy as np

from quantcli.data.base import InputSpec
from quantcli.data.dataset import open_dataset
from quantcli.data.fingerprint import Fingerprint, sample_digest
from quantcli.data.overlap import SampleDigests


def fingerprint(samples):
    print_ = Fingerprint()
    for _ in print_.watch(samples):
        pass
    return print_


def sample(value=0, name="x", dtype=np.float32, shape=(2, 2)):
    return {name: np.full(shape, value, dtype)}


def test_the_digest_is_sha256_over_name_type_shape_and_values():
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    plain = b"".join(len(t).to_bytes(8, "little") + t for t in (b"x", b"int16", b"2,3"))
    assert sample_digest({"x": array}) == hashlib.sha256(plain + array.astype("<i2").tobytes()).digest()


def test_the_digest_does_not_depend_on_the_order_of_inputs_or_the_layout_in_memory():
    a, b = np.arange(6.0).reshape(2, 3), np.ones(2)
    assert sample_digest({"a": a, "b": b}) == sample_digest({"b": b, "a": np.asfortranarray(a)})


def test_the_digest_tells_apart_names_types_shapes_and_values():
    variants = [
        sample(),
        sample(1),
        sample(name="y"),
        sample(dtype=np.int32),
        sample(shape=(4, 1)),
        sample(shape=(4,)),
        {},
    ]
    assert len({sample_digest(variant) for variant in variants}) == len(variants)


def test_scalars_and_strings_and_empty_arrays_have_digests():
    arrays = [np.array(3), np.array(["a", "bc"]), np.zeros((0, 3)), np.array([True])]
    assert len({sample_digest({"x": array}) for array in arrays}) == 4


def test_the_fingerprint_depends_on_the_order_and_number_of_samples():
    one, two = sample(1), sample(2)
    runs = [[one, two], [two, one], [one], [one, two, two], []]
    assert len({fingerprint(run).hexdigest() for run in runs}) == len(runs)
    assert fingerprint([one, two]).hexdigest() == fingerprint([one, two]).hexdigest()
    assert fingerprint([one, two]).count == 2


def test_the_same_samples_from_other_files_have_the_same_fingerprint(tmp_path):
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.savez_compressed(tmp_path / "c.npz", x=x)
    np.save(tmp_path / "d.npy", x.astype(np.float64))
    (tmp_path / "e").mkdir()
    for index, row in enumerate(x):
        np.save(tmp_path / "e" / f"{index}.npy", row)
    spec = [InputSpec(name="x", dtype="float32", shape=("N", 3))]
    found = {fingerprint(open_dataset([str(tmp_path / n)], spec)).hexdigest() for n in ("c.npz", "d.npy", "e")}
    assert len(found) == 1


def test_samples_that_two_runs_share_are_counted():
    first = fingerprint([sample(i) for i in range(10)]).digests
    second = fingerprint([sample(i) for i in range(7, 20)]).digests
    assert first.overlap(second) == second.overlap(first) == 3
    assert first.overlap(fingerprint([]).digests) == 0
    assert len(first) == 10


def test_repeated_samples_count_once():
    digests = fingerprint([sample(1), sample(1), sample(2)]).digests
    assert len(digests) == 2


def test_digests_survive_storage_and_join():
    digests = fingerprint([sample(i) for i in range(4)]).digests
    assert digests.values.dtype == np.uint64
    assert digests.values.nbytes == 8 * 4
    assert SampleDigests(values=digests.values.copy()) == digests
    rest = fingerprint([sample(i) for i in range(2, 6)]).digests
    assert len(digests | rest) == 6


def test_membership_is_by_digest():
    digests = fingerprint([sample(1)]).digests
    assert sample_digest(sample(1)) in digests
    assert sample_digest(sample(2)) not in digests
    assert 3 not in digests

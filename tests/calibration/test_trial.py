from __future__ import annotations

import numpy as np

from quantcli.calibration.trial import TrialInput, describe, made_up

SAMPLE = {
    "ids": np.array([[3, 17, 4]], np.int64),
    "mask": np.array([[True, False, True]]),
    "x": np.array([[-1.5, 2.5]], np.float32),
    "rate": np.array(16000, np.int64),
    "none": np.zeros((1, 0), np.float32),
}


def test_a_made_up_sample_has_the_form_of_the_real_one() -> None:
    found = made_up(describe(SAMPLE))
    assert found is not None
    for name, array in SAMPLE.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype
        if array.size:
            assert array.min() <= found[name].min()
            assert found[name].max() <= array.max()


def test_the_form_tells_nothing_but_type_shape_and_bounds() -> None:
    (ids,) = describe({"ids": SAMPLE["ids"]})
    assert ids == TrialInput(name="ids", dtype="int64", shape=(1, 3), low=3, high=17)


def test_a_made_up_sample_is_the_same_every_time() -> None:
    first, second = made_up(describe(SAMPLE)), made_up(describe(SAMPLE))
    assert first is not None
    assert second is not None
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_texts_have_no_trial() -> None:
    assert describe({"text": np.array(["a"])}) == ()
    assert made_up(()) is None


def test_inputs_of_rank_0_are_arrays() -> None:
    found = made_up(describe({"a": np.array(1.5, np.float32), "b": np.array(True), "c": np.array(3)}))
    assert found is not None
    assert all(isinstance(array, np.ndarray) for array in found.values())

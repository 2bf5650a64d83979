from __future__ import annotations

import numpy as np
import pytest

from quantcli.calibration.clipping import clipping_notes, covered
from quantcli.calibration.estimators import Method, Range, estimate
from quantcli.core import histogram
from quantcli.core.dtypes import UINT8
from quantcli.core.spec import QuantSpec
from quantcli.core.stats import TensorStats

METHOD = Method(name="percentile", parameter=99.9)


def tensor(low: float, high: float) -> TensorStats:
    values = np.linspace(low, high, 1000, dtype=np.float32)
    return TensorStats(samples=1, minimum=low, maximum=high, histogram=histogram.of(values))


def test_ranges_that_keep_everything_are_no_matter() -> None:
    ranges = {"x": Range(min=-1.0, max=2.0, clipped_fraction=0.0)}
    assert clipping_notes(ranges, {"x": tensor(-1, 2)}, METHOD) == ()


def test_a_share_at_the_limit_is_no_matter_and_one_above_is_told() -> None:
    tensors = {"x": tensor(0, 10)}
    at, above = (Range(min=0.0, max=9.0, clipped_fraction=share) for share in (0.001, 0.003))
    assert clipping_notes({"x": at}, tensors, METHOD) == ()
    assert clipping_notes({"x": above}, tensors, METHOD) == (
        "range method percentile:99.9 clips 0.3 % of the values of 'x'",
    )


def test_a_range_of_less_than_half_of_the_extremes_is_told() -> None:
    ranges = {
        "x": Range(min=0.0, max=1.0, clipped_fraction=0.0),
        "y": Range(min=-1.0, max=1.0, clipped_fraction=0.0),
    }
    tensors = {"x": tensor(0, 8), "y": tensor(-2, 2)}
    assert clipping_notes(ranges, tensors, Method(name="mse")) == (
        "range method mse keeps only 12 % of the extremes of 'x'",
    )


def test_the_three_that_lose_most_are_named_and_the_others_counted() -> None:
    shares = {"a": 0.01, "b": 0.03, "c": 0.02, "d": 0.05, "e": 0.02}
    ranges = {name: Range(min=0.0, max=1.0, clipped_fraction=share) for name, share in shares.items()}
    (note,) = clipping_notes(ranges, dict.fromkeys(shares, tensor(0, 1)), METHOD)
    assert note == (
        "range method percentile:99.9 clips 5 % of the values of 'd', 3 % of the values of 'b', "
        "2 % of the values of 'c' (and 2 more tensors like that)"
    )


def test_the_note_agrees_with_the_values_that_lie_outside() -> None:
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=100_000)).astype(np.float32)
    stats = TensorStats(samples=1, minimum=0.0, maximum=float(values.max()), histogram=histogram.of(values))
    found = estimate(stats, QuantSpec(dtype=UINT8, symmetric=False), Method(name="percentile", parameter=99.0))
    (note, *_) = clipping_notes({"x": found}, {"x": stats}, Method(name="percentile", parameter=99.0))
    share = float(note.split("clips ")[1].split(" %")[0]) / 100
    # Whole bins count, so the share may be short of the truth by the values of one bin; it has two digits.
    assert share == pytest.approx(float((values > found.max).mean()), rel=0.1)


def test_extremes_reach_to_zero_as_ranges_do() -> None:
    assert covered(Range(min=0.0, max=3.0, clipped_fraction=0.0), tensor(2, 4)) == 0.75
    assert covered(Range(min=0.0, max=0.0, clipped_fraction=0.0), tensor(0, 0)) == 1
    assert covered(Range(min=0.0, max=0.0, clipped_fraction=0.0), TensorStats()) == 1

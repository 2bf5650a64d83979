from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quantcli.calibration.convergence import RangeHistory, Verdict
from quantcli.calibration.statistics import CalibrationStatistics, Collected, check_model, merge
from quantcli.core import histogram, stats
from quantcli.core.stats import TensorStats
from quantcli.data.overlap import SampleDigests
from quantcli.errors import StaleCalibrationError


def tensor(*values: float) -> TensorStats:
    return TensorStats(
        samples=1, minimum=min(values), maximum=max(values), histogram=histogram.of(np.float32(values))
    )


def made(fingerprint: str, value: float, *, digest: bytes = b"", samples: int = 20) -> CalibrationStatistics:
    return CalibrationStatistics(
        model_digest="model",
        data_fingerprint=fingerprint,
        samples=samples,
        synthetic=False,
        tensors={"b": tensor(0, value), "a": tensor(-value, value)},
        history=RangeHistory(
            samples=np.array([samples // 2, samples]),
            minimum=np.float32([[-value, 0], [-value, 0]]),
            maximum=np.float32([[value, value], [value, value]]),
        ),
        sample_digests=SampleDigests.of([digest] if digest else []),
    )


def test_tensors_are_sorted_and_read_only() -> None:
    found = made("f", 2.0)
    assert list(found.tensors) == ["a", "b"]
    with pytest.raises(TypeError):
        found.tensors["c"] = tensor(1)  # type: ignore[index]


def test_merging_joins_everything() -> None:
    first, second = made("f2", 1.0, digest=b"11111111"), made("f1", 4.0, digest=b"22222222")
    found = merge(first, replace(second, synthetic=True, notes=("n",)))
    assert found.samples == 40
    assert found.synthetic
    assert found.data_fingerprint == "f1+f2"
    assert found.tensors["a"] == stats.merge(first.tensors["a"], second.tensors["a"])
    assert found.history.maximum[-1].tolist() == [4, 4]
    assert len(found.sample_digests) == 2
    assert found.notes == ("n",)
    # The ranges of the first half were four times smaller.
    assert found.convergence.verdict is Verdict.CONVERGED
    assert found.convergence.compared == 30


def test_merging_does_not_depend_on_the_grouping() -> None:
    parts = [made(name, value, samples=8) for name, value in (("x", 1.0), ("y", 3.0), ("z", 2.0))]
    assert merge(merge(parts[0], parts[1]), parts[2]) == merge(parts[0], merge(parts[1], parts[2]))


def test_calibrations_of_different_models_do_not_merge() -> None:
    with pytest.raises(StaleCalibrationError, match="different models") as caught:
        merge(made("f1", 1.0), replace(made("f2", 1.0), model_digest="other"))
    assert caught.value.code == "K201"


def test_calibrations_of_different_tensors_do_not_merge() -> None:
    other = replace(
        made("f2", 1.0),
        tensors={"a": tensor(1)},
        history=RangeHistory(samples=np.array([1]), minimum=np.zeros((1, 1)), maximum=np.zeros((1, 1))),
    )
    with pytest.raises(StaleCalibrationError, match="'b'") as caught:
        merge(made("f1", 1.0), other)
    assert caught.value.code == "K205"


def test_calibrations_of_tensors_of_different_kinds_do_not_merge() -> None:
    base = made("f2", 1.0)
    other = replace(base, tensors={**base.tensors, "b": TensorStats(dtype="float16")})
    with pytest.raises(StaleCalibrationError, match="'b'"):
        merge(made("f1", 1.0), other)


def test_channels_that_one_calibration_lacks_are_dropped_with_a_note() -> None:
    def with_channels(of: CalibrationStatistics, channels: int) -> CalibrationStatistics:
        extremes = {"channel_minimum": np.zeros(channels), "channel_maximum": np.ones(channels)}
        tensors = {name: replace(found, channel_axis=1, **extremes) for name, found in of.tensors.items()}
        return replace(of, tensors=tensors)

    both = merge(with_channels(made("f1", 1.0), 2), with_channels(made("f2", 1.0), 2))
    assert both.tensors["a"].channel_axis == 1
    assert both.notes == ()
    one = merge(with_channels(made("f1", 1.0), 2), made("f2", 1.0))
    assert one.tensors["a"].channel_axis is None
    assert one.notes == (
        "'a' (and 1 more) has no extremes of channels: not both of the merged calibrations have the same",
    )


def test_the_same_data_is_not_merged_twice() -> None:
    both = merge(made("f1", 1.0), made("f2", 1.0))
    with pytest.raises(StaleCalibrationError, match="in both") as caught:
        merge(both, made("f2", 1.0))
    assert caught.value.code == "K206"


def test_samples_in_both_are_noted() -> None:
    found = merge(made("f1", 1.0, digest=b"12345678"), made("f2", 2.0, digest=b"12345678"))
    assert found.notes == ("samples that are in two of the merged calibrations, and count twice: 1",)


def test_statistics_of_another_model_are_refused() -> None:
    check_model(made("f", 1.0), "model")
    with pytest.raises(StaleCalibrationError, match="another model") as caught:
        check_model(made("f", 1.0), "other")
    assert caught.value.code == "K201"


def test_tensors_that_were_not_finite_are_unusable() -> None:
    base = made("f", 1.0)
    found = replace(base, tensors={**base.tensors, "b": replace(base.tensors["b"], nonfinite=1)})
    assert found.unusable == ("b",)


def test_collected_statistics_become_those_of_a_model_and_data() -> None:
    base = made("f", 1.0)
    collected = Collected(samples=20, tensors=base.tensors, history=base.history, notes=("own",))
    found = CalibrationStatistics.of(
        collected, model_digest="model", data_fingerprint="f", synthetic=False, notes=("data",)
    )
    assert found == replace(base, notes=("data", "own"))


def test_history_and_tensors_must_fit() -> None:
    with pytest.raises(ValueError, match="different tensors"):
        replace(made("f", 1.0), tensors={"a": tensor(1)})

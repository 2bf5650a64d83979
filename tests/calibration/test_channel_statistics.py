"""Extremes of channels while samples stream by: blocks of runs, changing shapes, bad samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.parser
import pytest

from quantcli.calibration import collector
from quantcli.calibration.collector import collect
from quantcli.calibration.probe import ObservedTensor
from quantcli.core.stats import TensorStats
from quantcli.errors import DataError
from quantcli.graph.model import OnnxModel
from quantcli.graph.model_io import load_model_bytes
from quantcli.runtime.session import Session

CHAIN = """
    <ir_version: 8, opset_import: ["" : 13]>
    g (float[N, K, 6] x) => (float[N, K, 6] y) {
        n = Neg(x)
        t = Transpose <perm = [0, 2, 1]> (n)
        r = Relu(t)
        s = Sqrt(r)
        u = Sub(s, s)
        v = Transpose <perm = [0, 2, 1]> (u)
        y = Add(v, n)
    }
"""

TENSORS = [
    ObservedTensor(name="n", channel_axis=2),
    ObservedTensor(name="r", channel_axis=2),
    ObservedTensor(name="y", channel_axis=2),
]


def parsed(text: str) -> OnnxModel:
    """A model whose nodes are named after their first outputs."""
    proto = onnx.parser.parse_model(text)
    for node in proto.graph.node:
        node.name = f"make_{node.output[0]}"
    return load_model_bytes(proto.SerializeToString())


def session(of: OnnxModel) -> Session:
    return Session(of.to_bytes())


def samples(lengths: Sequence[int]) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(5)
    return [{"x": rng.normal(size=(1, length, 6)).astype(np.float32)} for length in lengths]


def collected(of: Sequence[Mapping[str, np.ndarray]], **options: object) -> Mapping[str, TensorStats]:
    return collect(parsed(CHAIN), TENSORS, of, make_session=session, **options).tensors  # type: ignore[arg-type]


def check(found: TensorStats, arrays: Sequence[np.ndarray]) -> None:
    """Channels on axis 2 of all ``arrays``."""
    assert found.channel_minimum is not None
    assert found.channel_maximum is not None
    np.testing.assert_array_equal(found.channel_minimum, np.min([a.min(axis=(0, 1)) for a in arrays], axis=0))
    np.testing.assert_array_equal(found.channel_maximum, np.max([a.max(axis=(0, 1)) for a in arrays], axis=0))
    assert found.samples == len(arrays)


def test_only_tensors_whose_channels_vary_in_number_lose_them() -> None:
    of = samples([5, 5, 40, 7, 5, 40, 40, 3])
    found = collected(of)
    assert found["r"].channel_axis is None
    assert found["r"].maximum == max(np.maximum(-sample["x"], 0).max() for sample in of)
    assert found["r"].samples == len(of)
    for name in ("n", "y"):
        check(found[name], [-sample["x"] for sample in of])


def test_channels_that_change_places_are_not_mixed_up() -> None:
    """Two tensors have together as many channels as before, but not each."""
    model = parsed("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[N, H, W] x) => (float[N, H, W] y) { y = Neg(x) }
    """)
    tensors = [ObservedTensor(name="x", channel_axis=1), ObservedTensor(name="y", channel_axis=2)]
    rng = np.random.default_rng(0)
    of = [{"x": rng.normal(size=shape).astype(np.float32)} for shape in ((1, 4, 9), (1, 9, 4))]
    found = collect(model, tensors, of, make_session=session).tensors
    assert (found["x"].channel_axis, found["y"].channel_axis) == (None, None)
    assert found["x"].maximum == max(sample["x"].max() for sample in of)
    assert found["y"].minimum == -found["x"].maximum


@pytest.mark.parametrize("runs", [1, 2, 32])
def test_statistics_do_not_depend_on_the_size_of_the_blocks(monkeypatch: pytest.MonkeyPatch, runs: int) -> None:
    of = samples([8] * 9 + [12] * 4)
    expected = collected(of)
    monkeypatch.setattr(collector, "BLOCK_RUNS", runs)
    assert collected(of) == expected


@pytest.mark.parametrize("batch_size", [1, 4])
def test_batches_have_the_channels_of_single_samples(batch_size: int) -> None:
    of = samples([8] * 10)
    found = collected(of, batch_size=batch_size)
    for name in ("n", "y"):
        check(found[name], [-sample["x"] for sample in of])
    check(found["r"], [np.maximum(-sample["x"], 0).transpose(0, 2, 1) for sample in of])


def test_a_bad_sample_is_named_by_its_number_although_others_wait() -> None:
    of = samples([8] * 6)
    of[4]["x"][0, 3, 2] = np.nan
    with pytest.raises(DataError, match="numbers 4, counted from 0"):
        collected(of)


def test_a_bad_sample_that_is_passed_over_takes_no_channels_of_others_with_it() -> None:
    of = samples([8] * 6)
    of[4]["x"][0, 3, 2] = np.nan
    good = [sample for number, sample in enumerate(of) if number != 4]
    found = collected(of, on_nonfinite="ignore")
    check(found["n"], [-sample["x"] for sample in good])
    assert found["n"].nonfinite == 1

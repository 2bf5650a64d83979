"""Every calibration knows the extremes of the channels, whatever the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from quantcli.calibration.file_format import decode, encode
from quantcli.calibration.statistics import CalibrationStatistics
from quantcli.core.stats import TensorStats
from quantcli.graph.observe import expose
from quantcli.pipeline.calibrate import collect_statistics
from quantcli.pipeline.samples import open_samples
from quantcli.pipeline.source import load_float_model
from quantcli.pipeline.types import DataOptions, RunOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.planner import make_plan, observed_tensors
from quantcli.quantize.recipe import Recipe
from quantcli.runtime.session import Session

EPSILON = float(np.finfo(np.float32).eps)

CONVOLUTIONS = """
    <ir_version: 8, opset_import: ["" : 13]>
    g (float[N, 3, 12, 12] x) => (float[N, 5] y) <float zero = {0}, float six = {6}> {
        a = Conv <pads = [1, 1, 1, 1]> (x, w0)
        b = Clip(a, zero, six)
        c = Conv <pads = [1, 1, 1, 1]> (b, w1)
        d = Relu(c)
        e = Conv(d, w2)
        f = Conv <pads = [1, 1, 1, 1]> (e, w3)
        h = Add(e, f)
        i = Conv(h, w4)
        j = Relu(i)
        p = GlobalAveragePool(j)
        q = Flatten(p)
        y = Gemm(q, w5)
    }
"""
CONVOLUTION_WEIGHTS = {
    "w0": (16, 3, 3, 3),
    "w1": (16, 16, 3, 3),
    "w2": (8, 16, 1, 1),
    "w3": (8, 8, 3, 3),
    "w4": (32, 8, 1, 1),
    "w5": (32, 5),
}

TRANSFORMER = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N, T, 8] x) => (float[N, T, 8] y) <int64[4] heads = {0, 0, 2, 4}, int64[3] joined = {0, 0, 8}> {
        n = LayerNormalization(x, scale)
        q = MatMul(n, w0)
        k = MatMul(n, w1)
        v = MatMul(n, w2)
        q4 = Reshape(q, heads)
        k4 = Reshape(k, heads)
        v4 = Reshape(v, heads)
        qt = Transpose <perm = [0, 2, 1, 3]> (q4)
        kt = Transpose <perm = [0, 2, 3, 1]> (k4)
        vt = Transpose <perm = [0, 2, 1, 3]> (v4)
        s = MatMul(qt, kt)
        p = Softmax(s)
        c = MatMul(p, vt)
        ct = Transpose <perm = [0, 2, 1, 3]> (c)
        cj = Reshape(ct, joined)
        o = MatMul(cj, w3)
        r = Add(x, o)
        m = LayerNormalization(r, scale)
        u = MatMul(m, w4)
        g0 = Relu(u)
        d = MatMul(g0, w5)
        y = Add(r, d)
    }
"""
TRANSFORMER_WEIGHTS = {
    "scale": (8,),
    **{f"w{index}": (8, 8) for index in range(4)},
    "w4": (8, 24),
    "w5": (24, 8),
}


def written(text: str, weights: dict[str, tuple[int, ...]], folder: Path) -> Path:
    """A model of ``text`` with random ``weights``, in a file."""
    rng = np.random.default_rng(3)
    proto = onnx.parser.parse_model(text)
    for name, shape in weights.items():
        array = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(proto, folder / "m.onnx")
    return folder / "m.onnx"


def calibrated(
    model: Path, samples: np.ndarray, folder: Path, run: RunOptions | None = None
) -> CalibrationStatistics:
    np.savez(folder / "samples.npz", x=samples)
    source = load_float_model(model, "ort-cpu")
    return collect_statistics(
        source,
        open_samples(DataOptions(specs=(str(folder / "samples.npz"),)), source.inputs, source.path),
        run or RunOptions(),
        "ort-cpu",
        SilentProgress(),
    ).statistics


def exposed(model: Path, samples: np.ndarray) -> dict[str, np.ndarray]:
    """All values that are to be observed, of the samples one by one, joined along axis 0."""
    source = load_float_model(model, "ort-cpu")
    names = observed_tensors(make_plan(source.view, Recipe(target="ort-cpu")))
    session = Session(expose(source.prepared, names).to_bytes())
    runs = [session.run({"x": sample[None]}, list(names)) for sample in samples]
    return {name: np.concatenate([run[name] for run in runs]) for name in names}


def check(found: TensorStats, array: np.ndarray, *, nonnegative: bool, tolerance: float = 0.0) -> None:
    """Extremes of ``array``; those of channels, too. 0 is the minimum after Relu and Clip."""
    assert found.channel_axis is not None
    assert found.channel_minimum is not None
    assert found.channel_maximum is not None
    others = tuple(axis for axis in range(array.ndim) if axis != found.channel_axis)
    low = np.zeros(array.shape[found.channel_axis]) if nonnegative else array.min(axis=others)
    for extremes, expected in ((found.channel_minimum, low), (found.channel_maximum, array.max(axis=others))):
        np.testing.assert_allclose(extremes, expected, rtol=tolerance, atol=tolerance * np.abs(array).max())
    assert found.minimum == found.channel_minimum.min()
    assert found.maximum == found.channel_maximum.max()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_channels_of_a_convolutional_model_have_their_extremes(tmp_path: Path, batch_size: int) -> None:
    model = written(CONVOLUTIONS, CONVOLUTION_WEIGHTS, tmp_path)
    samples = np.random.default_rng(0).normal(size=(7, 3, 12, 12)).astype(np.float32)
    arrays = exposed(model, samples)
    found = calibrated(model, samples, tmp_path, RunOptions(batch_size=batch_size))
    assert set(found.tensors) == set(arrays) >= {"x", "b", "d", "e", "h", "j"}
    for name, array in arrays.items():
        # A batch changes how sums of products are grouped, by a few units of float32.
        tolerance = 0.0 if batch_size == 1 else 32 * EPSILON
        check(found.tensors[name], array, nonnegative=name in "bdj", tolerance=tolerance)
        assert found.tensors[name].channel_axis == 1


@pytest.mark.parametrize("batch_size", [1, 2])
def test_channels_of_a_transformer_have_their_extremes(tmp_path: Path, batch_size: int) -> None:
    model = written(TRANSFORMER, TRANSFORMER_WEIGHTS, tmp_path)
    samples = np.random.default_rng(0).normal(size=(5, 6, 8)).astype(np.float32)
    arrays = exposed(model, samples)
    found = calibrated(model, samples, tmp_path, RunOptions(batch_size=batch_size))
    with_channels = {name for name, tensor in found.tensors.items() if tensor.channel_axis is not None}
    assert with_channels >= {"n", "m", "g0"}
    for name in with_channels:
        tolerance = 0.0 if batch_size == 1 else 128 * EPSILON
        check(found.tensors[name], arrays[name], nonnegative=name == "g0", tolerance=tolerance)


@pytest.mark.parametrize(
    ("text", "weights", "shape"),
    [(CONVOLUTIONS, CONVOLUTION_WEIGHTS, (4, 3, 12, 12)), (TRANSFORMER, TRANSFORMER_WEIGHTS, (4, 6, 8))],
    ids=["convolutions", "transformer"],
)
def test_the_number_of_threads_changes_no_bit(
    tmp_path: Path, text: str, weights: dict[str, tuple[int, ...]], shape: tuple[int, ...]
) -> None:
    model = written(text, weights, tmp_path)
    samples = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    one, two = (encode(calibrated(model, samples, tmp_path, RunOptions(threads=threads))) for threads in (1, 2))
    assert one == two


def test_channels_are_kept_in_the_file(tmp_path: Path) -> None:
    model = written(CONVOLUTIONS, CONVOLUTION_WEIGHTS, tmp_path)
    found = calibrated(model, np.ones((2, 3, 12, 12), np.float32), tmp_path)
    loaded = decode(encode(found), "m.calib")
    assert loaded == found
    assert loaded.tensors["e"].channel_axis == 1


def test_samples_of_several_lengths_keep_their_channels(tmp_path: Path) -> None:
    model = written(TRANSFORMER, TRANSFORMER_WEIGHTS, tmp_path)
    rng = np.random.default_rng(0)
    folder = tmp_path / "samples"
    folder.mkdir()
    for number, length in enumerate((6, 4, 9)):
        np.savez(folder / f"{number}.npz", x=rng.normal(size=(1, length, 8)).astype(np.float32))
    source = load_float_model(model, "ort-cpu")
    found = collect_statistics(
        source,
        open_samples(DataOptions(specs=(str(folder),)), source.inputs, source.path),
        RunOptions(),
        "ort-cpu",
        SilentProgress(),
    ).statistics
    assert found.tensors["n"].channel_axis == 2

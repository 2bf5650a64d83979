"""The trial: what it is judged on, what it chooses, and what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_graphs import graph

from quantcli.pipeline import contest
from quantcli.pipeline.contest import judged_values
from quantcli.pipeline.convert import convert
from quantcli.pipeline.types import ConvertRequest, DataOptions
from quantcli.progress import SilentProgress

SILENT = SilentProgress()


def test_outputs_are_judged_in_front_of_a_final_softmax():
    model = graph(
        """g (float[1,4] x) => (float[1,4] y, float[1,4] z, float[4] v) {
        a = Add (x, x) y = Softmax (a) z = Mul (a, a) s = Sigmoid (z) v = Squeeze (s) }"""
    )
    assert judged_values(model.view()) == ("a", "z")


def test_an_output_that_nothing_saturates_is_judged_itself():
    model = graph("g (float[1,4] x) => (float[4] y) { a = Add (x, x) y = Squeeze (a) }")
    assert judged_values(model.view()) == ("y",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Convolutions whose channels differ a hundredfold, with samples."""
    rng = np.random.default_rng(5)
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,3,8,8] x) => (float[N,4,8,8] y) {
            a = Conv <pads = [1,1,1,1]> (x, w0, b0) r = Relu (a)
            c = Conv (r, w1) q = Relu (c) y = Conv (q, w2) }"""
    )
    sizes = np.array([1, 0.01, 1, 0.01, 1, 0.01, 1, 0.01], np.float32).reshape(-1, 1, 1, 1)
    arrays = {
        "w0": rng.normal(0, 0.5, (8, 3, 3, 3)) * sizes,
        "b0": rng.normal(0, 0.5, 8) * sizes.reshape(-1),
        "w1": rng.normal(0, 0.5, (8, 8, 1, 1)) / sizes.reshape(1, -1, 1, 1),
        "w2": rng.normal(0, 0.5, (4, 8, 1, 1)),
    }
    for name, array in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.save(proto, tmp_path / "m.onnx")
    samples = rng.normal(0, 1, (96, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=samples[:64])
    np.savez(tmp_path / "eval.npz", x=samples[64:])
    return tmp_path


def converted(folder: Path, **fields: object):
    request = ConvertRequest(
        model=folder / "m.onnx",
        output=folder / "q.onnx",
        data=DataOptions(specs=(str(folder / "calib.npz"),)),
        eval_data=DataOptions(specs=(str(folder / "eval.npz"),)),
        placement="static",
        overwrite=True,
        **fields,
    )
    return convert(request, SILENT)


def test_channels_that_differ_much_are_balanced_and_gain_by_it(folder, monkeypatch):
    balanced = converted(folder)
    assert balanced.rounding.alpha > 0
    monkeypatch.setattr(contest, "equalized", lambda bench, *_: bench)
    plain = converted(folder)
    assert plain.rounding.alpha == 0
    # Half of the channels use a hundredth of the range: they lose most of their 8 bits without balancing.
    assert balanced.fidelity["y"] > plain.fidelity["y"] + 6


def test_the_trial_promises_no_more_than_unseen_samples_keep(folder):
    found = converted(folder)
    # It takes half of the samples and a quarter of the rows. 1 dB: the spread of 16 samples of 256 values.
    assert found.rounding.trial_sqnr <= found.fidelity["y"] + 1


def test_rounding_to_nearest_is_kept_where_nothing_is_better(folder, monkeypatch):
    class Worse:
        def __call__(self, model):
            return self.found.pop(0)

        def __init__(self, *_, **__):
            from quantcli.pipeline.trial_fidelity import TrialFidelity

            ones = np.ones((1, 8))
            self.found = [TrialFidelity(signal=ones, noise=ones * noise) for noise in (0.02, 0.02, 0.01)]

    monkeypatch.setattr(contest, "Judge", Worse)
    found = converted(folder, plan_out=folder / "plan.json")
    assert (found.rounding.samples, found.rounding.alpha) == (0, 0)
    assert any("rounded to nearest" in note for note in found.notes)
    first = (folder / "q.onnx").read_bytes()
    converted(folder, plan=folder / "plan.json")
    assert (folder / "q.onnx").read_bytes() == first


def test_a_poor_result_is_told_with_what_to_do(folder, monkeypatch):
    monkeypatch.setattr(contest, "POOR_DB", 200.0)
    notes = converted(folder).notes
    assert any("quantcli tune m.onnx" in note and "dB only" in note for note in notes)

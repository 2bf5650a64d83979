"""A model with a state, calibrated and compared as it is used: fed with its own state."""

import numpy as np
import onnx
import pytest

from quantcli.calibration.file_format import load_statistics
from quantcli.errors import UsageError
from quantcli.pipeline.calibrate import calibrate
from quantcli.pipeline.compare import compare
from quantcli.pipeline.convert import convert
from quantcli.pipeline.types import CalibrateRequest, CompareRequest, ConvertRequest, DataOptions
from quantcli.progress import SilentProgress

SILENT = SilentProgress()
STEPS = 40
LINKS = ("new=state",)


@pytest.fixture
def folder(tmp_path):
    """state' = state / 2 + x, y = state' · W."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[1,4] x, float[1,4] state) => (float[1,3] y, float[1,4] new) <float half = {0.5}> {
            kept = Mul (state, half) new = Add (kept, x) t = Relu (new) y = MatMul (t, W)
        }"""
    )
    rng = np.random.default_rng(3)
    weight = rng.normal(0, 1, (4, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "W"))
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "steps.npz", x=rng.uniform(0, 1, (STEPS, 4)).astype(np.float32))
    return tmp_path


def data(folder, **more):
    return DataOptions(specs=(str(folder / "steps.npz"),), states=LINKS, **more)


def true_states(folder):
    state, found = np.zeros((1, 4), np.float32), []
    for x in np.load(folder / "steps.npz")["x"]:
        state = state / 2 + x[None]
        found.append(state)
    return np.array(found)


def test_calibration_sees_the_states_that_the_model_reaches(folder):
    calibrate(CalibrateRequest(model=folder / "m.onnx", data=data(folder)), SILENT)
    found = load_statistics(folder / "m.calib").tensors["t"]
    assert found.maximum == true_states(folder).max()


def test_without_feedback_the_model_is_never_seen_at_work(folder):
    np.savez(folder / "steps.npz", x=np.load(folder / "steps.npz")["x"], state=np.zeros((STEPS, 4), np.float32))
    options = DataOptions(specs=(str(folder / "steps.npz"),))
    calibrate(CalibrateRequest(model=folder / "m.onnx", data=options), SILENT)
    assert load_statistics(folder / "m.calib").tensors["t"].maximum < 1 < true_states(folder).max()


def test_the_judged_model_goes_on_from_its_own_state(folder):
    model = onnx.load(folder / "m.onnx")
    half = next(tensor for tensor in model.graph.initializer if tensor.name == "half")
    half.CopyFrom(onnx.numpy_helper.from_array(np.array([0.75], np.float32), "half"))
    onnx.save(model, folder / "other.onnx")
    report = compare(
        CompareRequest(
            original=folder / "m.onnx",
            quantized=folder / "other.onnx",
            data=data(folder),
            checks=False,
            tensors=False,
            default_gates=False,
        ),
        SILENT,
    )
    state, errors, sums = np.zeros((1, 4)), 0.0, 0.0
    for x, true in zip(np.load(folder / "steps.npz")["x"], true_states(folder), strict=True):
        state = 0.75 * state + x
        errors += float(((state - true) ** 2).sum())
        sums += float((true.astype(np.float64) ** 2).sum())
    fed = next(out for out in report.outputs if out.name == "new")
    assert fed.sqnr == pytest.approx(10 * np.log10(sums / errors), abs=1e-4)
    assert report.data is not None
    assert any("new → state" in note for note in report.data.notes)


def test_a_conversion_tells_its_fidelity_over_the_sequence(folder):
    result = convert(
        ConvertRequest(model=folder / "m.onnx", data=data(folder), eval_data=data(folder), placement="static"),
        SILENT,
    )
    assert result.fidelity["y"] > 25  # 8 bits: half a step of 1/255 of the range on two tensors
    assert any("new → state" in note for note in result.report.data.notes)


def test_sequences_may_be_cut(folder):
    request = CalibrateRequest(model=folder / "m.onnx", data=data(folder, sequence=1))
    calibrate(request, SILENT)
    assert load_statistics(folder / "m.calib").tensors["t"].maximum == np.load(folder / "steps.npz")["x"].max()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"states": ("old=state",)}, "'old', which is no output of the model"),
        ({"states": LINKS, "shuffle": True}, "cannot be shuffled"),
        ({"sequence": 3}, "--sequence-length has no effect without --state"),
    ],
)
def test_what_makes_no_sense_is_refused(folder, options, told):
    request = DataOptions(specs=(str(folder / "steps.npz"),), **options)
    with pytest.raises(UsageError, match=told):
        calibrate(CalibrateRequest(model=folder / "m.onnx", data=request), SILENT)

"""Which samples are kept, which statistics are used, and what equalization does to a conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantcli.calibration.file_format import load_statistics
from quantcli.graph.observe import expose
from quantcli.pipeline.calibrate import calibrate
from quantcli.pipeline.source import load_float_model
from quantcli.pipeline.types import CalibrateRequest, ConvertRequest, DataOptions
from quantcli.pipeline.workbench import SampleKeeper, equalized, open_workbench, stored_statistics
from quantcli.progress import SilentProgress
from quantcli.runtime.session import Session, SessionSettings

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
SILENT = SilentProgress()


@pytest.mark.parametrize(("count", "length"), [(4, 3), (4, 4), (4, 7), (4, 8), (4, 1000), (5, 23), (1, 9)])
def test_evenly_spaced_samples_of_a_stream_are_kept(count: int, length: int) -> None:
    kept = SampleKeeper(count)
    passed = list(kept.watch({"x": np.array(number)} for number in range(length)))
    assert [int(sample["x"]) for sample in passed] == list(range(length))
    found = [int(sample["x"]) for sample in kept.samples]
    assert len(found) == min(count, length)
    assert found == sorted(set(found))
    assert found[0] == 0
    if length > count:
        gaps = np.diff([*found, length])
        # Strides are powers of two, and a kept list of less than 2·count is thinned by steps of one or two.
        assert gaps.max(initial=0) <= 2 * length / count + 2


def request(model: str, **fields: object) -> ConvertRequest:
    data = DataOptions(specs=(str(SAMPLES / "data" / "digits_calib.npz"),), samples=64)
    return ConvertRequest(model=SAMPLES / f"{model}.onnx", data=data, placement="static", **fields)


@pytest.mark.parametrize("model", ["digits_cnn", "digits_mobilenet", "digits_transformer"])
def test_an_equalized_bench_computes_the_same_in_float(model: str) -> None:
    asked = request(model)
    source = load_float_model(asked.model, "ort-cpu")
    bench = open_workbench(asked, source, None, 4, SILENT)
    balanced = equalized(bench, asked, 0.5, SILENT)
    assert balanced.scaled > 0
    plain = SessionSettings(optimization="disabled")
    before = Session(source.prepared.to_bytes(), plain)
    after = Session(balanced.source.prepared.to_bytes(), plain)
    for sample in bench.samples:
        for name, values in before.run(sample).items():
            # Scales are no powers of two: every product of a layer is rounded anew, a few thousand in a row.
            np.testing.assert_allclose(
                after.run(sample)[name], values, rtol=2**-12, atol=2**-12 * np.abs(values).max()
            )


def test_ranges_of_an_equalized_bench_are_those_of_its_graph() -> None:
    asked = request("digits_cnn")
    source = load_float_model(asked.model, "ort-cpu")
    balanced = equalized(open_workbench(asked, source, None, 64, SILENT), asked, 0.5, SILENT)
    names = list(balanced.statistics.tensors)
    session = Session(expose(balanced.source.prepared, names).to_bytes(), SessionSettings())
    seen = [session.run(sample, names) for sample in balanced.samples]
    for name in names:
        high = max(float(values[name].max()) for values in seen)
        # The observing graph may fuse other nodes, and its sums have another order.
        assert balanced.statistics.tensors[name].maximum == pytest.approx(high, rel=2**-16)


def test_a_calibration_file_gives_the_ranges_and_data_the_samples(tmp_path: Path) -> None:
    path = tmp_path / "m.calib"
    data = DataOptions(specs=(str(SAMPLES / "data" / "digits_calib.npz"),), samples=96)
    calibrate(CalibrateRequest(model=SAMPLES / "digits_cnn.onnx", data=data, output=path), SILENT)
    asked = request("digits_cnn", calibration=path)
    source = load_float_model(asked.model, "ort-cpu")
    bench = open_workbench(asked, source, stored_statistics(asked, source), 8, SILENT)
    assert bench.statistics.samples == load_statistics(path).samples == 96
    assert len(bench.samples) == 8

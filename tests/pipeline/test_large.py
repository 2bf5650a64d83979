"""Models that count as large here, because the limit is 0: what is done with them is the same for any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantcli.errors import ModelError, OutputError
from quantcli.graph.edit import GraphEditor
from quantcli.graph.model_io import load_model, save_model
from quantcli.pipeline import large, write_large
from quantcli.pipeline.convert import convert
from quantcli.pipeline.forms import Outcome
from quantcli.pipeline.large import open_runner
from quantcli.pipeline.source import load_float_model
from quantcli.pipeline.types import ConvertRequest, DataOptions
from quantcli.progress import SilentProgress
from quantcli.quantize.planner import make_plan
from quantcli.quantize.recipe import Recipe
from quantcli.runtime import in_parts
from quantcli.runtime.session import Session, SessionSettings

SILENT = SilentProgress()
RNG = np.random.default_rng(5)
X = RNG.standard_normal((2, 192)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three layers, whose weights lie in external data."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,192] x) => (float[N,192] y) {
            a = MatMul (x, w0) ra = Relu (a) b = MatMul (ra, w1) rb = Relu (b) y = MatMul (rb, w2)
        }"""
    )
    for index in range(3):
        array = RNG.normal(0, 0.1, (192, 192)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, f"w{index}"))
    for name, node in zip("abcde", proto.graph.node, strict=True):
        node.name = name
    found = tmp_path / "m.onnx"
    onnx.save(proto, tmp_path / "whole.onnx")
    save_model(load_model(tmp_path / "whole.onnx"), found, external_threshold_bytes=0)
    np.savez(tmp_path / "calib.npz", x=RNG.standard_normal((16, 192)).astype(np.float32))
    return found


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LARGE_MODEL_BYTES", 0)
    monkeypatch.setattr(in_parts, "PART_BYTES", 1)


def request(path: Path, output: str) -> ConvertRequest:
    data = DataOptions(specs=(str(path.with_name("calib.npz")),))
    return ConvertRequest(model=path, data=data, output=path.with_name(output), placement="static")


def test_a_large_model_is_converted_to_the_same_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = convert(request(path, "ordinary.onnx"), SILENT)
    monkeypatch.setattr(large, "LARGE_MODEL_BYTES", 0)
    monkeypatch.setattr(in_parts, "PART_BYTES", 1)
    found = convert(request(path, "large.onnx"), SILENT)
    assert path.with_name("large.onnx").read_bytes() == path.with_name("ordinary.onnx").read_bytes()
    assert found.kernels is not None
    assert ordinary.kernels is not None
    assert found.kernels.expected == ordinary.kernels.expected
    assert any("checked its graph without the weights" in note for note in found.notes)


@pytest.mark.usefixtures("all_large")
def test_inputs_of_a_large_model_are_those_that_the_runtime_states(path: Path) -> None:
    (found,) = load_float_model(path, "ort-cpu").inputs
    assert (found.name, found.dtype, found.shape) == ("x", "float32", ("N", 192))


@pytest.mark.usefixtures("all_large")
def test_a_large_model_that_the_runtime_refuses_is_reported(path: Path) -> None:
    proto = onnx.load(path, load_external_data=False)
    proto.graph.node[1].op_type = "NoSuchOperator"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="NoSuchOperator") as caught:
        load_float_model(path, "ort-cpu")
    assert caught.value.code == "M302"


@pytest.mark.usefixtures("all_large")
def test_a_large_model_runs_part_by_part_and_gives_the_same(path: Path) -> None:
    settings = SessionSettings(optimization="disabled")
    runner = open_runner(path, settings)
    assert not isinstance(runner, Session)
    expected = Session(path, settings).run({"x": X})["y"]
    rounding = 3 * 192 * np.finfo(np.float32).eps * np.abs(expected).max()  # other kernels add in another order
    np.testing.assert_allclose(runner.run({"x": X})["y"], expected, rtol=0, atol=rounding)


def outcome(path: Path, factor: float) -> Outcome:
    """A result whose first weight is that of the source times ``factor``."""
    source = load_float_model(path, "ort-cpu")
    model = source.prepared.clone()
    editor = GraphEditor(model)
    editor.set_lazy_initializer("w0", "float32", (192, 192), lambda: factor * source.view.constant("w0"))
    editor.finish()
    return Outcome(source=source, plan=make_plan(source.view, Recipe()), model=model, sample={"x": X})


@pytest.mark.usefixtures("all_large")
def test_a_large_result_that_gives_nan_does_not_appear(path: Path) -> None:
    made = outcome(path, np.nan)
    with pytest.raises(OutputError, match="NaN or Inf") as caught:
        write_large.write_large(made, path.with_name("out.onnx"), threads=1, overwrite=False)
    assert caught.value.code == "O301"
    assert not list(path.parent.glob("*out.onnx*"))


@pytest.mark.usefixtures("all_large")
def test_a_large_result_that_does_not_load_does_not_appear(path: Path) -> None:
    made = outcome(path, 1.0)
    editor = GraphEditor(made.model)
    editor.set_initializer("w1", np.zeros((7, 7), np.float32))
    with pytest.raises(OutputError, match="does not hold") as caught:
        write_large.write_large(made, path.with_name("out.onnx"), threads=1, overwrite=False)
    assert caught.value.code == "O301"
    assert not list(path.parent.glob("*out.onnx*"))


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("link", ["hard", "symbolic"])
def test_external_data_of_the_source_is_never_overwritten_whatever_its_name(path: Path, link: str) -> None:
    made, data = outcome(path, 1.0), path.with_name("m.onnx.data")
    before, name = data.read_bytes(), path.with_name("out.onnx.data")
    name.hardlink_to(data) if link == "hard" else name.symlink_to(data)
    with pytest.raises(OutputError, match="is the file that the model was read from") as caught:
        save_model(made.model, path.with_name("out.onnx"), overwrite=True, external_threshold_bytes=0)
    assert caught.value.code == "O102"
    assert data.read_bytes() == before
    assert name.exists()


@pytest.mark.parametrize(("dtype", "tried"), [("float", 0), ("float16", 1), ("bfloat16", 1)])
def test_models_in_half_precision_are_first_loaded_in_a_process_of_their_own(
    dtype: str, tried: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'<ir_version: 10, opset_import: ["" : 21]> net ({dtype}[2] x) => ({dtype}[2] y) {{ y = Identity(x) }}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    asked: list[Path] = []
    monkeypatch.setattr(large, "refuse_crash", asked.append)
    large.stated_inputs(load_model(tmp_path / "m.onnx"), tmp_path / "m.onnx", threads=1)
    assert asked == [tmp_path / "m.onnx"] * tried

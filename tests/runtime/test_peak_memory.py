import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from quantcli.errors import RuntimeFailure
from quantcli.runtime.peak_memory import own_peak, peak_memory

MEBIBYTE = 2**20


def weighty(path, mebibytes):
    """A product with a weight of so many MiB."""
    rows = mebibytes * MEBIBYTE // (4 * 1024)
    graph = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        f"net (float[1,{rows}] x) => (float[1,1024] y) {{ t = Transpose(x)  u = Transpose(t)  y = MatMul(u, w) }}"
    )
    weight = np.random.default_rng(0).normal(size=(rows, 1024)).astype(np.float32)
    graph.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(graph, path)
    return path, {"x": np.ones((1, rows), np.float32)}


def test_the_peak_holds_the_weights_of_its_own_model_only(tmp_path):
    path, feed = weighty(tmp_path / "m.onnx", 64)
    found = peak_memory((path,), [feed], runs=1)
    grown = found.peaks[0] - found.baseline
    assert 64 * MEBIBYTE <= grown <= 5 * 64 * MEBIBYTE  # the weight, its packed form, the file


def test_texts_are_samples_as_well(tmp_path):
    graph = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> net (string[N] x) => (string[N] y) { y = Identity(x) }'
    )
    onnx.save(graph, tmp_path / "m.onnx")
    found = peak_memory((tmp_path / "m.onnx",), [{"x": np.array(["a", "bc"], dtype=object)}], runs=1)
    assert found.peaks[0] > MEBIBYTE


def test_a_child_that_fails_says_why(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(
        RuntimeFailure, match=r"of 'broken\.onnx' could not be measured: onnxruntime .* does not load"
    ) as e:
        peak_memory((tmp_path / "broken.onnx",), [{"x": np.ones(1, np.float32)}])
    assert e.value.code == "R103"


def test_a_child_that_dies_is_a_failure_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(RuntimeFailure, match="ended with status 1"):
        peak_memory((), [{"x": np.ones(1, np.float32)}])


def test_this_process_has_used_something():
    assert own_peak() > MEBIBYTE

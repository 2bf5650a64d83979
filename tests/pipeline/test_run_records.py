"""Records of a run, digests of what it depends on, and what differs between artefacts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from quantcli.calibration.file_format import save_statistics
from quantcli.errors import ConfigError
from quantcli.pipeline.artefacts import difference
from quantcli.pipeline.calibrate import calibrate
from quantcli.pipeline.run_digests import MISSING, content_digest, data_digests
from quantcli.pipeline.run_state import Record, RunState, read_state, why_stale
from quantcli.pipeline.run_types import Finding, Step
from quantcli.pipeline.types import CalibrateRequest, DataOptions, RunOptions
from quantcli.progress import SilentProgress

FINDING = Finding(
    status="fail", sentence="1 failed", reasons=("a", "b"), warnings=("c",), figures={"SQNR": "3 dB"}
)


def test_records_that_are_written_are_read(tmp_path):
    state = RunState(tmp_path / "q.lock")
    state.put("m", Step.COMPARE, Record(inputs={"a": "1"}, outputs={"r.md": "2"}, finding=FINDING))
    state.put("m", Step.CALIBRATE, Record(inputs={"a": "1"}, outputs={}))
    assert read_state(tmp_path / "q.lock").models == state.models
    assert state.knows(Path("r.md"))
    assert not state.knows(Path("s.md"))


def test_the_bytes_depend_on_the_records_alone(tmp_path):
    texts = []
    for names in (("a", "b"), ("b", "a")):
        state = RunState(tmp_path / "q.lock")
        for name in names:
            state.put(name, Step.CONVERT, Record(inputs={}, outputs={}))
        texts.append((tmp_path / "q.lock").read_bytes())
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 9, "models": {}}', '{"version": 1, "models": {"m": {"x": 1}}}']
)
def test_damaged_records_are_told(tmp_path, text):
    (tmp_path / "q.lock").write_text(text)
    with pytest.raises(ConfigError, match="is no record of quantcli run") as caught:
        read_state(tmp_path / "q.lock")
    assert caught.value.code == "C208"


@pytest.mark.parametrize(
    ("inputs", "outputs", "why"),
    [
        ({"model": "a" * 64, "method": "x"}, {"o": "1"}, ""),
        ({"model": "b" * 64, "method": "x"}, {"o": "1"}, "model changed"),
        ({"model": "a" * 64, "method": "y"}, {"o": "1"}, "method changed from x to y"),
        ({"model": "a" * 64, "method": "x", "mask": "m"}, {"o": "1"}, "mask is new"),
        ({"model": "a" * 64}, {"o": "1"}, "method is gone"),
        ({"model": "a" * 64, "method": "x"}, {"o": MISSING}, "'o' is missing"),
        ({"model": "a" * 64, "method": "x"}, {"o": "2"}, "'o' was changed"),
        ({"model": "a" * 64, "method": "x"}, {"o": "1", "p": "1"}, "'p' is asked for now"),
    ],
)
def test_the_first_reason_is_named(inputs, outputs, why):
    record = Record(inputs={"model": "a" * 64, "method": "x"}, outputs={"o": "1"})
    assert why_stale(record, inputs, outputs, MISSING) == why


def test_without_a_record_a_step_is_done():
    assert why_stale(None, {}, {}, MISSING) == "there is no record of it"


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "f.npz").write_bytes(b"abc")
    assert content_digest(tmp_path / "f.npz") == hashlib.sha256(b"abc").hexdigest()
    assert content_digest(tmp_path / "absent") == MISSING


def test_a_folder_is_known_by_names_and_contents(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.npy").write_bytes(b"1")
    first = content_digest(tmp_path / "d")
    (tmp_path / "d/.hidden").write_bytes(b"2")
    assert content_digest(tmp_path / "d") == first
    (tmp_path / "d/a.npy").rename(tmp_path / "d/b.npy")
    assert content_digest(tmp_path / "d") != first


def test_a_list_is_known_by_what_it_lists(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "list.txt").write_text("a.png\n")
    (tmp_path / "labels.txt").write_text("3\n1\n")
    first = content_digest(tmp_path / "list.txt")
    assert len(content_digest(tmp_path / "labels.txt")) == 64
    (tmp_path / "a.png").write_bytes(b"2")
    assert content_digest(tmp_path / "list.txt") != first


def test_places_are_no_part_of_a_digest_but_how_samples_are_read_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("p", "q"):
        Path(folder).mkdir()
        Path(folder, "c.npy").write_bytes(b"1")

    def digests(*specs: str) -> dict[str, str]:
        return data_digests(DataOptions(specs=specs), Path("m.onnx"), RunOptions())

    assert digests("x=p/c.npy") == digests("x=q/c.npy")
    assert digests("x=p/c.npy") != digests("y=p/c.npy")
    assert digests("p/c.npy?rows=feed") != digests("p/c.npy?rows=batch")
    assert list(digests("x=p/c.npy", "y=q/c.npy", "z=random:3")) == [
        "data c.npy",
        "data c.npy #2",
        "data random:3",
    ]


def model(path: Path, weight: float, node: str = "fc") -> Path:
    text = f"""<ir_version: 8, opset_import: ["" : 13]>
    net (float[N,1] x) => (float[N,1] y) <float[1,1] w = {{{weight}}}> {{ [{node}] y = MatMul(x, w) }}"""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_of_models_the_value_or_node_is_named(tmp_path):
    first = model(tmp_path / "a.onnx", 1.0)
    assert difference(first, model(tmp_path / "b.onnx", 1.0)) == ""
    assert difference(first, model(tmp_path / "b.onnx", 2.0)) == "the values of 'w' differ"
    assert difference(first, model(tmp_path / "b.onnx", 1.0, "gemm")) == "node 'fc' is only in the committed file"


def test_of_models_provenance_comes_first(tmp_path):
    paths = []
    for name, text in (("a.onnx", "0.1"), ("b.onnx", "0.2")):
        proto = onnx.load(model(tmp_path / name, 1.0))
        proto.metadata_props.add(key="quantcli.version", value=text)
        onnx.save(proto, tmp_path / name)
        paths.append(tmp_path / name)
    assert difference(*paths) == 'version is "0.1", and now "0.2"'


def test_of_statistics_samples_or_ranges_are_named(tmp_path):
    found = []
    for name, high in (("a", 1.0), ("b", 2.0)):
        np.save(tmp_path / f"{name}.npy", np.linspace(0, high, 8, dtype=np.float32).reshape(8, 1))
        asked = CalibrateRequest(
            model=model(tmp_path / "m.onnx", 1.0),
            data=DataOptions(specs=(f"x={tmp_path / name}.npy",)),
            output=tmp_path / f"{name}.calib",
        )
        found.append(calibrate(asked, SilentProgress()).statistics)
    first = tmp_path / "a.calib"
    assert difference(first, tmp_path / "b.calib").startswith("fingerprint of the data is ")
    other = dataclasses.replace(found[1], data_fingerprint=found[0].data_fingerprint)
    save_statistics(other, tmp_path / "b.calib", overwrite=True)
    assert difference(first, tmp_path / "b.calib") == "the range of 'x' is [0, 1], and now [0, 2]"
    fewer = dataclasses.replace(found[0], tensors={"z": found[0].tensors["x"]})
    save_statistics(fewer, tmp_path / "b.calib", overwrite=True)
    assert difference(first, tmp_path / "b.calib") == "tensor 'x' is only in the committed one"


def test_of_plans_the_place_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"nodes": [1, 2], "x": 0}')
    (tmp_path / "b.json").write_text('{"nodes": [1, 3]}')
    assert difference(tmp_path / "a.json", tmp_path / "b.json") == "'nodes[1]' is 2, and now 3"
    (tmp_path / "b.json").write_text('{"nodes": [1, 2]}')
    assert difference(tmp_path / "a.json", tmp_path / "b.json") == "'x' is only in the committed file"


def test_of_reports_what_was_timed_is_left_out(tmp_path):
    report = {
        "verdict": {"status": "pass"},
        "command": "quantcli run",
        "latency": {"ratio": 1.0},
        "gates": [{"metric": "latency_ratio", "value": 1.0}, {"metric": "sqnr", "value": 3.0}],
        "outputs": [{"sqnr": 3.0}],
    }
    other = json.loads(json.dumps(report))
    other |= {"command": "x", "latency": {"ratio": 2.0}, "verdict": {"status": "fail"}}
    other["gates"][0]["value"] = 2.0
    for name, data in (("a.json", report), ("b.json", other)):
        (tmp_path / name).write_text(json.dumps(data))
    assert difference(tmp_path / "a.json", tmp_path / "b.json") == ""
    other["outputs"][0]["sqnr"] = 4.0
    (tmp_path / "b.json").write_text(json.dumps(other))
    assert difference(tmp_path / "a.json", tmp_path / "b.json") == "'outputs[0].sqnr' is 3.0, and now 4.0"


def test_of_other_files_the_first_byte_is_named(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abcd")
    (tmp_path / "b.bin").write_bytes(b"abXd")
    assert difference(tmp_path / "a.bin", tmp_path / "b.bin") == "byte 2 differs"
    assert difference(tmp_path / "absent", tmp_path / "b.bin") == "it is missing"


def test_damaged_files_are_told(tmp_path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text("{}")
    assert difference(tmp_path / "a.json", tmp_path / "b.json").startswith("it is damaged: ")

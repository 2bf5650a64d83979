"""Memory of commands on models that are larger than they may hold.

What counts as large, and the sizes of parts and of files that are read whole with it, are lowered for the small
model, so that all that is done with large ones is done with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from big_model import Size, write_model

from quantcli.core.metrics import sqnr_db
from quantcli.graph.read_view import load_named
from quantcli.runtime.in_parts import InParts
from quantcli.runtime.session import Session, SessionSettings

MB = 10**6
SMALL = Size(vocabulary=4000, width=1024, hidden=4096, heads=8, layers=3)
"""184 MB, of which the largest tensors take 16.8."""

LARGEST = 4 * SMALL.width * SMALL.hidden
"""Bytes of the largest tensor."""

_MEASURED = """
import sys
from quantcli.cli.main import main
from quantcli.graph import proto_file
from quantcli.pipeline import large
from quantcli.runtime import in_parts
from quantcli.runtime.peak_memory import own_peak

large.LARGE_MODEL_BYTES = int(sys.argv[1])
in_parts.PART_BYTES = proto_file.SKIMMED_BYTES = large.LARGE_MODEL_BYTES // 16
sys.argv[1:2] = []
try:
    main()
finally:
    print(own_peak(), file=sys.stderr)
"""


def peak_of(*arguments: object, large: int) -> int:
    """Peak resident memory of a command in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(large), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stderr.split()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with external data, the same in one file, and a tiny one."""
    found = tmp_path_factory.mktemp("large")
    write_model(found / "external.onnx", SMALL)
    onnx.save(onnx.load(found / "external.onnx"), found / "single.onnx")
    write_model(found / "tiny.onnx", Size(vocabulary=400, width=64, hidden=128, heads=2, layers=1))
    return found


@pytest.mark.parametrize("form", [pytest.param("external", marks=pytest.mark.slow), "single"])
def test_a_plan_takes_the_memory_of_the_largest_tensor_only(folder: Path, form: str) -> None:
    options = ("--dynamic", "--dry-run")
    baseline = peak_of("convert", folder / "tiny.onnx", *options, large=0)
    found = peak_of("convert", folder / f"{form}.onnx", *options, large=100 * MB)
    assert found - baseline < 4 * LARGEST


def test_two_large_models_are_compared_slice_by_slice(folder: Path) -> None:
    baseline = peak_of("compare", folder / "tiny.onnx", folder / "tiny.onnx", large=0)
    found = peak_of("compare", folder / "external.onnx", folder / "single.onnx", large=100 * MB)
    assert found - baseline < 4 * LARGEST


INT4 = ("--weight-only", "--weight-bits", "4", "--granularity", "block:32", "-f")


FORMS = {"int4": (INT4, 0.17), "dynamic": (("--dynamic", "-f"), 0.27), "fp16": (("--bits", "fp16", "-f"), 0.52)}
"""Options, and the most that the result may have of the bytes of the weights."""


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("external", "int4"),
        *(pytest.param("single", name, marks=pytest.mark.slow) for name in FORMS),
        pytest.param("external", "dynamic", marks=pytest.mark.slow),
    ],
)
def test_weights_are_converted_in_the_memory_of_the_largest_tensors(folder: Path, form: str, name: str) -> None:
    (options, share), output, small = FORMS[name], folder / f"{form}.{name}.onnx", folder / f"tiny.{name}.onnx"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path != small}
    baseline = peak_of("convert", folder / "tiny.onnx", "-o", small, *options, large=0)
    found = peak_of("convert", folder / f"{form}.onnx", "-o", output, *options, large=100 * MB)
    assert found - baseline < 8 * LARGEST  # 134 of 184 MB
    assert output.stat().st_size < share * SMALL.weight_bytes
    assert {path for path in folder.iterdir() if path not in before} <= {output, small}
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.slow
def test_a_model_of_3_gb_is_converted_in_less_than_1_gb(tmp_path: Path) -> None:
    size = Size()
    written = write_model(tmp_path / "m.onnx", size)
    assert written > 3 * 1024**3
    output = tmp_path / "m.int4.onnx"
    assert peak_of("convert", tmp_path / "m.onnx", "-o", output, *INT4, large=1000 * MB) < 1000 * MB
    assert peak_of("compare", tmp_path / "m.onnx", output, large=1000 * MB) < 1000 * MB
    feed = {"tokens": np.arange(4, dtype=np.int64).reshape(1, 4)}
    settings = SessionSettings(config={"session.disable_prepacking": "1"})
    ours = Session(output, settings).run(feed)["logits"]
    theirs = InParts(load_named(tmp_path / "m.onnx"), settings).run(feed)["logits"]
    # Blocks of 32 normal values leave 20 dB of each product. Of the 28 branches that are added up, the k-th brings
    # 1/k of the power, with two roundings in a row: 20 - 10·log10(1 + 2·Σ 1/k) = 10.6 dB; measured were 11.7.
    assert sqnr_db(float(np.sum(theirs**2)), float(np.sum((ours - theirs) ** 2))) > 10

"""Memory of commands on models that are larger than they may hold.

What counts as large is lowered for the small model, so that all that is done with large ones is done with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from big_model import Size, write_model

MB = 10**6
SMALL = Size(vocabulary=4000, width=1024, hidden=4096, heads=8, layers=3)
"""184 MB, of which the largest tensors take 16.8."""

LARGEST = 4 * SMALL.width * SMALL.hidden
"""Bytes of the largest tensor."""

_MEASURED = """
import sys
from quantcli.cli.main import main
from quantcli.pipeline import large
from quantcli.runtime.peak_memory import own_peak

large.LARGE_MODEL_BYTES = int(sys.argv[1])
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
    write_model(found / "tiny.onnx", Size(vocabulary=40, width=16, hidden=32, heads=2, layers=1))
    return found


@pytest.mark.parametrize("form", ["external", "single"])
def test_a_plan_takes_the_memory_of_the_largest_tensor_only(folder: Path, form: str) -> None:
    options = ("--dynamic", "--dry-run")
    baseline = peak_of("convert", folder / "tiny.onnx", *options, large=0)
    found = peak_of("convert", folder / f"{form}.onnx", *options, large=100 * MB)
    assert found - baseline < 4 * LARGEST


def test_two_large_models_are_compared_slice_by_slice(folder: Path) -> None:
    baseline = peak_of("compare", folder / "tiny.onnx", folder / "tiny.onnx", large=0)
    found = peak_of("compare", folder / "external.onnx", folder / "single.onnx", large=100 * MB)
    assert found - baseline < 4 * LARGEST

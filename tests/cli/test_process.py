"""Real processes: streams, signals, exit codes as a shell sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

ROOT = Path(__file__).resolve().parents[2]

GRAPH = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[batch, 8] x) => (float[batch, 4] y)
<float[8, 8] w = {%s}, float[8, 4] v = {%s}>
{
  [first] h = MatMul(x, w)
  [act] r = Relu(h)
  [second] y = MatMul(r, v)
}
"""

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and descriptors")


@pytest.fixture
def folder(tmp_path):
    """A small model and samples for it."""
    rng = np.random.default_rng(0)
    numbers = [", ".join(f"{x:.4f}" for x in rng.normal(size=size)) for size in (64, 32)]
    onnx.save(parser.parse_model(GRAPH % tuple(numbers)), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(32, 8)).astype(np.float32))
    np.savez(tmp_path / "e.npz", x=rng.normal(size=(16, 8)).astype(np.float32))
    return tmp_path


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QUANTCLI", "NO_COLOR"))}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | extra


def quantcli(folder: Path, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quantcli", *arguments],
        cwd=folder,
        env=environment(**options.pop("env", {})),
        **({"capture_output": True, "text": True, "timeout": 100} | options),
    )


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of sh in which ``quantcli`` is this one."""
    script = f'quantcli() {{ "{sys.executable}" -m quantcli "$@"; }}; {line}'
    return subprocess.run(
        ["/bin/sh", "-c", script], cwd=folder, env=environment(), capture_output=True, text=True, timeout=100
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_three_commands_make_a_judged_model(folder):
    done = quantcli(folder, "calibrate", "m.onnx", "--data", "d.npz")
    assert done.returncode == 0, done.stderr
    assert "quantcli convert m.onnx --calibration m.calib" in done.stdout
    done = quantcli(folder, "convert", "m.onnx", "--calibration", "m.calib")
    assert done.returncode == 0, done.stderr
    assert "quantcli compare m.onnx m.int8.onnx" in done.stdout
    done = quantcli(
        folder, "compare", "m.onnx", "m.int8.onnx", "--data", "e.npz", "--gate", "sqnr>=15", "--report", "r.md"
    )
    assert done.returncode == 0, done.stderr
    assert names(folder) == ["d.npz", "e.npz", "m.calib", "m.int8.onnx", "m.onnx", "r.md"]


def test_calibrations_of_parts_are_joined(folder):
    for part in "de":
        assert (
            quantcli(folder, "calibrate", "m.onnx", "--data", f"{part}.npz", "-o", f"{part}.calib").returncode == 0
        )
    done = quantcli(folder, "calibrate", "--merge", "d.calib", "e.calib", "-o", "all.calib", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 48
    twice = quantcli(folder, "calibrate", "--merge", "d.calib", "d.calib", "-o", "twice.calib")
    assert twice.returncode == 3
    assert twice.stderr.startswith("error[K206]")


def test_off_a_terminal_nothing_is_drawn_and_streams_are_apart(folder):
    done = quantcli(folder, "compare", "m.onnx", "m.onnx", "--data", "e.npz", "-v")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    assert "m.onnx → m.onnx" in done.stdout


def test_a_failed_gate_is_exit_code_1_after_the_reports_were_written(folder):
    arguments = ("compare", "m.onnx", "m.onnx", "--gate", "size_ratio<=0.5", "--report", "r.json")
    done = quantcli(folder, *arguments)
    assert done.returncode == 1, done.stderr
    assert (folder / "r.json").exists()
    assert quantcli(folder, *arguments, "-f", "--exit-zero").returncode == 0


def test_files_that_exist_are_kept(folder):
    (folder / "m.calib").write_text("mine")
    done = quantcli(folder, "calibrate", "m.onnx", "--data", "d.npz")
    assert done.returncode == 4
    assert done.stderr.splitlines()[0].startswith("error[O101]")
    assert (folder / "m.calib").read_text() == "mine"


def test_an_input_is_never_an_output(folder):
    before = (folder / "m.onnx").read_bytes()
    done = quantcli(folder, "convert", "m.onnx", "--data", "d.npz", "-o", "m.onnx", "-f")
    assert done.returncode in (2, 4)
    assert (folder / "m.onnx").read_bytes() == before


def test_a_missing_model_is_an_input_error(folder):
    done = quantcli(folder, "convert", "nope.onnx", "--data", "d.npz")
    assert done.returncode == 3
    assert done.stderr.startswith("error[M101]")
    assert "Traceback" not in done.stderr


def test_samples_that_do_not_fit_are_told_before_anything_runs(folder):
    np.savez(folder / "bad.npz", x=np.zeros((4, 7), np.float32))
    done = quantcli(folder, "calibrate", "m.onnx", "--data", "bad.npz")
    assert done.returncode == 3
    assert done.stderr.startswith("error[D1")
    assert names(folder) == ["bad.npz", "d.npz", "e.npz", "m.onnx"]


@posix
def test_an_unwritable_folder_is_an_output_error(folder):
    if os.geteuid() == 0:
        output = "/proc/m.calib"
    else:
        (folder / "locked").mkdir(mode=0o500)
        output = "locked/m.calib"
    done = quantcli(folder, "calibrate", "m.onnx", "--data", "d.npz", "-o", output)
    assert done.returncode == 4, done.stderr
    assert done.stderr.splitlines()[-3].startswith("error[O103]")


@posix
def test_a_disk_without_room_is_an_output_error_and_leaves_nothing(folder):
    before = names(folder)
    done = shell(folder, "ulimit -f 1; export PYTHONDONTWRITEBYTECODE=1; quantcli calibrate m.onnx --data d.npz")
    assert done.returncode == 4, done.stderr
    assert "error[O103]" in done.stderr
    assert names(folder) == before


@posix
def test_a_full_standard_output_is_an_output_error(folder):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    done = shell(folder, "quantcli explain F203 > /dev/full")
    assert done.returncode == 4
    assert done.stderr.startswith("error[O103]: cannot write")
    assert "Exception ignored" not in done.stderr


@posix
def test_a_reader_that_goes_away_is_no_error_to_talk_about(folder):
    done = shell(folder, "{ quantcli explain -v; echo $? >&2; } | head -n 1")
    assert done.stdout.splitlines() == ["Targets"]
    assert done.stderr.strip() in ("141", "0")
    reader_gone = shell(folder, "{ sleep 1; quantcli explain -v; echo $? >&2; } | true")
    assert reader_gone.stderr.strip() == "141"


@posix
def test_closed_streams_do_not_end_in_the_files_that_are_written(folder):
    done = shell(folder, "quantcli calibrate m.onnx --data d.npz <&- >&- 2>&-")
    assert done.returncode == 0
    assert quantcli(folder, "inspect", "m.calib").returncode == 0


def test_no_color_is_honoured_on_a_terminal(folder):
    pty = pytest.importorskip("pty")
    plain, painted = (
        _on_terminal(pty, folder, {"NO_COLOR": value, "TERM": "xterm-256color"}) for value in ("1", "")
    )
    assert b"error[U100]:" in plain
    assert b"\x1b[" not in plain
    assert b"\x1b[31m" in painted


def _on_terminal(pty, folder: Path, env: dict[str, str]) -> bytes:
    """What the process writes to a terminal as its standard error."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "quantcli", "nope"],
        cwd=folder,
        env=environment(**env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        written = b""
        try:
            while chunk := os.read(ours, 4096):
                written += chunk
        except OSError:  # Linux says EIO when the other side is closed
            written += b""
        process.wait(timeout=60)
    os.close(ours)
    assert process.returncode == 2
    return written


SLOW_SAMPLES = """
import pathlib, time
import numpy as np

def samples():
    for index in range(1000):
        if index == 2:
            pathlib.Path("running").write_text("")
        if index >= 2:
            time.sleep(0.2)
        yield {"x": np.full((1, 8), index, np.float32)}
"""


@posix
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_calibration_leaves_nothing_behind(folder, number, exit_code):
    (folder / "feed.py").write_text(SLOW_SAMPLES)
    before = names(folder)
    with subprocess.Popen(
        [sys.executable, "-m", "quantcli", "calibrate", "m.onnx", "--data", "feed.py:samples"],
        cwd=folder,
        env=environment(PYTHONDONTWRITEBYTECODE="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not (folder / "running").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code, errors
    assert output == ""
    assert "Traceback" not in errors
    assert "error[" not in errors
    (folder / "running").unlink()
    assert names(folder) == before


def test_the_installed_command_is_this_one():
    done = subprocess.run(
        [sys.executable, "-m", "quantcli", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.startswith("quantcli ")

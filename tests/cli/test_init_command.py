"""``quantcli init``: what it writes is a configuration that run takes, and it says what the flags said."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_fakes import invoke

from quantcli.cli.jobs import make_jobs
from quantcli.cli.sections import read_config, sections
from quantcli.cli.settings import Settings
from quantcli.config.models import expand_models
from quantcli.pipeline.run_types import Job

FLAGS = (
    "m.onnx", "--data", "x=c.npy?rows=feed", "--data", "y=d.npy", "--eval-data", "e.npz", "--labels", "l.npy",
    "--labels-output", "y", "--gate", "sqnr>=25", "--gate", "y.cosine>=0.99:warn", "--report", "out/{name}.md",
    "--samples", "50", "--seed", "3", "--shape", "x=1x3x8x8", "--layout", "nhwc", "--target", "generic",
    "--method", "mse", "--weight-bits", "4", "--symmetric", "--exclude", "op:Softmax", "--exclude", "a b",
    "--threads", "2", "--max-memory", "500M", "--latency", "--repeats", "9",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def job_of(path: str) -> Job:
    config = read_config(Path(path))
    (planned,) = make_jobs(config, expand_models(config, sections()), Settings())
    return planned.job


def test_run_does_what_the_flags_said():
    result = invoke("init", *FLAGS)
    assert result.exit_code == 0, result.output
    assert "next      quantcli run" in result.stdout
    job = job_of("quantcli.toml")
    calibrate, convert, compare = job.calibrate, job.convert, job.compare
    assert calibrate.data == convert.data
    assert (calibrate.data.specs, calibrate.data.samples) == (("x=c.npy?rows=feed", "y=d.npy"), 50)
    assert (compare.data.specs, compare.data.samples, compare.data.seed) == (("e.npz",), None, 3)
    assert compare.data.shapes == {"x": (1, 3, 8, 8)}
    assert compare.data.image == {"layout": "nhwc"}
    assert (calibrate.target, convert.recipe.target, convert.recipe.method) == ("generic", "generic", "mse")
    assert (convert.recipe.weight_dtype.bits, convert.recipe.symmetric) == (4, True)
    assert convert.recipe.exclude == ("op:Softmax", "a b")
    assert (calibrate.run.threads, convert.run.threads, compare.run.threads) == (2, 2, 2)
    assert convert.max_memory == 500 * 2**20
    assert (compare.latency, compare.repeats) == (True, 9)
    assert compare.gates == ("sqnr>=25", "y.cosine>=0.99:warn")
    assert (compare.labels, compare.labels_output) == (Path("l.npy"), "y")
    assert compare.reports == (Path("out/m.md"),)


def test_only_what_was_said_is_written():
    invoke("init", "m.onnx", "--data", "c.npz")
    lines = [line for line in Path("quantcli.toml").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["[[models]]", 'path = "m.onnx"', 'data = "c.npz"']


def test_every_model_gets_its_entry():
    invoke("init", "a.onnx", "b.onnx", "--data", "c.npz")
    config = read_config(Path("quantcli.toml"))
    assert [model.name for model in expand_models(config, sections())] == ["a", "b"]


def test_names_are_written_as_they_are_from_the_folder_of_the_configuration():
    Path("release").mkdir()
    invoke(
        "init", "m.onnx", "--data", "x=data/c.npy?rows=feed", "--eval-data", "feed.py:samples", "--eval-data",
        "random:3", "--labels", "/data/l.npy", "-o", "release/q.toml",
    )  # fmt: skip
    keys = read_config(Path("release/q.toml")).models[0].keys
    assert {key: setting.value for key, setting in keys.items()} == {
        "path": "../m.onnx",
        "data": ("x=../data/c.npy?rows=feed",),
        "eval-data": ("../feed.py:samples", "random:3"),
        "labels": "/data/l.npy",
    }


def test_a_configuration_that_is_there_is_kept():
    Path("quantcli.toml").write_text("# mine\n")
    result = invoke("init", "m.onnx", "--data", "c.npz")
    assert (result.exit_code, "[O101]" in result.stderr) == (4, True)
    assert Path("quantcli.toml").read_text() == "# mine\n"
    assert invoke("init", "m.onnx", "--data", "c.npz", "-f").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), "U100"),
        (("m.onnx",), "U101"),
        (("m.onnx", "--data", "c.npz", "--gate", "sqmr>=1"), "G101"),
        (("m.onnx", "--data", "c.npz", "--report", "r.docx"), "U103"),
    ],
)
def test_what_run_would_refuse_is_refused(arguments, code):
    result = invoke("init", *arguments)
    assert result.exit_code == 2
    assert f"[{code}]" in result.stderr
    assert not Path("quantcli.toml").exists()

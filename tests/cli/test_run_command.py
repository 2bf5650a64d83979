"""``quantcli run`` on small models: what is made, what is used again, and what the exit code says."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from cli_fakes import invoke
from click.testing import Result
from onnx import numpy_helper

from quantcli.cli.jobs import make_jobs
from quantcli.cli.sections import read_config, sections
from quantcli.cli.settings import Settings
from quantcli.config.models import expand_models

CONFIG = """\
data = "calib.npz"
eval-data = "eval.npz"
reports = ["reports/{name}.json", "reports/{name}.md"]

[convert]
effort = "fast"

[gates]
sqnr = ">=10"

[[models]]
path = "nets/*.onnx"

[[models]]
path = "nets/b.onnx"
[models.gates]
sqnr = ">=90"
"""


def write_model(path: Path, seed: int) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,3,8,8] x) => (float[N,4] y) {
            a = Conv <pads = [1,1,1,1]> (x, w0) r = Relu (a) p = GlobalAveragePool (r) f = Flatten (p)
            y = Gemm (f, w1)
        }"""
    )
    rng = np.random.default_rng(seed)
    for name, shape in (("w0", (4, 3, 3, 3)), ("w1", (4, 4))):
        array = rng.normal(0, 0.5, shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(proto, path)


def fill(folder: Path) -> Path:
    """Two models, samples and a configuration; one of the models cannot pass its gate."""
    (folder / "nets").mkdir()
    for seed, name in enumerate(("a", "b")):
        write_model(folder / "nets" / f"{name}.onnx", seed)
    samples = np.random.default_rng(5).normal(0, 1, (24, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "calib.npz", x=samples[:16])
    np.savez(folder / "eval.npz", x=samples[16:])
    (folder / "quantcli.toml").write_text(CONFIG)
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a configuration, before any run; the process works in it."""
    monkeypatch.chdir(tmp_path)
    return fill(tmp_path)


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The same after a run, and what that said."""
    folder = fill(tmp_path_factory.mktemp("run"))
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTCLI_CONVERT_PLACEMENT", "static")
        return folder, invoke("run")


@pytest.fixture
def ran(run_once, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder; the process works in it."""
    shutil.copytree(run_once[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "quantcli.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def steps(*arguments: str) -> dict[str, list[tuple[bool, str]]]:
    """(made, why) of calibrate, convert and compare by model."""
    found = json.loads(invoke("run", "--json", *arguments).stdout)
    return {m["name"]: [(step["made"], step["why"]) for step in m["steps"]] for m in found["models"]}


def made(*arguments: str) -> dict[str, str]:
    """Names of the steps that were done, by model."""
    names = ("calibrate", "convert", "compare")
    return {
        model: " ".join(name for name, (done, _) in zip(names, found, strict=True) if done)
        for model, found in steps(*arguments).items()
    }


ALL = "calibrate convert compare"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_one_failed_gate_gives_one_and_every_model_its_line_and_reports(run_once):
    folder, result = run_once
    assert result.exit_code == 1
    first, second, summary = result.stdout.splitlines()
    assert first.startswith("pass      a  SQNR ")
    assert second.startswith("FAIL      b  sqnr of 'y' is ")
    assert "has to be >= 90 dB" in second
    assert summary == "2 models: 1 pass, 1 FAIL; 6 steps done, 0 used again"
    reports = sorted(path.name for path in (folder / "reports").iterdir())
    assert reports == ["a.json", "a.md", "b.json", "b.md"]


def test_exit_zero_only_reports(ran):
    assert invoke("run", "--exit-zero").exit_code == 0


def test_a_second_run_makes_nothing_and_says_so(folder):
    assert made() == {"a": ALL, "b": ALL}
    before = snapshot(folder)
    result = invoke("run")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "2 models: 1 pass, 1 FAIL; up to date, nothing was made again"
    assert result.stderr == ""
    assert snapshot(folder) == before


def test_artefacts_are_the_same_when_they_are_made_again(ran):
    before = snapshot(ran)
    assert made("-f") == {"a": ALL, "b": ALL}
    assert snapshot(ran) == before


def test_no_place_of_this_machine_is_in_what_is_written(folder):
    invoke("run", "--config", str(folder / "quantcli.toml"))
    for name, content in snapshot(folder).items():
        assert str(folder).encode() not in content, name


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('sqnr = ">=10"', 'sqnr = ">=11"', "compare"),
        ('effort = "fast"', 'effort = "fast"\nmethod = "minmax"', "convert compare"),
        ('effort = "fast"', 'effort = "fast"\nthreads = 2', ""),
        ("[gates]", "[calibrate]\nsamples = 8\n[gates]", ALL),
        ('"reports/{name}.md"', '"reports/{name}-2.md"', "compare"),
    ],
)
def test_what_depends_on_a_change_is_made_again_and_nothing_else(ran, old, new, expected):
    change(ran, old, new)
    assert made()["a"] == expected
    assert made()["a"] == ""


def test_the_reason_is_told_before_anything_is_done(ran):
    change(ran, 'effort = "fast"', 'effort = "fast"\nmethod = "minmax"')
    before = snapshot(ran)
    assert steps("--dry-run")["a"] == [
        (False, ""),
        (True, "method changed from capped to minmax"),
        (True, "the model is made again"),
    ]
    told = invoke("run", "--dry-run", "--only", "a")
    assert told.exit_code == 0
    assert "  calibration: use again\n  model: make: method changed from capped to minmax\n" in told.stdout
    assert snapshot(ran) == before


def test_other_samples_make_everything_again(ran):
    np.savez(ran / "calib.npz", x=np.ones((16, 3, 8, 8), np.float32))
    assert steps("--dry-run")["a"][0] == (True, "data calib.npz changed")


@pytest.mark.parametrize(("name", "step"), [("nets/a.calib", 0), ("nets/a.int8.onnx", 1), ("reports/a.md", 2)])
def test_what_was_removed_or_changed_is_made_again(ran, name, step):
    before = snapshot(ran)
    (ran / name).unlink()
    assert steps("--dry-run")["a"][step] == (True, f"'{name}' is missing")
    (ran / name).write_bytes(b"other")
    assert steps()["a"][step] == (True, f"'{name}' was changed")
    assert snapshot(ran) == before


def test_samples_of_a_function_are_known_by_what_it_gives(folder):
    head = "import numpy as np\n\ndef feed():\n    for i in range(8):\n"
    code = head + "        yield {'x': np.full((1, 3, 8, 8), i, 'f')}\n"
    (folder / "feed.py").write_text(code)
    change(folder, '"calib.npz"', '"feed.py:feed"')
    invoke("run", "--only", "a")
    (folder / "feed.py").write_text(code + "# a remark\n")
    assert made("--only", "a")["a"] == ""
    (folder / "feed.py").write_text(code.replace("range(8)", "range(9)"))
    assert steps("--dry-run", "--only", "a")["a"][0] == (True, "data feed.py:feed changed")


def test_files_that_no_run_has_written_are_kept(folder):
    (folder / "nets/a.calib").write_bytes(b"mine")
    result = invoke("run")
    assert result.exit_code == 4
    assert "ERROR     a  [O101] 'nets/a.calib' exists, and 'quantcli.lock' does not know it" in result.stdout
    assert (folder / "nets/a.calib").read_bytes() == b"mine"
    assert made("-f")["a"] == ALL


def test_an_error_of_one_model_stops_no_other_and_outranks_a_failed_gate(folder):
    (folder / "nets/a.onnx").write_bytes(b"no model")
    result = invoke("run")
    assert result.exit_code == 3
    assert "error[M101]" in result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()[:2]] == ["ERROR", "FAIL"]


def test_the_check_passes_on_what_a_run_has_made_and_writes_nothing(ran):
    before = snapshot(ran)
    result = invoke("run", "--check", "--only", "a")
    assert result.exit_code == 0, result.output
    assert "everything was made again and compared, nothing was written" in result.stdout
    assert snapshot(ran) == before


@pytest.mark.parametrize("name", ["nets/a.calib", "nets/a.int8.onnx", "nets/a.int8.plan.json", "reports/a.json"])
def test_the_check_names_what_does_not_reproduce(ran, name):
    other = (ran / name.replace("a.", "b.")).read_bytes()
    (ran / name).write_bytes(other.replace(b'"quantize"', b'"float"', 1))
    result = invoke("run", "--check", "--only", "a")
    assert result.exit_code == 1
    assert f"FAIL      a  reproduces: '{name}' does not: " in result.stdout
    (ran / name).unlink()
    assert f"'{name}' does not: it is missing" in invoke("run", "--check", "--only", "a").stdout


def test_a_measured_plan_is_followed_by_the_check(folder, monkeypatch):
    monkeypatch.delenv("QUANTCLI_CONVERT_PLACEMENT")
    change(folder, 'effort = "fast"', 'effort = "fast"\nplacement = "measured"')
    invoke("run", "--only", "a")
    assert invoke("run", "--check", "--only", "a").exit_code == 0


def test_placement_is_static_unless_the_configuration_says_otherwise(folder, monkeypatch):
    monkeypatch.delenv("QUANTCLI_CONVERT_PLACEMENT")
    result = invoke("run", "-v", "--dry-run", "--only", "a")
    assert "convert: placement    static  (default of run)" in result.stderr


def test_verbose_says_where_values_are_from(folder):
    environment = {"QUANTCLI_CONVERT_METHOD": "mse", "QUANTCLI_CONVERT_OUTPUT": "elsewhere.onnx"}
    told = invoke("run", "-v", "--dry-run", "--only", "a", env=environment).stderr
    assert "option: a: convert: effort       fast  (quantcli.toml:6)" in told
    assert "option: a: convert: method       mse  (variable QUANTCLI_CONVERT_METHOD)" in told
    assert "option: a: calibrate: data    calib.npz  (quantcli.toml:1)" in told
    assert "option: a: compare: gate       sqnr>=10  (quantcli.toml:9)" in told
    assert "elsewhere.onnx" not in told


def test_names_count_from_the_folder_of_the_configuration(folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert invoke("run", "--config", str(folder / "quantcli.toml"), "--only", "a").exit_code == 0
    assert (folder / "nets/a.int8.onnx").exists()
    assert (folder / "quantcli.lock").exists()
    assert list(Path.cwd().iterdir()) == []


def test_recipes_are_read(folder):
    (folder / "r.toml").write_text('method = "mse"\nexclude = ["op:Gemm"]\n')
    change(folder, 'effort = "fast"', 'effort = "fast"\nrecipe = "r.toml"\nmethod = "minmax"')
    told = invoke("run", "-v", "--dry-run", "--only", "a").stderr
    assert "convert: exclude      op:Gemm  (r.toml)" in told
    assert "convert: method       minmax  (quantcli.toml:8)" in told


@pytest.mark.parametrize(
    ("text", "samples"),
    [
        ("[sampling]\nsamples = 9\n", (9, 9, 9)),
        ("[sampling]\nsamples = 9\n[calibrate]\nsamples = 8\n", (8, 8, 9)),
        ("[calibrate]\nsamples = 8\n[compare]\nsamples = 7\n", (8, 8, 7)),
        ("[calibrate]\nsamples = 8\n[models.convert]\nsamples = 6\n", (8, 6, None)),
    ],
)
def test_rounding_is_against_the_samples_of_calibration_unless_said_otherwise(folder, text, samples):
    top, mark, rest = text.partition("[models")
    entry = '[[models]]\npath = "nets/a.onnx"\ndata = "calib.npz"\n'
    (folder / "quantcli.toml").write_text(top + entry + mark + rest)
    config = read_config(Path("quantcli.toml"))
    (planned,) = make_jobs(config, expand_models(config, sections()), Settings())
    job = planned.job
    assert job.calibrate is not None
    assert (job.calibrate.data.samples, job.convert.data.samples) == samples[:2]
    assert job.compare.data.samples == samples[2]


@pytest.mark.parametrize(
    ("old", "new", "code", "told"),
    [
        ('data = "calib.npz"\neval', "eval", "C204", "has no samples to calibrate on"),
        ("sqnr", "sqmr", "G101", "quantcli.toml:9: the gate 'sqmr>=10' asks for 'sqmr'"),
        ('effort = "fast"', 'method = "best"', "K102", "model 'a': "),
        ('sqnr = ">=10"', 'accuracy = ">=0.5"', "G104", "quantcli.toml:9: the gate 'accuracy>=0.5' needs"),
        ('eval-data = "eval.npz"\n', "compare = { latency = true }\n", "G104", "timing needs samples"),
        ('effort = "fast"', "bits = 3", "U102", "--bits 3 is not available"),
        ('effort = "fast"', "threads = 0", "C203", "quantcli.toml:6: 'threads'"),
        ('effort = "fast"', 'efort = "fast"', "C202", "did you mean 'effort'"),
    ],
)
def test_a_wrong_configuration_is_told_before_any_work(folder, old, new, code, told):
    change(folder, old, new)
    before = snapshot(folder)
    result = invoke("run")
    assert result.exit_code == 2
    assert f"[{code}]" in result.stderr
    assert told in result.stderr
    assert snapshot(folder) == before


def test_what_is_asked_for_has_to_be_there(folder):
    assert "[C207]" in invoke("run", "--only", "c").stderr
    assert "[U105]" in invoke("run", "--check", "--force").stderr
    (folder / "quantcli.lock").write_text("{}")
    assert "[C208]" in invoke("run").stderr
    (folder / "quantcli.toml").unlink()
    result = invoke("run")
    assert (result.exit_code, "quantcli init" in result.stderr) == (2, True)


def test_models_that_are_gone_are_forgotten(ran):
    (ran / "nets/b.onnx").unlink()
    change(ran, '[[models]]\npath = "nets/b.onnx"\n[models.gates]\nsqnr = ">=90"\n', "")
    invoke("run")
    assert list(json.loads((ran / "quantcli.lock").read_text())["models"]) == ["a"]


def test_an_interrupted_run_goes_on_where_it_was(folder, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("quantcli.pipeline.run.compare", interrupted)
        assert invoke("run", "--only", "a").exit_code == 130
    assert made("--only", "a")["a"] == "compare"


def test_a_pyproject_is_a_configuration_as_well(folder):
    text = (folder / "quantcli.toml").read_text()
    text = text.replace("[[models]]", "[[tool.quantcli.models]]").replace("[models.", "[tool.quantcli.models.")
    for section in ("convert", "gates"):
        text = text.replace(f"[{section}]", f"[tool.quantcli.{section}]")
    (folder / "pyproject.toml").write_text(f'[project]\nname = "p"\n[tool.quantcli]\n{text}')
    (folder / "quantcli.toml").unlink()
    result = invoke("run", "-v")
    assert result.exit_code == 1
    assert "compare: gate       sqnr>=90  (pyproject.toml:20)" in result.stderr
    assert (folder / "quantcli.lock").exists()


def test_a_model_under_another_name_is_made_over_its_own_files(ran):
    change(ran, 'path = "nets/b.onnx"', 'path = "nets/b.onnx"\nname = "c"')
    assert steps("--only", "c")["c"][0] == (True, "there is no record of it")
    assert list(json.loads((ran / "quantcli.lock").read_text())["models"]) == ["a", "c"]


def test_warnings_and_what_the_comparison_remarks_are_told(folder):
    change(folder, 'sqnr = ">=10"', 'sqnr = { limit = ">=80", severity = "warn" }')
    change(folder, '"eval.npz"', '"calib.npz"')
    result = invoke("run", "--only", "a")
    assert result.exit_code == 0
    assert "; warning: sqnr of 'y' is " in result.stdout
    assert "note: a: these are the samples that the model was calibrated on" in result.stderr


def test_made_up_samples_are_marked(folder):
    change(folder, '"eval.npz"', '"random:4"')
    assert "a  data SYNTHETIC, SQNR" in invoke("run", "--only", "a").stdout


def test_a_target_is_a_gate_and_its_plan_is_followed_by_the_check(folder):
    change(folder, 'effort = "fast"', 'effort = "fast"\ntarget-sqnr = 45')
    change(folder, '[gates]\nsqnr = ">=10"\n', "")
    result = invoke("run", "--only", "a")
    told = json.loads((folder / "reports/a.json").read_text())
    assert [gate["expression"] for gate in told["gates"] if gate["origin"] == "asked"] == ["sqnr>=45.0"]
    assert "tensors are left in float for the target" in result.stderr
    assert result.exit_code == (0 if told["gates"][0]["status"] == "pass" else 1)
    assert "reproduces" not in invoke("run", "--check", "--only", "a").stdout
    change(folder, "target-sqnr = 45", "target-sqnr = 46")
    assert steps("--dry-run", "--only", "a")["a"][1:] == [
        (True, "target-sqnr changed from 45.0 to 46.0"),
        (True, "gate changed from sqnr>=45.0 to sqnr>=46.0"),
    ]


def test_statistics_that_are_there_are_used_without_samples(folder):
    invoke("calibrate", "nets/a.onnx", "--data", "calib.npz", "-o", "mine.calib")
    change(folder, 'data = "calib.npz"\neval', 'calibration = "mine.calib"\neval')
    change(folder, '\n[[models]]\npath = "nets/b.onnx"\n[models.gates]\nsqnr = ">=90"\n', "")
    change(folder, "nets/*.onnx", "nets/a.onnx")
    before = (folder / "mine.calib").read_bytes()
    found = steps()["a"]
    assert [done for done, _ in found] == [True, True]
    assert (folder / "mine.calib").read_bytes() == before
    assert invoke("run", "--check").exit_code == 0
    assert [done for done, _ in steps()["a"]] == [False, False]


def test_json_says_what_became_of_every_model(folder):
    (folder / "nets/a.onnx").write_bytes(b"no model")
    found = json.loads(invoke("run", "--json").stdout)
    assert found["exit_code"] == 3
    first, second = found["models"]
    assert (first["status"], first["error"]["code"]) == ("error", "M101")
    assert (second["status"], second["verdict"]["status"]) == ("fail", "fail")
    assert second["verdict"]["figures"]["size"].endswith("%")

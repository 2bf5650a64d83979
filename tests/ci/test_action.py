"""The GitHub action: its scripts are run as a runner would run them, with quantcli of this tree and no network."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from runner import Runner
from toy_models import FLOAT, half_steps, qdq_text, save

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / "action.yml"

EVIL = "a'b\"c$(touch pwned)`touch pwned`;touch pwned;&& touch pwned|| ${{ x }} \\ * ~ $HOME"


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def place(tmp_path):
    """A workspace and a folder of programs: ``quantcli`` of this tree, and the Python that runs the tests."""
    workspace, programs = tmp_path / "workspace", tmp_path / "programs"
    workspace.mkdir()
    programs.mkdir()
    python = shlex.quote(sys.executable)
    executable(programs / "python3", f'#!/bin/sh\nexec {python} "$@"\n')
    executable(
        programs / "quantcli",
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {python} -m quantcli "$@"\n',
    )
    save(FLOAT, workspace / "net.onnx")
    save(qdq_text(), workspace / "net.int8.onnx")
    np.savez(workspace / "eval.npz", x=half_steps(20))
    return workspace, programs


def act(place, **inputs):
    return Runner(ACTION, *place).run(**inputs)


def compare(place, **inputs):
    return act(place, install="false", original="net.onnx", quantized="net.int8.onnx", data="eval.npz", **inputs)


def recorder(programs: Path, name: str) -> Path:
    """Put a program into ``programs`` that keeps its arguments and folder."""
    script = "import json, os, sys; json.dump([os.getcwd(), *sys.argv[2:]], open(sys.argv[1], 'w'))"
    (programs / f"{name}.py").write_text(script)
    target = programs / f"{name}.json"
    executable(
        programs / name,
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {programs / name}.py {target} "$@"\n',
    )
    return target


def test_passing_gates_leave_reports_a_summary_and_exit_code_zero(place):
    found = compare(place, gates="sqnr>=20\nsize_ratio<=9", summary="true", upload_artifact="quantized")
    assert found.exit_code == 0, found.log
    assert found.outputs == {"exit-code": "0", "verdict": "pass", "report": "quantcli-reports"}
    assert "4 of 4 gates passed" in found.summary
    report = json.loads((place[0] / "quantcli-reports/report.json").read_text())
    assert [gate["origin"] for gate in report["gates"]] == ["asked", "asked", "default", "default"]
    (upload,) = (value for name, value in found.used.items() if "upload-artifact" in name)
    assert (place[0] / upload["path"]).samefile(place[0] / "quantcli-reports")
    assert upload["name"] == "quantized"


def test_a_failed_gate_is_exit_code_one_after_summary_and_upload(place):
    found = compare(place, gates="size_ratio<=1%", summary="true", upload_artifact="quantized")
    assert found.exit_code == 1
    assert found.outputs["exit-code"] == "1"
    assert found.outputs["verdict"] == "fail"
    assert "FAIL" in found.summary
    assert any("upload-artifact" in name for name in found.used)
    assert found.steps["End with the exit code of quantcli"] == "failure"


def test_a_usage_error_keeps_its_exit_code_and_says_that_there_is_no_report(place):
    found = compare(place, gates="sqrn>=20", summary="true")
    assert found.exit_code == 2
    assert "did you mean 'sqnr'" in found.log
    assert found.outputs["verdict"] == ""
    assert "no Markdown report" in found.summary


def test_an_older_report_is_no_verdict_of_a_run_that_failed(place):
    assert compare(place, gates="sqnr>=20").outputs["verdict"] == "pass"
    assert compare(place, gates="sqrn>=20").outputs == {
        "exit-code": "2", "verdict": "", "report": "quantcli-reports",
    }  # fmt: skip


def test_an_unreadable_model_is_exit_code_three(place):
    (place[0] / "net.onnx").write_bytes(b"\x00no model")
    assert compare(place).exit_code == 3


def test_without_summary_and_artifact_neither_is_made(place):
    found = compare(place)
    assert (found.exit_code, found.summary, found.used) == (0, "", {})


def test_a_baseline_is_held_and_reports_go_where_they_should(place):
    assert compare(place, reports="first").exit_code == 0
    save(qdq_text(codes=(2, 2, -3, 5, 1, 3, -2, 6, 1, 2, 2, -3)), place[0] / "net.int8.onnx")
    found = compare(place, baseline="first/report.json", reports="deep/er")
    assert (found.exit_code, found.outputs["verdict"]) == (1, "fail")
    assert (place[0] / "deep/er/report.md").exists()


def test_nothing_in_an_input_is_executed(place):
    """Every value arrives as it was written, one argument each."""
    workspace, programs = place
    target = recorder(programs, "quantcli")
    evil = {
        name: f"{name} {EVIL}" for name in ("original", "quantized", "labels", "baseline", "reports", "undecided")
    }
    evil["quantized"] += "\ntouch pwned"
    lines = f"{EVIL}\n\n  second $(touch pwned)\r\n-x"
    found = act(place, install="false", data=lines, gates=lines, args=lines, forms="json $(touch pwned)", **evil)
    assert found.exit_code == 0, found.log
    _, *arguments = json.loads(target.read_text())
    three = [EVIL, "  second $(touch pwned)", "-x"]
    assert arguments == [
        "compare",
        *(part for value in three for part in ("--data", value)),
        *(part for value in three for part in ("--gate", value)),
        "--labels", evil["labels"], "--baseline", evil["baseline"], "--undecided", evil["undecided"],
        "--report", f"{evil['reports']}/report.json", "--force",
        "--report", f"{evil['reports']}/report.$(touch", "--report", f"{evil['reports']}/report.pwned)",
        *three,
        "--", evil["original"], evil["quantized"],
    ]  # fmt: skip
    assert not list(workspace.parent.rglob("pwned"))


def test_a_command_that_does_not_exist_is_a_usage_error_and_not_executed(place):
    found = act(place, install="false", command=f"compare;{EVIL}\nexit-code=0")
    assert found.exit_code == 2
    assert not list(place[0].parent.rglob("pwned"))


def test_a_configuration_is_run_where_it_lies(place):
    target = recorder(place[1], "quantcli")
    (place[0] / "sub folder").mkdir()
    found = act(
        place, install="false", command="run", config="my conf.toml", args="--check\n-v",
        working_directory="sub folder",
    )  # fmt: skip
    assert found.exit_code == 0, found.log
    folder, *arguments = json.loads(target.read_text())
    assert Path(folder).name == "sub folder"
    assert arguments == ["run", "--config", "my conf.toml", "--check", "-v"]


def test_run_needs_no_configuration_and_no_arguments(place):
    target = recorder(place[1], "quantcli")
    assert act(place, install="false", command="run").exit_code == 0
    assert json.loads(target.read_text())[1:] == ["run"]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 70, 130])
def test_every_exit_code_is_kept(place, code):
    executable(place[1] / "quantcli", f"#!/bin/sh\nexit {code}\n")
    found = act(place, install="false", command="run", summary="true", upload_artifact="x")
    assert (found.exit_code, found.outputs["exit-code"]) == (code, str(code))
    assert found.steps["Upload the reports"] == "success"


def test_the_worst_verdict_of_several_reports_counts_and_other_files_do_not(place):
    workspace, programs = place
    (workspace / "reports").mkdir()
    for name, content in {
        "a": '{"verdict": {"status": "pass"}}', "b": '{"verdict": {"status": "undecided"}}', "c": "[1]", "d": "x",
    }.items():  # fmt: skip
        (workspace / f"reports/{name}.json").write_text(content)
    executable(programs / "quantcli", "#!/bin/sh\nexit 0\n")
    assert act(place, install="false", command="run", reports="reports").outputs["verdict"] == "undecided"


def test_a_summary_stays_below_what_github_takes(place):
    workspace, programs = place
    (workspace / "reports").mkdir()
    for number in range(20):
        (workspace / f"reports/{number:02}.md").write_text("x" * 64_000)
    executable(programs / "quantcli", "#!/bin/sh\nexit 0\n")
    found = act(place, install="false", command="run", reports="reports", summary="true")
    assert len(found.summary) < 2**20
    assert "more reports than fit" in found.summary


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        ({}, str(ROOT)),
        ({"extras": "images,html"}, f"{ROOT}[images,html]"),
        ({"version": "1.2", "extras": "images"}, "quantcli[images]==1.2"),
        ({"version": "1; touch pwned", "extras": "$(touch pwned)"}, "quantcli[$(touch pwned)]==1; touch pwned"),
    ],
    ids=["checkout", "extras", "version", "evil"],
)
def test_quantcli_is_installed_from_the_checkout_or_the_index(place, inputs, wanted):
    workspace, programs = place
    target = recorder(programs, "python")
    executable(programs / "quantcli", "#!/bin/sh\nexit 0\n")
    found = act(place, command="run", **inputs)
    assert found.exit_code == 0, found.log
    assert json.loads(target.read_text())[1:] == ["-m", "pip", "install", "--disable-pip-version-check", wanted]
    assert found.used["actions/setup-python@a26af69be951a213d495a4c3e4e4022e16d87065"] == {
        "python-version": "3.12"
    }
    assert not list(workspace.parent.rglob("pwned"))


def test_an_installation_that_fails_fails_the_action(place):
    executable(place[1] / "python", "#!/bin/sh\nexit 1\n")
    found = act(place, command="run")
    assert found.exit_code == 1
    assert found.steps["Run quantcli"] == "skipped"


def steps():
    return yaml.safe_load(ACTION.read_text("utf-8"))["runs"]["steps"]


def test_no_script_holds_an_expression():
    scripts = [step["run"] for step in steps() if "run" in step]
    assert len(scripts) == 4
    assert not [script for script in scripts if "${{" in script]


def test_actions_of_others_are_pinned_to_a_commit():
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", name) for name in used)


def test_variables_of_the_action_are_no_options_of_quantcli():
    names = {name for step in steps() for name in step.get("env", {})}
    assert not [name for name in names if name.startswith(("QUANTCLI_", "GITHUB_", "RUNNER_"))]

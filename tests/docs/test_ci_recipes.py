"""The recipes of docs/ci.md work: their shell steps are run on a sample model, their inputs exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from quantcli.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/ci.md").read_text("utf-8")


def section(title: str) -> str:
    return re.search(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)[1]


def blocks(title: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path):
    """What the recipes expect: model.onnx, calib.npz, eval.npz, labels.npy; and programs to find on PATH."""
    samples = ROOT / "sample_models"
    shutil.copy(samples / "digits_cnn.onnx", tmp_path / "model.onnx")
    for source, name in (("calib.npz", "calib.npz"), ("eval.npz", "eval.npz"), ("eval_labels.npy", "labels.npy")):
        shutil.copy(samples / f"data/digits_{source}", tmp_path / name)
    programs = tmp_path / "programs"
    programs.mkdir()
    python = shlex.quote(sys.executable)
    quantcli = f'PYTHONPATH={shlex.quote(str(ROOT))} exec {python} -m quantcli "$@"'
    for name, text in (("quantcli", quantcli), ("pip", '[ "$*" = "install quantcli" ]')):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    return tmp_path


def run_script(script: str, folder: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if name.startswith("QUANTCLI_")},
        "PATH": f"{folder / 'programs'}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "HOME": str(folder),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"


def test_the_plain_github_steps_work(folder):
    for step in yaml.safe_load(blocks("GitHub Actions", "yaml")[-1]):
        run_script(step["run"], folder)
    assert "PASS" in (folder / "summary.md").read_text("utf-8")


def test_the_gitlab_job_works_and_leaves_what_it_collects(folder):
    job = yaml.safe_load(blocks("GitLab CI", "yaml")[0])["model gates"]
    for line in job["script"]:
        run_script(line, folder)
    for path in [*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]]:
        assert (folder / path).exists(), path


def test_the_jenkins_stage_works_and_leaves_what_it_collects(folder):
    text = blocks("Jenkins", "groovy")[0]
    scripts = re.findall(r"sh ('''|')(.*?)\1\n", text, re.DOTALL)
    assert len(scripts) == 3
    for _, script in scripts:
        run_script(script, folder)
    assert (folder / re.search(r"testResults: '(.*?)'", text)[1]).exists()


def action() -> dict:
    return yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))


def test_the_github_recipes_use_inputs_that_exist():
    steps = yaml.safe_load(blocks("GitHub Actions", "yaml")[0])["jobs"]["gates"]["steps"]
    steps += yaml.safe_load(blocks("GitHub Actions", "yaml")[1])
    used = [set(step["with"]) for step in steps if step["uses"].startswith("OWNER/quantcli")]
    assert len(used) == 2
    assert set.union(*used) <= set(action()["inputs"])


def test_every_input_and_output_of_the_action_is_documented_with_its_default():
    rows = dict(re.findall(r"^\| (`.*?) \|(.*?)\|", section("GitHub Actions"), re.MULTILINE))
    documented = {
        name: default.strip() for names, default in rows.items() for name in re.findall(r"`(.*?)`", names)
    }
    assert documented == {
        name: f"`{spec['default']}`" if spec["default"] else "" for name, spec in action()["inputs"].items()
    }
    for name in action()["outputs"]:
        assert f"`{name}`" in section("GitHub Actions")


def hooks() -> list[dict]:
    return yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))


def test_hooks_have_what_pre_commit_requires():
    for hook in hooks():
        assert {"id", "name", "entry", "language"} <= set(hook)
        assert hook["language"] == "python"
        assert hook["pass_filenames"] is False
        re.compile(hook["files"])


def test_the_hook_looks_at_what_decides_about_models():
    files = next(hook["files"] for hook in hooks() if hook["id"] == "quantcli-check")
    for path in ("quantcli.toml", "a/pyproject.toml", "models/net.int8.onnx", "calib.npz"):
        assert re.search(files, path)
    for path in ("README.md", "src/onnx.py", "myquantcli.toml"):
        assert not re.search(files, path)


def recipe_hooks() -> dict[str, list[str]]:
    repository = yaml.safe_load(blocks("pre-commit", "yaml")[0])["repos"][0]
    return {hook["id"]: hook.get("args", []) for hook in repository["hooks"]}


def test_the_recipe_names_the_hooks_that_there_are():
    assert set(recipe_hooks()) == {hook["id"] for hook in hooks()}


def test_the_hook_that_compares_works(folder):
    run_script("quantcli convert model.onnx --data calib.npz --effort fast -o model.int8.onnx", folder)
    entry = next(hook["entry"] for hook in hooks() if hook["id"] == "quantcli-compare")
    run_script(f"{entry} {shlex.join(recipe_hooks()['quantcli-compare'])}", folder)


def test_the_hook_that_checks_is_a_command_of_quantcli():
    command, *options = next(hook["entry"] for hook in hooks() if hook["id"] == "quantcli-check").split()[1:]
    text = CliRunner().invoke(cli, [command, "--help"]).output
    assert all(option in text for option in options)

"""``quantcli report``: a saved report in another form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_fakes import invoke, report
from full_analysis import analysis

from quantcli.report.to_json import analysis_to_json, to_json


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.json").write_text(to_json(report("fail")), encoding="utf-8")
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_saved_report_is_shown(folder):
    result = invoke("report", "r.json")
    assert result.stdout.startswith("FAIL  m.onnx → m.int8.onnx: a sentence\n")
    assert names(folder) == ["r.json"]


def test_a_failed_verdict_in_the_file_is_no_failure_of_the_command(folder):
    assert invoke("report", "r.json").exit_code == 0
    assert invoke("report", "r.json", "--to", "junit").exit_code == 0


@pytest.mark.parametrize(("form", "begin"), [("md", "# FAIL"), ("junit", "<?xml"), ("json", '{\n  "accuracy"')])
def test_one_text_form_is_printed(folder, form, begin):
    result = invoke("report", "r.json", "--to", form)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(begin)
    assert names(folder) == ["r.json"]


def test_several_forms_are_written_beside_the_file(folder):
    result = invoke("report", "r.json", "--to", "md,html,junit,terminal")
    assert result.exit_code == 0, result.output
    assert names(folder) == ["r.html", "r.json", "r.md", "r.xml"]
    assert "FAIL" in result.stdout
    assert "written   r.html" in result.stdout
    assert (folder / "r.html").read_text("utf-8").startswith("<!DOCTYPE html>")


def test_html_is_never_printed(folder):
    assert invoke("report", "r.json", "--to", "html", "-q").stdout == ""
    assert names(folder) == ["r.html", "r.json"]


@pytest.mark.parametrize(
    ("output", "written"),
    [
        ("out", ["out/r.md", "out/r.xml"]),
        ("out/x", ["out/x.md", "out/x.xml"]),
        ("out/v1.2", ["out/v1.2.md", "out/v1.2.xml"]),
        ("out/x.md", ["out/x.md", "out/x.xml"]),
    ],
)
def test_output_is_a_folder_or_a_prefix(folder, output, written):
    (folder / "out").mkdir()
    assert invoke("report", "r.json", "--to", "md,junit", "-o", output).exit_code == 0
    assert sorted(path.relative_to(folder).as_posix() for path in (folder / "out").iterdir()) == written


def test_the_ending_of_the_output_says_the_form(folder):
    assert invoke("report", "r.json", "-o", "x.md").exit_code == 0
    assert (folder / "x.md").read_text("utf-8").startswith("# FAIL")
    result = invoke("report", "r.json", "-o", "x.pdf")
    assert result.exit_code == 2
    assert "error[U103]" in result.stderr


def test_json_written_again_is_the_same(folder):
    assert invoke("report", "r.json", "-o", "again.json").exit_code == 0
    assert (folder / "again.json").read_bytes() == (folder / "r.json").read_bytes()


def test_files_that_exist_are_kept_without_force(folder):
    (folder / "r.md").write_text("mine")
    refused = invoke("report", "r.json", "-o", "r.md")
    assert (refused.exit_code, (folder / "r.md").read_text()) == (4, "mine")
    assert "error[O101]" in refused.stderr
    assert invoke("report", "r.json", "-o", "r.md", "-f").exit_code == 0


def test_the_saved_report_is_never_overwritten(folder):
    result = invoke("report", "r.json", "--to", "json,md", "-f")
    assert result.exit_code == 4
    assert "error[O102]" in result.stderr
    assert names(folder) == ["r.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (("nothing.json",), "D103", 3),
        (("other.json",), "G301", 3),
        (("r.json", "--to", "pdf"), "U100", 2),
        (("r.json", "--to", "terminal", "-o", "x"), "U105", 2),
    ],
)
def test_what_cannot_be_is_refused_with_a_code(folder, arguments, code, exit_code):
    (folder / "other.json").write_text(json.dumps({"schema_version": 99}))
    result = invoke("report", *arguments)
    assert result.exit_code == exit_code
    assert f"error[{code}]" in result.stderr
    assert result.stdout == ""


@pytest.fixture
def analyzed(folder: Path) -> Path:
    (folder / "a.json").write_text(analysis_to_json(analysis(layers=4)), encoding="utf-8")
    return folder


def test_a_saved_analysis_is_shown(analyzed):
    result = invoke("report", "a.json")
    assert result.exit_code == 0, result.output
    assert "net.onnx" in result.stdout
    assert "/features/conv0" in result.stdout


def test_a_saved_analysis_is_rendered_in_all_forms_but_junit(analyzed):
    assert invoke("report", "a.json", "--to", "md,html,json", "-o", "again").exit_code == 0
    assert (analyzed / "again.json").read_bytes() == (analyzed / "a.json").read_bytes()
    assert "/features/conv0" in (analyzed / "again.md").read_text("utf-8")
    assert "<title>Analysis: net.onnx</title>" in (analyzed / "again.html").read_text("utf-8")
    result = invoke("report", "a.json", "--to", "junit")
    assert result.exit_code == 2
    assert "error[U103]: an analysis has no gates" in result.stderr

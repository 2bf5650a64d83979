"""The commands of README and guide work: each ``console`` block is run, in order, beside the sample models.

All blocks of a page run in one folder, because later ones use what earlier ones made.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from quantcli.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/guide.md", "docs/choosing.md", "docs/ci.md")
EXIT_CODE = re.compile(r"#\s*exit code (\d+)\s*$")


def blocks(page: str) -> list[str]:
    return re.findall(r"^```console\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[tuple[list[str], int]]:
    """(arguments, exit code) of the commands of a page."""
    found = []
    for block in blocks(page):
        for line in block.splitlines():
            assert line.startswith("$ quantcli "), f"{page}: only commands stand in console blocks: {line}"
            expected = EXIT_CODE.search(line)
            words = shlex.split(EXIT_CODE.sub("", line).removeprefix("$ quantcli "))
            found.append((words, int(expected[1]) if expected else 0))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_works(page, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "sample_models", tmp_path / "sample_models", ignore=shutil.ignore_patterns("training"))
    monkeypatch.chdir(tmp_path)
    for words, expected in commands(page):
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == expected, f"quantcli {shlex.join(words)}\n{result.output}"


@pytest.mark.parametrize("page", PAGES)
def test_the_page_has_commands(page):
    assert len(commands(page)) >= 5


def pages_with_links() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", pages_with_links(), ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


def test_every_code_in_the_guide_exists():
    from quantcli.cli.topics import topics

    text = (ROOT / "docs/guide.md").read_text("utf-8")
    assert set(re.findall(r"\b[A-Z]\d{3}\b", text)) <= set(topics())


def test_the_guide_knows_the_methods_and_their_default():
    from quantcli.calibration.estimators import ESTIMATORS
    from quantcli.quantize.recipe import Recipe

    text = (ROOT / "docs/guide.md").read_text("utf-8")
    assert f"- `{Recipe().method}`, the default" in text
    assert set(re.findall(r"--method ([\w-]+)", text)) <= set(ESTIMATORS)

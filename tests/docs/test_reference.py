"""The generated pages are what the program says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def generator():
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["commands.md", "reasons.md", "config.md"])
def test_the_page_has_not_drifted(page):
    fresh = generator().PAGES[page]()
    assert (DOCS / page).read_text("utf-8").split() == fresh.split(), "run: make docs"


def test_the_check_tells_what_is_out_of_date(tmp_path, monkeypatch, capsys):
    module = generator()
    monkeypatch.setattr(module, "DOCS", tmp_path)
    assert module.main(["--check"]) == 1
    assert "docs/commands.md is out of date" in capsys.readouterr().err
    assert module.main([]) == 0
    assert module.main(["--check"]) == 0

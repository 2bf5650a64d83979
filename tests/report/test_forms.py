import importlib.util
from pathlib import PurePath

import pytest
from full_report import EVIL, bare, full

from quantcli.errors import UsageError
from quantcli.report import forms
from quantcli.report.forms import FORMS, form_of, render
from quantcli.report.schema import Report


@pytest.mark.parametrize(
    ("name", "form"), [("a.json", "json"), ("b.MD", "md"), ("c.html", "html"), ("d.xml", "junit")]
)
def test_the_ending_says_the_form(name, form):
    assert form_of(PurePath(name)) == form


def test_other_endings_are_refused():
    with pytest.raises(UsageError, match=r"no report form for 'a\.pdf'") as caught:
        form_of(PurePath("a.pdf"))
    assert caught.value.code == "U103"


def test_html_without_its_packages_names_the_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(forms, "find_spec", lambda name: None if name == "vl_convert" else found(name))
    for call in (lambda: form_of(PurePath("a.html")), lambda: render(bare(), "html")):
        with pytest.raises(UsageError, match="needs vl_convert, which is not installed") as caught:
            call()
        assert caught.value.code == "U120"
        assert caught.value.hint == "install the extra: pip install 'quantcli[html]'"
    assert render(bare(), "md").startswith("# NO-GATES")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("report", [bare(), full(), full(EVIL, many=2)], ids=["bare", "full", "evil"])
def test_every_form_renders_every_report(form: str, report: Report):
    text = render(report, form)
    assert text.endswith("\n")
    text.encode("utf-8")

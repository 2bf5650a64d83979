"""Lines of keys: found by a second look at the text, checked against where the keys really stand."""

from __future__ import annotations

import pytest

from quantcli.config.document import parse_document
from quantcli.errors import ConfigError

TEXT = """\
top = 1
"a key".inner = 2

[table]
first = "x"
list = [
    "second = 3",
    "third",
]
inline = { a = 1 }

[[models]]
path = "a"
[models.convert]
bits = 8
[[models]]   # another
path = "b"
convert.method = "x"
"""


def line_with(text: str) -> int:
    return next(number for number, line in enumerate(TEXT.splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (("top",), "top ="),
        (("a key", "inner"), '"a key"'),
        (("table",), "[table]"),
        (("table", "first"), "first ="),
        (("table", "list"), "list ="),
        (("table", "inline", "a"), "inline"),
        (("models", 0, "path"), 'path = "a"'),
        (("models", 0, "convert", "bits"), "bits"),
        (("models", 1), "# another"),
        (("models", 1, "path"), 'path = "b"'),
        (("models", 1, "convert", "method"), "convert.method"),
        (("models", 1, "convert", "absent"), "convert.method"),
    ],
)
def test_a_key_has_the_line_on_which_it_stands(place, text):
    document = parse_document(TEXT, "c.toml", code="C201", what="configuration")
    assert document.line(*place) == line_with(text)


def test_what_is_not_there_has_the_first_line():
    assert parse_document(TEXT, "c.toml", code="C201", what="configuration").line("absent") == 1


def test_a_part_of_a_file_keeps_its_lines():
    text = "[project]\nname = 'x'\n[tool.quantcli.convert]\nbits = 8\n"
    part = parse_document(text, "p.toml", code="C201", what="configuration").below("tool", "quantcli")
    assert part is not None
    assert part.data == {"convert": {"bits": 8}}
    assert part.at("convert", "bits") == "p.toml, line 4"


def test_a_part_that_is_no_table_is_told():
    document = parse_document("[tool]\nquantcli = 3\n", "p.toml", code="C201", what="configuration")
    with pytest.raises(ConfigError, match=r"line 2: 'tool.quantcli' has to be a table"):
        document.below("tool", "quantcli")


def test_what_is_no_toml_is_told():
    with pytest.raises(ConfigError, match=r"configuration 'c.toml' is no TOML: .*line 1"):
        parse_document("a = \n", "c.toml", code="C201", what="configuration")

"""The layers hold: who may import whom, and what no file may contain. See docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantcli.errors import ERROR_CODES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "quantcli"
FILES = sorted(PACKAGE.rglob("*.py"))

FOUNDATION = {"errors", "progress", "staged", "_version"}

LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "progress": set(),
    "staged": {"errors"},
    "_version": set(),
    "core": {"errors"},
    "graph": {"core", *FOUNDATION},
    "ops": {"core", "graph", *FOUNDATION},
    "report": {"core", *FOUNDATION},
    "data": {"core", "graph", "ops", *FOUNDATION},
    "runtime": {"core", "graph", "ops", *FOUNDATION},
    "calibration": {"core", "graph", "ops", "data", *FOUNDATION},
    "quantize": {"core", "graph", "ops", *FOUNDATION},
    "algorithms": {"core", "graph", "ops", "quantize", *FOUNDATION},
    "evaluate": {"core", "graph", "ops", "data", "runtime", "report", *FOUNDATION},
    "config": {"core", "ops", *FOUNDATION},
    "pipeline": {
        "core", "graph", "ops", "data", "runtime", "calibration", "quantize", "algorithms", "evaluate", "report",
        "config", *FOUNDATION,
    },
    "cli": {
        "core", "graph", "ops", "data", "runtime", "calibration", "quantize", "algorithms", "evaluate", "report",
        "config", "pipeline", *FOUNDATION,
    },
    "__init__": {"_version", "pipeline", "errors", "progress"},
    "__main__": {"cli"},
}  # fmt: skip
"""Package → packages of quantcli that it may import, besides itself."""

ONLY_IN = {
    "onnx": {"graph"},
    "onnx_ir": {"graph"},
    "onnxruntime": {"runtime"},
    "threadpoolctl": {"algorithms"},
    "click": {"cli"},
    "rich": {"cli", "report/terminal.py", "report/analysis_terminal.py"},
    "jinja2": {"report/html/render.py"},
    "vl_convert": {"report/html/svg.py"},
}
"""Third-party package → the packages or files that may import it."""

LONGEST = 400


def part(path: Path) -> str:
    """The package of quantcli that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Modules that a file imports, wherever in it, with the line; those for type checking only as well."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            yield node.module, node.lineno
            if node.module == "quantcli":
                yield from ((f"quantcli.{name.name}", node.lineno) for name in node.names)


def identity(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_imports_go_one_way(path):
    own = part(path)
    assert own in LAYERS, f"say in LAYERS which layer {own} is"
    allowed = {own, *LAYERS[own]}
    wrong = [
        f"line {line}: {module}"
        for module, line in imports(path)
        if module.startswith("quantcli.")
        and module.split(".")[1] not in allowed
        and module != "quantcli.__version__"
    ]
    assert not wrong, f"{own} imports {wrong}"


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_third_party_packages_stay_in_their_layer(path):
    where = {part(path), identity(path)}
    wrong = [
        f"line {line}: {module}"
        for module, line in imports(path)
        if (homes := ONLY_IN.get(module.partition(".")[0])) is not None and not homes & where
    ]
    assert not wrong


def test_the_core_knows_numpy_and_the_standard_library_only():
    import sys

    outside = {
        module.partition(".")[0]
        for path in FILES
        if part(path) == "core"
        for module, _ in imports(path)
        if module.partition(".")[0] not in sys.stdlib_module_names
    }
    assert outside <= {"numpy", "quantcli"}


def test_evaluation_knows_of_reports_only_the_schema():
    wrong = [
        f"{identity(path)}:{line}"
        for path in FILES
        if part(path) == "evaluate"
        for module, line in imports(path)
        if module.startswith("quantcli.report") and module not in ("quantcli.report.schema",)
    ]
    assert not wrong


def test_the_table_has_no_cycles():
    """A layer whose needs are all placed can be placed; in the end all must be."""
    placed: set[str] = set()
    while ready := {name for name, needs in LAYERS.items() if name not in placed and needs <= placed}:
        placed |= ready
    assert placed == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_the_library_does_not_print(path):
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "input")
    ]
    assert not calls


def test_only_the_entry_point_exits():
    wrong = [
        f"{identity(path)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("sys.exit", "os._exit")
        and identity(path) != "cli/main.py"
    ]
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_files_are_finished_and_short(path):
    text = path.read_text("utf-8")
    assert not re.findall(r"\b(?:TODO|FIXME|XXX)\b", text)
    assert len(text.splitlines()) <= LONGEST


def codes_raised() -> dict[str, str]:
    """Codes at the head of calls such as ``DataError("D101", …)``, with the place of one of them."""
    found: dict[str, str] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            values = [*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "code")]
            for value in values:
                if isinstance(value, ast.Constant) and re.fullmatch(r"[A-EG-Z]\d{3}", str(value.value)):
                    found.setdefault(value.value, f"{identity(path)}:{node.lineno}")
    return found


def test_every_code_that_is_raised_is_explained():
    unknown = {code: place for code, place in codes_raised().items() if code not in ERROR_CODES}
    assert not unknown


def test_every_code_that_is_explained_is_used():
    text = "".join(path.read_text("utf-8") for path in FILES if identity(path) != "errors.py")
    assert not [code for code in ERROR_CODES if f'"{code}"' not in text]

"""Kinds of values on the command line: shapes, providers, report files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantcli.errors import UsageError
from quantcli.report.forms import ENDINGS, FORMS

if TYPE_CHECKING:
    _Kind = click.ParamType[Any]
else:  # generic only in recent versions of click
    _Kind = click.ParamType

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "dml": "DmlExecutionProvider",
}

_FACTORS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Shape(_Kind):
    """``NAME=1x3x224x224``."""

    name = "shape"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """(NAME, dimensions)."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).rpartition("=")
        parts = text.lower().split("x") if text else []
        if not (equals and name) or not all(part.isascii() and part.isdigit() for part in parts):
            self.fail(f"'{value}' is no shape; write NAME=1x3x224x224", param, ctx)
        return name, tuple(int(part) for part in parts)


class Bytes(_Kind):
    """A number of bytes: ``500M``, ``2G``, ``1048576``; K, M, G are powers of 1024."""

    name = "bytes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        if isinstance(value, int):
            return value
        text = str(value).strip().upper().removesuffix("B").removesuffix("I")
        factor = _FACTORS.get(text[-1:], 1)
        digits = text[:-1] if factor > 1 else text
        try:
            count = round(float(digits) * factor)
        except (ValueError, OverflowError):
            count = 0
        if count < 1:
            self.fail(f"'{value}' is no number of bytes; write 500M or 2G", param, ctx)
        return count


class Provider(_Kind):
    """``cpu``, ``cuda``, …, or the full name of an execution provider of onnxruntime."""

    name = "provider"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The full name."""
        text = str(value)
        full = _PROVIDERS.get(text.lower(), text)
        if not full.endswith("ExecutionProvider"):
            self.fail(f"'{text}' is no execution provider; there are {', '.join(_PROVIDERS)}", param, ctx)
        return full


class ReportFile(_Kind):
    """A report file; its ending says its form."""

    name = "report"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,  # noqa: ARG002
        ctx: click.Context | None,  # noqa: ARG002
    ) -> Path:
        """The path.

        Raises:
            UsageError: U103, the ending is not one of ``FORMS``.
        """
        path = Path(str(value))
        if path.suffix.lower() not in FORMS.values():
            raise UsageError(
                "U103",
                f"the report '{path.name}' ends in '{path.suffix}', so its form is not known",
                hint=f"name it {ENDINGS}",
            )
        return path


class ReportForms(_Kind):
    """``md,html``: forms of a report, separated by commas."""

    name = "forms"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The forms."""
        if isinstance(value, tuple):
            return value
        known = ("terminal", *FORMS)
        forms = tuple(part.strip().lower() for part in str(value).split(","))
        for form in forms:
            if form not in known:
                self.fail(f"'{form}' is no form of a report; there are {', '.join(known)}", param, ctx)
        return forms


def file_path() -> click.Path:
    """A path; whether it exists is for those to say who read it, with errors of their own."""
    return click.Path(path_type=Path)

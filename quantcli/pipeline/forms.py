"""Conversions other than static ones: what makes each, and what it makes.

Each form has a module of its own with a ``Maker``; what is common (checks before, verification, writing and the
report after) is in ``convert``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from quantcli.data.base import Sample
from quantcli.data.overlap import SampleDigests
from quantcli.errors import UsageError
from quantcli.graph.model import OnnxModel
from quantcli.pipeline.source import FloatModel
from quantcli.pipeline.types import ConvertRequest, RoundingFacts
from quantcli.progress import Progress
from quantcli.quantize.form import Form
from quantcli.quantize.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A converted model in memory, and what is told of it.

    Attributes:
        source: The float model, prepared as the plan needs it.
        plan: All decisions.
        model: The result.
        sample: A complete feed that the result is run on before it is written; None where there is none.
        facts: How weights were rounded; None where nothing was rounded.
        digests: Samples that had a say in it.
        provenance: Further entries of the metadata, without prefix.
        notes: What the user should know.
    """

    source: FloatModel
    plan: Plan
    model: OnnxModel
    sample: Sample | None = None
    facts: RoundingFacts | None = None
    digests: SampleDigests = field(default_factory=lambda: SampleDigests.of(()))
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Maker:
    """What carries out a form.

    Attributes:
        plan: (request) → the source and its plan, for a dry run: needs no data.
        make: (request, saved plan or None, progress) → the outcome.
    """

    plan: Callable[[ConvertRequest], tuple[FloatModel, Plan]]
    make: Callable[[ConvertRequest, Plan | None, Progress], Outcome]


def _dynamic() -> Maker:
    from quantcli.pipeline.form_dynamic import DYNAMIC

    return DYNAMIC


def _weight_only() -> Maker:
    from quantcli.pipeline.form_weight_only import WEIGHT_ONLY

    return WEIGHT_ONLY


def _float() -> Maker:
    from quantcli.pipeline.form_float import MAKER

    return MAKER


MAKERS: Mapping[Form, Callable[[], Maker]] = MappingProxyType(
    {Form.DYNAMIC: _dynamic, Form.WEIGHT_ONLY: _weight_only, Form.FLOAT: _float}
)
"""What gives the maker of a form, the static one left out; makers import this, so they come late."""


def maker_of(form: Form) -> Maker:
    """What carries out ``form``.

    Raises:
        UsageError: U102, this release has no such form.
    """
    if form not in MAKERS:
        raise UsageError("U102", f"the form '{form}' is not available", hint="leave it out: the form is static")
    return MAKERS[form]()

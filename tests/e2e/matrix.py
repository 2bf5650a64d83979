"""Every combination of the options that decide form, width, scheme, format and target, and what legality says."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from quantcli.cli.scheme_options import WIDTHS, scheme_of
from quantcli.errors import UsageError
from quantcli.ops.targets import DEFAULT_TARGET, TARGETS
from quantcli.quantize.scheme import Scheme

Value = tuple[str, Any]
"""Name of an option's value, and what is typed: True for a flag."""

Choice = tuple[Value, ...]

DEFAULTS: Mapping[str, Any] = {
    "bits": None, "weight_bits": None, "activation_bits": None, "dynamic": False, "weight_only": False,
    "granularity": None, "symmetric": None, "weight_symmetric": None, "pow2_scales": False,
    "contrib_qdq": False, "accuracy_level": None, "dynamic_lstm": False, "keep_io": None, "format": "qdq",
    "placement": None, "opset": None, "target": DEFAULT_TARGET,
}  # fmt: skip

FLAGS = {
    ("symmetric", True): "--symmetric", ("symmetric", False): "--asymmetric",
    ("weight_symmetric", False): "--weight-asymmetric", ("keep_io", False): "--convert-io",
}  # fmt: skip

DIMENSIONS: Mapping[str, Sequence[Choice]] = {
    "target": [(("target", name),) for name in TARGETS],
    "form": [(), (("dynamic", True),), (("weight_only", True),)],
    "width": [
        *((("weight_bits", w), ("activation_bits", a)) for w, a in itertools.product(WIDTHS, WIDTHS)),
        *((("bits", bits),) for bits in (*WIDTHS, "fp8", "fp16", "bf16")),
    ],
    "activations": [(), (("symmetric", True),), (("symmetric", False),)],
    "weights": [(), (("weight_symmetric", False),)],
    "granularity": [(), (("granularity", "tensor"),), (("granularity", "block:32"),)],
    "scales": [(), (("pow2_scales", True),)],
    "domain": [(), (("contrib_qdq", True),)],
    "format": [(), (("format", "qoperator"),)],
    "more": [(), (("accuracy_level", 1),), (("dynamic_lstm", True),), (("keep_io", False),)],
}
"""All values that the command line accepts, by what they are about; () for none typed."""


@dataclass(frozen=True)
class Combination:
    """One choice of each dimension."""

    choices: tuple[Choice, ...]

    @cached_property
    def values(self) -> dict[str, Any]:
        return dict(itertools.chain.from_iterable(self.choices))

    @property
    def arguments(self) -> list[str]:
        """What is typed."""
        found: list[str] = []
        for name, value in self.values.items():
            flag = f"--{name.replace('_', '-')}"
            found += [FLAGS.get((name, value), flag)] if isinstance(value, bool) else [flag, str(value)]
        return found

    @cached_property
    def scheme(self) -> Scheme | None:
        """What it asks for; None where that makes no sense."""
        try:
            return scheme_of({**DEFAULTS, **self.values}, typed=tuple(self.values))
        except UsageError:
            return None

    @property
    def legal(self) -> Scheme:
        found = self.scheme
        assert found is not None
        return found

    @property
    def meaning(self) -> object:
        """The same for combinations that ask for the same."""
        found = replace(self.legal.filled(), typed=frozenset())
        return found, self.values.get("keep_io")

    def __str__(self) -> str:
        return " ".join(self.arguments)


def combinations() -> Iterator[Combination]:
    """All of them."""
    return map(Combination, itertools.product(*DIMENSIONS.values()))


@cache
def legal() -> list[Combination]:
    """Those that make sense, each meaning once."""
    found: dict[object, Combination] = {}
    for combination in combinations():
        if combination.scheme is not None:
            found.setdefault(combination.meaning, combination)
    return list(found.values())


def pairwise(all_of_them: Iterable[Combination], seed: int = 0) -> list[Combination]:
    """Few of them, in which every pair of values stands together that does so anywhere.

    Targets that place alike count as one value, except with forms; so do all widths, except with targets.
    """
    shuffled = list(all_of_them)
    random.Random(seed).shuffle(shuffled)
    seen: set[object] = set()
    found = []
    for combination in shuffled:
        pairs = set(_pairs(combination))
        if not pairs <= seen:
            seen |= pairs
            found.append(combination)
    return found


def _pairs(combination: Combination) -> Iterator[object]:
    target, form, width, *others = combination.choices
    scheme = combination.legal
    alike = scheme.row.table if scheme.row.fuses_qdq else scheme.target
    kind = scheme.narrow or ("int8" if set(scheme.widths) == {8} else "integers")
    yield target, form
    yield alike, width
    yield from itertools.combinations([alike, form, kind, *others], 2)

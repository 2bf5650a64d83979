from __future__ import annotations

import math

import numpy as np
import pytest

from quantcli.quantize import narrow_facts
from quantcli.quantize.narrow_facts import survey

VALUES = np.array(
    [0, 1, -3e-6, 2e-9, -4e-10, 65504, -70000, 1e9, -3e38, np.inf, np.nan, 0.1, 1 / 3, -7, 12.5, 1e-7], np.float32
)


@pytest.mark.parametrize("part", [1, 3, 100])
def test_parts_of_a_constant_say_what_the_whole_does(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow_facts, "_PART_VALUES", part)
    found = survey(VALUES.reshape(4, 4), "float16")
    inside = VALUES[np.abs(VALUES) <= 65504].astype(np.float64)
    error = inside - inside.astype(np.float16).astype(np.float64)
    assert (found.size, found.over, found.least_over) == (16, float(np.float32(-3e38)), 70000.0)
    assert (found.lost, found.overflows, found.vanishes) == (2, True, True)  # 2e-9 and -4e-10, of 16 elements
    assert found.signal == pytest.approx(float(np.sum(inside**2)), rel=1e-12)
    assert found.noise == pytest.approx(float(np.sum(error**2)), rel=1e-12)


def test_a_constant_without_elements_loses_nothing() -> None:
    found = survey(np.zeros((0, 3), np.float32), "float16")
    assert (found.size, found.overflows, found.vanishes, found.sqnr) == (0, False, False, math.inf)


def test_few_elements_that_vanish_among_many_do_no_harm() -> None:
    values = np.ones(17, np.float32)
    values[3] = 1e-9
    assert not survey(values, "float16").vanishes
    assert survey(values[:16], "float16").vanishes
    assert survey(np.full(17, 1e-9, np.float32), "float16").vanishes

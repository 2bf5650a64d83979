"""Levels of effort are ordered: more effort never takes less of anything."""

from __future__ import annotations

from itertools import pairwise

from quantcli.algorithms.effort import DEFAULT_EFFORT, EFFORTS


def test_levels_go_from_cheap_to_dear():
    assert list(EFFORTS) == ["fast", "balanced", "max"]
    assert DEFAULT_EFFORT == "balanced"
    for less, more in pairwise(EFFORTS.values()):
        assert less.samples < more.samples
        assert less.rows < more.rows
        assert less.gptq <= more.gptq
        assert less.placement <= more.placement
        assert len(less.alphas) <= len(more.alphas)


def test_names_are_keys():
    assert all(name == effort.name for name, effort in EFFORTS.items())

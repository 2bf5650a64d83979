"""The shell completes commands, options, and names from the registries."""

from __future__ import annotations

import subprocess
import sys

import pytest


def completions(line: str) -> list[str]:
    words = line.split(" ")
    env = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_QUANTCLI_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-m", "quantcli"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    return [text.partition(",")[2] for text in done.stdout.split()]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("quantcli conv", ["convert"]),
        ("quantcli convert --gran", ["--granularity"]),
        ("quantcli convert --method per", ["percentile"]),
        ("quantcli convert --target g", ["generic"]),
        ("quantcli explain F40", ["F401", "F402", "F403", "F404", "F405", "F406"]),
    ],
)
def test_completion(line, expected):
    assert set(expected) <= set(completions(line))

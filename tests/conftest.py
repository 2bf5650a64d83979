"""Settings of all tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _static_placement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions place by the rules, unless a test asks for more: timing takes seconds, and its results vary."""
    monkeypatch.setenv("QUANTCLI_CONVERT_PLACEMENT", "static")

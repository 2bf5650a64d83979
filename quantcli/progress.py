"""The only notion of a user interface that the library knows: an observer of progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of the stages of a long job. Implementations must be cheap: they are called per batch."""

    def start(self, stage: str, total: int | None) -> None:
        """A stage begins; ``total`` counts its steps (samples, nodes), None when not known."""

    def advance(self, steps: int = 1) -> None:
        """``steps`` more steps of the current stage are done."""

    def finish(self) -> None:
        """The current stage is done."""


class SilentProgress:
    """Shows nothing."""

    def start(self, stage: str, total: int | None) -> None:
        """Ignore."""

    def advance(self, steps: int = 1) -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""

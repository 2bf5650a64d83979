"""What a tuning run has measured, kept in a file, so that the next one goes on where this one stopped.

The file has a key: a digest of everything that the measurements depend on (model, samples, recipe, versions).
With another key its content is of no use and is replaced. Real runs are kept as whole reports, so that other
gates can be held against them. It is written whole or not at all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantcli.algorithms.sensitivity import Noise
from quantcli.errors import ConfigError, DataError
from quantcli.quantize.choices import Choices
from quantcli.report.schema import Report
from quantcli.report.to_json import from_json, to_json
from quantcli.staged import staged_files

STATE_VERSION = 1

SAVE_EVERY_S = 2.0
"""Seconds between two writes while noises are measured, each of which takes a fraction of one."""


class TuneState:
    """Measurements of one tuning run.

    Args:
        path: The file; None to keep nothing.
        key: Digest of what the measurements depend on.
        clock: Seconds that only grow.

    Raises:
        ConfigError: C109, the file exists and is no state.
    """

    def __init__(self, path: Path | None, key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._key = key
        self._clock = clock
        self._saved = clock()
        self.noise: dict[tuple[str, str], Noise] = {}
        self.runs: dict[frozenset[str], Report] = {}
        self.times: dict[str, dict[str, float]] = {}
        self.choices: Choices | None = None
        self.stale = False
        if path is not None and path.exists():
            self._read(path)

    def keep_noise(self, kind: str, name: str, noise: Noise) -> None:
        """Keep the noise of a part of the plan."""
        self.noise[kind, name] = noise
        if self._clock() - self._saved >= SAVE_EVERY_S:
            self.save()

    def keep_run(self, tensors: frozenset[str], report: Report) -> None:
        """Keep a real run."""
        self.runs[tensors] = report
        self.save()

    def keep_choices(self, choices: Choices) -> None:
        """Keep the placement: the other measurements hold for this one only."""
        self.choices = choices
        self.save()

    def keep_times(self, times: dict[str, dict[str, float]]) -> None:
        """Keep what the profiles gave: its name → node → seconds."""
        self.times = times
        self.save()

    def save(self) -> None:
        """Write the file."""
        self._saved = self._clock()
        if self._path is None:
            return
        content = {
            "quantcli_tune_state": STATE_VERSION,
            "key": self._key,
            "noise": [
                {"kind": kind, "name": name, "noise": [str(part) for part in noise]}
                for (kind, name), noise in self.noise.items()
            ],
            "times": self.times,
            "choices": None if self.choices is None else asdict(self.choices),
            "runs": [
                {"float_tensors": sorted(tensors), "report": json.loads(to_json(report))}
                for tensors, report in self.runs.items()
            ],
        }
        text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        with staged_files([self._path], overwrite=True) as (file,):
            file.write(text.encode("utf-8"))

    def _read(self, path: Path) -> None:
        try:
            content: Any = json.loads(path.read_text("utf-8"))
            if content["quantcli_tune_state"] != STATE_VERSION or content["key"] != self._key:
                self.stale = True
                return
            self.noise = {
                (item["kind"], item["name"]): tuple(float(part) for part in item["noise"])
                for item in content["noise"]
            }
            self.choices = None if content["choices"] is None else Choices(**content["choices"])
            self.times = {name: dict(times) for name, times in content["times"].items()}
            self.runs = {
                frozenset(item["float_tensors"]): from_json(json.dumps(item["report"])) for item in content["runs"]
            }
        except OSError as error:
            raise ConfigError(
                "C109", f"state '{path.name}' cannot be read: {error.strerror or error}", hint="check the path"
            ) from error
        except (ValueError, LookupError, TypeError, AttributeError, DataError) as error:
            raise ConfigError(
                "C109",
                f"'{path.name}' is no state of a tuning run, or was damaged",
                hint="delete it to start anew, or name another file with --state-file",
            ) from error

"""Peak resident memory of a model, each in a process of its own.

A process remembers its own peak only, and never forgets it; so each model is loaded and run in a fresh one, and
one more that loads the runtime and the samples but no model says what those take. Linux: VmHWM of
/proc/self/status, which counts from the start of the program (ru_maxrss is inherited from the process that
started it). macOS: ru_maxrss, in bytes there. Pages of libraries that are shared with other processes count in
all three. Other systems have neither.

The child runs this module: a request as JSON on its standard input, the answer as JSON on its standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantcli.errors import QuantcliError, RuntimeFailure
from quantcli.runtime.child import last_words, run_child, save_feed

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """Peaks in bytes.

    Attributes:
        baseline: Of the process without a model.
        peaks: Of one process for each model.
    """

    baseline: int
    peaks: tuple[int, ...]


def peak_memory(models: Sequence[Path], feeds: Sequence[Feed], *, threads: int = 1, runs: int = 3) -> PeakMemory:
    """Load and run each of ``models`` in a process of its own.

    Args:
        models: Model files.
        feeds: Complete feeds for all of them; used in turn, at least one.
        threads: Intra-op threads.
        runs: Runs of each; the first one allocates.

    Raises:
        RuntimeFailure: R103, a process failed or cannot say what it used.
    """
    with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
        samples = []
        for index, feed in enumerate(feeds):
            path = Path(folder) / f"{index}.npz"
            save_feed(feed, path)
            samples.append({"file": str(path), "names": list(feed)})
        request = {"samples": samples, "threads": threads, "runs": max(runs, len(samples))}
        found = [_ask({**request, "model": None if model is None else str(model)}) for model in (None, *models)]
    return PeakMemory(baseline=found[0], peaks=tuple(found[1:]))


def _ask(request: Mapping[str, Any]) -> int:
    """What a child answers to ``request``."""
    who = "without a model" if request["model"] is None else f"of '{Path(request['model']).name}'"
    try:
        done = run_child("quantcli.runtime.peak_memory", request)
    except (OSError, subprocess.SubprocessError) as error:
        raise _failure(who, str(error)) from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise _failure(who, last_words(done, f"it ended with status {done.returncode}")) from error
    if "error" in answer:
        raise _failure(who, str(answer["error"]))
    return int(answer["peak"])


def _failure(who: str, why: str) -> RuntimeFailure:
    return RuntimeFailure(
        "R103",
        f"the memory of the process {who} could not be measured: {why}",
        hint="leave --memory out; on a system that limits memory, the model may not fit into it",
    )


def _measure(request: Mapping[str, Any]) -> int:
    """Load and run what ``request`` says; the peak of this process in bytes."""
    from quantcli.runtime.session import Session, SessionSettings

    feeds = []
    for sample in request["samples"]:
        with np.load(sample["file"], allow_pickle=False) as arrays:
            feeds.append({name: arrays[f"arr_{i}"] for i, name in enumerate(sample["names"])})
    if request["model"] is not None:
        session = Session(Path(request["model"]), SessionSettings(threads=int(request["threads"])))
        for run in range(int(request["runs"])):
            session.run(feeds[run % len(feeds)])
    return own_peak()


def own_peak() -> int:
    """Peak resident memory of this process so far, in bytes.

    Raises:
        RuntimeFailure: R103, the system does not say.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    raise _failure("itself", f"the system '{sys.platform}' does not say how much a process used")


def _main() -> None:
    try:
        answer: dict[str, Any] = {"peak": _measure(json.load(sys.stdin))}
    except QuantcliError as error:
        answer = {"error": error.message}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    _main()

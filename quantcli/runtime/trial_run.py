"""Whether onnxruntime loads and runs a model, found out in a process of its own.

A kernel that ends the process with a segmentation fault cannot be caught where it runs. So a model that was made
here is first run by a child; what becomes of the child is a value. A model that is too large for a session runs
part by part there; whether its operators have kernels is then asked of the graph without the weights.

The child runs this module: a request as JSON on its standard input, the answer as JSON on its standard output.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quantcli.errors import QuantcliError, RuntimeFailure
from quantcli.runtime.child import last_words, run_child, save_feed

if TYPE_CHECKING:
    from quantcli.runtime.in_parts import InParts

_CRASH = "onnxruntime ended the process by"


def refuse_crash(model: Path) -> None:
    """Make sure that loading ``model`` does not end this process.

    Raises:
        RuntimeFailure: R101, it ends a child's. Whatever else goes wrong is found out where the model is loaded.
    """
    failure = trial_run(model, None)
    if failure.startswith(_CRASH):
        raise RuntimeFailure(
            "R101",
            f"{failure} that loads the model",
            hint="onnxruntime crashes on some models in float16: convert the float32 model that it was made of",
        )


def trial_run(
    model: Path, feed: Mapping[str, np.ndarray] | None, *, threads: int = 1, in_parts: bool = False
) -> str:
    """Load ``model``, and run it once on ``feed`` where there is one, in a process of its own.

    Args:
        model: Its file.
        feed: Complete feed; None where there is none.
        threads: Intra-op threads.
        in_parts: Whether it is too large to be held by one session.

    Returns:
        "" where that went well; otherwise what went wrong, a crash of the process included.
    """
    with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
        request: dict[str, Any] = {"model": str(model), "threads": threads, "sample": None, "names": []}
        request["in_parts"] = in_parts
        if feed is not None:
            path = Path(folder) / "sample.npz"
            save_feed(feed, path)
            request |= {"sample": str(path), "names": list(feed)}
        return _ask(request)


def _ask(request: Mapping[str, Any]) -> str:
    try:
        done = run_child("quantcli.runtime.trial_run", request)
    except (OSError, subprocess.SubprocessError) as error:
        return f"the process that tries the model did not run: {error}"
    if done.returncode < 0:
        number = -done.returncode
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        return f"{_CRASH} {name}"
    try:
        return str(json.loads(done.stdout)["error"])
    except (ValueError, LookupError):
        return f"the process that tries the model ended with status {done.returncode}: {last_words(done)}"


def _answer(request: Mapping[str, Any]) -> str:
    """In the child: load and run."""
    from quantcli.runtime.session import Session, SessionSettings

    model, threads = Path(request["model"]), int(request["threads"])
    runner = _parts(model, threads) if request["in_parts"] else Session(model, SessionSettings(threads=threads))
    if request["sample"] is not None:
        with np.load(request["sample"], allow_pickle=False) as file:
            runner.run({name: file[key] for name, key in zip(request["names"], file.files, strict=True)})
    return ""


def _parts(path: Path, threads: int) -> InParts:
    """A model that runs part by part, after a look at the graph without its weights."""
    from quantcli.graph.read_view import load_named
    from quantcli.graph.weightless import without_weights
    from quantcli.runtime.in_parts import UNPACKED, InParts
    from quantcli.runtime.session import Session, SessionSettings

    model = load_named(path)
    Session(without_weights(model).model.to_bytes(), SessionSettings(threads=threads, optimization="disabled"))
    return InParts(model, SessionSettings(threads=threads, config=UNPACKED))


def _main() -> None:
    request = json.load(sys.stdin)
    try:
        error = _answer(request)
    except QuantcliError as failure:
        error = failure.message
    sys.stdout.write(json.dumps({"error": error}))


if __name__ == "__main__":
    _main()

"""Modules of this package run as processes of their own: a request goes in as JSON, an answer may come out.

What a runtime does to its process (peaks of memory, segmentation faults) is kept apart thereby.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]

_TIMEOUT_S = 3600.0


def run_child(module: str, request: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run ``module`` with ``request`` as JSON on its standard input, and wait for its end.

    Raises:
        OSError, subprocess.SubprocessError: It did not start, or took more than an hour.
    """
    paths = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(  # noqa: S603 - this very interpreter, and a module of ours
        [sys.executable, "-m", module],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        timeout=_TIMEOUT_S,
        check=False,
    )


def last_words(done: subprocess.CompletedProcess[str], default: str = "") -> str:
    """The last line that a child wrote to its standard error."""
    return (done.stderr.strip().splitlines() or [default])[-1]


def save_feed(feed: Mapping[str, np.ndarray], path: Path) -> None:
    """Write the arrays of a feed to an npz file, in order; texts that are objects become plain: no pickles."""
    np.savez(path, *(array.astype(np.str_) if array.dtype.kind == "O" else array for array in feed.values()))

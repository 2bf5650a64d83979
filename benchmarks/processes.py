"""Programs in processes of their own: what they said, how long they took, how much memory they held at most."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# A process inherits the peak of the process that starts it, so a small one stands between. It also ends what takes
# too long, with all that it started.
_LAUNCHER = """
import json, os, signal, subprocess, sys, time
report, patience, *command = sys.argv[1:]
late = []
started = time.monotonic()
child = subprocess.Popen(command, start_new_session=True)
def stop(*_):
    late.append(True)
    os.killpg(child.pid, signal.SIGKILL)
signal.signal(signal.SIGALRM, stop)
signal.alarm(int(patience))
try:
    _, status, usage = os.wait4(child.pid, 0)
except BaseException:
    stop()
    raise
seconds = time.monotonic() - started
with open(report, "w") as file:
    json.dump({
        "code": os.waitstatus_to_exitcode(status), "late": bool(late), "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss * 1024 / 1e6,
    }, file)
"""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A program that has ended.

    Attributes:
        code: Exit code; negative for a signal.
        late: Whether it was ended because it took too long.
        seconds: Wall time from start to end, imports included.
        processor_seconds: Processor time of all its threads and processes.
        peak_mb: Peak resident memory of its largest process, 10⁶ bytes.
        said: What it wrote to stdout.
        complained: What it wrote to stderr.
    """

    code: int
    late: bool
    seconds: float
    processor_seconds: float
    peak_mb: float
    said: str
    complained: str

    @property
    def error(self) -> str | None:
        """Why it failed: the last line that it complained with; None where it did not fail."""
        if self.late:
            return f"ended after {self.seconds:.0f} s"
        if not self.code:
            return None
        lines = self.complained.strip().splitlines()
        return lines[-1].strip() if lines else f"exit code {self.code}"


def execute(
    command: Sequence[str | Path],
    *,
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
    patience: float = 3600,
) -> Finished:
    """Run a program to its end.

    Args:
        command: Program and arguments.
        folder: Working directory; None for the present one.
        variables: Environment variables besides those of this process.
        patience: Seconds after which it is ended.
    """
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        launcher = [sys.executable, "-S", "-c", _LAUNCHER, str(report), str(max(1, round(patience)))]
        done = subprocess.run(
            [*launcher, *map(str, command)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd=folder,
            env={**os.environ, **(variables or {})},
        )
        if not report.is_file():
            raise OSError(f"{command[0]} could not be started: {done.stderr.strip()}")
        figures = json.loads(report.read_text(encoding="utf-8"))
    return Finished(said=done.stdout, complained=done.stderr, **figures)

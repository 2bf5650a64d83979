"""The command line as it may stand in a report: as typed, but without absolute paths."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

# A directory from the root on, at the start of an argument or behind "=" (--data=PATH, NAME=PATH).
_ROOTED = re.compile(r"(?:(?<=^)|(?<==))(?:[A-Za-z]:)?[/\\](?:[^?=&]*[/\\])?(?=[^/\\?]+)")


def command_line(arguments: Sequence[str]) -> str:
    """``quantcli …`` for a shell; of absolute paths only the last part is left."""
    return shlex.join(["quantcli", *(_ROOTED.sub("", argument) for argument in arguments)])

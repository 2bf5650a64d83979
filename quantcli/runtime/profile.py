"""How long every node takes, from onnxruntime's own profiler.

The profiler writes one event a node and run (Chrome's trace format). A node's time is the median over the runs
behind the first, which allocates. The names are those of the optimized graph without their suffixes: fused
nodes have the name of one of their parts, and convolutions in NCHWc layout that of the result.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from quantcli.runtime.kernels import plain_name
from quantcli.runtime.session import Session, SessionSettings

_SUFFIX = "_kernel_time"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTime:
    """Times of the kernels of one name and operator.

    Attributes:
        name: Name of the node of the model, or of its result.
        op_type: Operator that ran.
        seconds: Median over runs; kernels of the same name in one run are added.
        output_bytes: Size of what it makes.
    """

    name: str
    op_type: str
    seconds: float
    output_bytes: int


def profile_nodes(
    model: bytes | Path,
    feeds: Sequence[Mapping[str, np.ndarray]],
    settings: SessionSettings | None = None,
    *,
    runs: int = 10,
) -> tuple[NodeTime, ...]:
    """Run ``model`` and give the time of every node, in the order in which they ran.

    Args:
        model: Any model.
        feeds: Complete feeds, used in turn; at least one.
        settings: How it is run.
        runs: Runs that count; one more comes before.

    Raises:
        RuntimeFailure: R101 or R102, the model does not load or run.
    """
    with tempfile.TemporaryDirectory(prefix="quantcli-") as folder:
        session = Session(model, replace(settings or SessionSettings(), profile_prefix=Path(folder) / "profile"))
        for number in range(runs + 1):
            session.run(feeds[number % len(feeds)])
        events = json.loads(session.end_profile().read_text("utf-8"))
    return summarize(events)


def summarize(events: Sequence[Mapping[str, object]]) -> tuple[NodeTime, ...]:
    """Times of nodes from the events of a profile: those of a second run and later ones."""
    runs: list[dict[tuple[str, str], float]] = []
    sizes: dict[tuple[str, str], int] = {}
    for event in sorted(events, key=_start):
        name = str(event["name"])
        if name == "model_run":
            runs.append({})
        args = event.get("args")
        if event.get("cat") != "Node" or not name.endswith(_SUFFIX) or not isinstance(args, Mapping) or not runs:
            continue
        key = (plain_name(name.removesuffix(_SUFFIX)), str(args["op_name"]))
        runs[-1][key] = runs[-1].get(key, 0.0) + 1e-6 * float(str(event["dur"]))
        sizes[key] = int(str(args.get("output_size", 0)))
    counted = runs[1:] or runs
    return tuple(
        NodeTime(
            name=name,
            op_type=op_type,
            seconds=median(run.get((name, op_type), 0.0) for run in counted),
            output_bytes=size,
        )
        for (name, op_type), size in sizes.items()
    )


def _start(event: Mapping[str, object]) -> tuple[float, float]:
    """Order of events: a run before what happens in it, which may start at the same microsecond."""
    return float(str(event.get("ts", 0))), -float(str(event.get("dur", 0)))

"""The report that a comparison is held against: a file of an earlier comparison, and what may be worse."""

from __future__ import annotations

from quantcli.errors import DataError
from quantcli.evaluate.allowance_syntax import parse_allowed_regression
from quantcli.evaluate.baseline import EarlierReport, require_allowed
from quantcli.evaluate.baseline_figures import task_metrics
from quantcli.evaluate.gate_list import each
from quantcli.pipeline.types import CompareRequest
from quantcli.report.to_json import from_json


def read_baseline(request: CompareRequest) -> EarlierReport:
    """The earlier report that ``request`` names, with what it allows.

    Raises:
        DataError: D103, there is no such file; G301, it is no report.
        UsageError: An allowed regression is wrong (G101, G112), or several are (G111); one cannot be judged
            (G303).
    """
    path = request.baseline
    assert path is not None
    if not path.is_file():
        raise DataError(
            "D103",
            f"the baseline '{path.name}' does not exist, or is no file",
            hint="write one first: quantcli compare … --report baseline.json",
        )
    report = from_json(path.read_text("utf-8", errors="replace"))
    tasks = [metric.name for metric in task_metrics(report)]
    earlier = EarlierReport(
        name=path.name,
        report=report,
        allowed=each(request.allow_regression, lambda text: parse_allowed_regression(text, tasks)),
    )
    require_allowed(
        earlier,
        data=bool(request.data.specs),
        labels=request.labels is not None,
        latency=request.latency,
    )
    return earlier

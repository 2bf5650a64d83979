"""What a comparison measures besides the outputs themselves, as values, and the scorers made of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from quantcli.data.problems import printable
from quantcli.data.spec import named_function
from quantcli.data.user_code import load_callable
from quantcli.errors import UsageError
from quantcli.evaluate.detection import DetectionScorer
from quantcli.evaluate.gate_syntax import Gate, unknown_output
from quantcli.evaluate.metric_names import find_metric, given_metrics, top_k
from quantcli.evaluate.metric_table import Metric, Needs
from quantcli.evaluate.scoring import Scorer
from quantcli.evaluate.segmentation import SegmentationScorer
from quantcli.evaluate.task_spec import TaskSpec
from quantcli.evaluate.user_metric import UserMetric, UserScorer


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricOptions:
    """What else to measure.

    Attributes:
        ranges: Length of the range of an output by its name in the original, for PSNR; None stands for all others.
        top_k: Numbers of classes for top-k, all above 1, besides the usual one (``evaluate.top_k``).
        tasks: Built-in task metrics.
        functions: Metrics of the user's own.
        limited: Whether fewer samples are run than there are, so that truths may be left over.
    """

    ranges: Mapping[str | None, float] = field(default_factory=dict)
    top_k: tuple[int, ...] = ()
    tasks: tuple[TaskSpec, ...] = ()
    functions: tuple[UserMetric, ...] = ()
    limited: bool = False

    @property
    def rows(self) -> Mapping[str, Metric]:
        """Rows of the metrics that are not built in, for gates."""
        return given_metrics(self.functions)

    @property
    def needs(self) -> Collection[Needs]:
        """What gates may ask for because of it."""
        kinds = {"segmentation": Needs.SEGMENTATION, "detection": Needs.DETECTION}
        found = [kinds[task.name] for task in self.tasks]
        found += [Needs.RANGE] if self.ranges else []
        return (*found, *([Needs.METRIC] if self.functions else []))

    @property
    def wants_labels(self) -> bool:
        """Whether a metric of the user's own takes labels."""
        return any("labels" in function.wants for function in self.functions)

    def for_gates(self, gates: Sequence[Gate]) -> MetricOptions:
        """With the numbers of classes that gates ask for, too."""
        asked = {*self.top_k, *(count for gate in gates if (count := top_k(gate.metric)) is not None)}
        return replace(self, top_k=tuple(sorted(asked)))

    def range_of(self, output: str) -> float | None:
        """Length of the range of an output; None where it is not given."""
        return self.ranges.get(output, self.ranges.get(None))

    def check(self, *, data: bool, labels: bool, synthetic: bool) -> None:
        """Refuse what cannot be measured, before anything is read.

        Raises:
            UsageError: G104, there are no samples; G105, a truth for made-up samples; G107 or G108, two metrics
                have the same name.
        """
        asked = [f"the task '{task.name}'" for task in self.tasks]
        asked += [f"the metric '{function.name}'" for function in self.functions]
        asked += ["the range of an output"] if self.ranges else []
        asked += ["top-k"] if self.top_k else []
        if asked and not data:
            raise UsageError("G104", f"{asked[0]} needs samples, and none are given", hint="give them with --data")
        lacking = [function.name for function in self.functions if function.needs_labels and not labels]
        if lacking:
            raise UsageError(
                "G104",
                f"the metric '{lacking[0]}' takes labels, and none are given",
                hint="give them with --labels, or write labels=None in its signature",
            )
        if self.tasks and synthetic:
            raise UsageError(
                "G105",
                f"the task '{self.tasks[0].name}' has a truth for made-up samples, which nobody knows",
                hint="give real samples with --data",
            )
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise UsageError("G107", f"the task '{names[0]}' is given twice", hint="compare once for each")
        own = [function.name for function in self.functions]
        for name in own:
            if own.count(name) > 1 or find_metric(name) is not None:
                what = "given twice" if own.count(name) > 1 else "the name of a built-in metric"
                raise UsageError(
                    "G108", f"the metric '{name}' is {what}", hint="write OTHER=FILE.py:FUNCTION for another name"
                )

    def check_outputs(self, names: Sequence[str]) -> None:
        """Refuse ranges of outputs that do not exist.

        Raises:
            UsageError: G106.
        """
        for name in self.ranges:
            if name is not None and name not in names:
                raise unknown_output("--output-range", name, names)

    def scorers(self) -> tuple[Scorer, ...]:
        """Fresh scorers of all tasks and functions.

        Raises:
            UsageError: G107, a decoder is none.
            DataError: A truth or a decoder cannot be read.
        """
        tasks = [_task_scorer(task, limited=self.limited) for task in self.tasks]
        return (*tasks, *(UserScorer(function) for function in self.functions))


def _task_scorer(task: TaskSpec, *, limited: bool) -> Scorer:
    if task.name == "segmentation":
        return SegmentationScorer(task, limited=limited)
    text = task.text_of("decode")
    if text is None:
        return DetectionScorer(task, limited=limited)
    found = named_function(text)
    if found is None:
        raise UsageError(
            "G107",
            f"the task '{printable(task.text)}' has decode={printable(text)}, which names no function",
            hint="write decode=FILE.py:FUNCTION or decode=MODULE:FUNCTION",
        )
    label = printable(text.replace("\\", "/").rpartition("/")[2])
    return DetectionScorer(
        task, load_callable(*found, label, "a function from outputs to outputs, or to rows"), limited=limited
    )


def parse_range(text: str) -> tuple[str | None, float]:
    """Parse ``[OUTPUT=]LENGTH`` or ``[OUTPUT=]LOW:HIGH``.

    Returns:
        The output, None for all, and the length of the range.

    Raises:
        UsageError: G108, the text has no such form.
    """
    name, equals, numbers = text.rpartition("=")
    low, colon, high = numbers.partition(":")
    try:
        length = float(high) - float(low) if colon else float(numbers)
    except ValueError:
        length = math.nan
    if not 0 < length < math.inf or (equals and not name):
        raise UsageError(
            "G108",
            f"'{printable(text)}' is no range of an output",
            hint="write 255, 0:1 or OUTPUT=-1:1; its length is above 0",
        )
    return (name if equals else None), length

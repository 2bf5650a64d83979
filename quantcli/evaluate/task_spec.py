"""The grammar of ``--task``: ``NAME?option=value&…``, as that of ``--data`` has its options.

``segmentation?truth=maps.npy&ignore=255`` and
``detection?truth=boxes.npy&boxes=cxcywh&columns=object,scores&nms=0.65``. Options are one row each in ``TASKS``;
the errors and the docs read them there.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quantcli.core.boxes import FORMATS
from quantcli.data.problems import printable
from quantcli.errors import UsageError

COLUMNS: Mapping[str, str] = {
    "score,class": "six numbers a row: the box, its score, its class",
    "class,score": "the box, its class, its score",
    "scores": "the box, and a score for each class; the best class counts",
    "object,scores": "the box, the score of an object, and a score for each class: their product counts",
}
"""What follows the four numbers of a box in a row of the output."""


@dataclass(frozen=True, slots=True)
class TaskOption:
    """An option of a task.

    Attributes:
        name: As written.
        sentence: What it says.
        read: From its text to its value; ValueError with a sentence where it is wrong.
        required: Whether the task cannot do without.
        initial: Its value where it is not given.
    """

    name: str
    sentence: str
    read: Callable[[str], object]
    required: bool = field(default=False, kw_only=True)
    initial: object = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A parsed task.

    Attributes:
        text: As the user wrote it.
        name: Key of ``TASKS``.
        values: Every option's value by name.
    """

    text: str
    name: str
    values: Mapping[str, object]

    def text_of(self, option: str) -> str | None:
        """The value of an option that is text; None where it is not given."""
        value = self.values[option]
        return None if value is None else str(value)

    def number_of(self, option: str) -> float | None:
        """The value of an option that is a number; None where it is not given."""
        value = self.values[option]
        return float(value) if isinstance(value, (int, float)) else None

    @property
    def truth(self) -> Path:
        """The file of the truth."""
        return Path(str(self.values["truth"])).expanduser()


def _choice(*allowed: str) -> Callable[[str], object]:
    def read(text: str) -> object:
        if text.lower() not in allowed:
            raise ValueError(f"takes {', '.join(allowed)}")
        return text.lower()

    return read


def _number(low: float, high: float = math.inf) -> Callable[[str], object]:
    def read(text: str) -> object:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or math.isinf(value):
            raise ValueError(f"takes {low:g} to {high:g}" if math.isfinite(high) else "takes a number")
        return value

    return read


def _whole(low: int) -> Callable[[str], object]:
    def read(text: str) -> object:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or int(text) < low:
            raise ValueError(f"takes a whole number from {low} on")
        return int(text)

    return read


def _text(text: str) -> object:
    return text


_MAPS = "class of every pixel: integers (images, height, width), .npy or the only array of an .npz"
_BOXES = "one row for each object: image, class, four numbers of the box[, 1 for a crowd]; .npy or .npz"
_DECODE = "FILE.py:FUNCTION or MODULE:FUNCTION that makes such outputs of the model's; this runs your code"

_SEGMENTATION = (
    TaskOption("truth", _MAPS, _text, required=True),
    TaskOption("output", "output that holds the classes; the first that fits", _text),
    TaskOption("ignore", "class number that says 'none'; those below 0 always do", _whole(0)),
)

_DETECTION = (
    TaskOption("truth", _BOXES, _text, required=True),
    TaskOption("boxes", f"format of the model's boxes: {', '.join(FORMATS)}", _choice(*FORMATS), required=True),
    TaskOption("truth-boxes", "format of the true boxes; xyxy", _choice(*FORMATS), initial="xyxy"),
    TaskOption("output", "output with a row for each box; the only one", _text),
    TaskOption(
        "columns",
        f"what follows the box in a row: {' | '.join(COLUMNS)}; {next(iter(COLUMNS))}",
        _choice(*COLUMNS),
        initial=next(iter(COLUMNS)),
    ),
    TaskOption("boxes-output", "output with the boxes, where they are apart", _text),
    TaskOption("scores-output", "output with their scores, one for each box or one for each class", _text),
    TaskOption("classes-output", "output with their classes", _text),
    TaskOption("scale", "factor from the model's boxes to the truth's unit; 1", _number(1e-9, 1e9), initial=1.0),
    TaskOption("score", "lowest score that counts; all", _number(-math.inf)),
    TaskOption("nms", "IoU beyond which the worse of two boxes of a class goes; none", _number(0, 1)),
    TaskOption("max", "detections of a class in an image that count; 100", _whole(1), initial=100),
    TaskOption("decode", _DECODE, _text),
)

TASKS: Mapping[str, tuple[TaskOption, ...]] = {"segmentation": _SEGMENTATION, "detection": _DETECTION}
"""Options by task."""


def parse_task(text: str) -> TaskSpec:
    """Parse ``NAME?option=value&…``.

    Raises:
        UsageError: G107, the task or an option is unknown, missing, or wrong.
    """
    name, _, tail = text.strip().partition("?")
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.4)
        question = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(TASKS)}"
        raise UsageError("G107", f"the task '{printable(text)}' names no task that is built in", hint=question)
    known = {option.name: option for option in TASKS[name]}
    given: dict[str, object] = {}
    for part in tail.split("&") if tail else ():
        key, equals, value = part.partition("=")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            question = f"did you mean '{near[0]}'? " if near else ""
            raise UsageError(
                "G107",
                f"the task '{printable(text)}' has the unknown option '{printable(key)}'",
                hint=f"{question}{name} takes {', '.join(known)}",
            )
        if not equals or not value:
            raise UsageError("G107", f"the task '{printable(text)}' gives '{key}' no value", hint=f"{key}=VALUE")
        if key in given:
            raise UsageError("G107", f"the task '{printable(text)}' gives '{key}' twice")
        try:
            given[key] = known[key].read(value)
        except ValueError as error:
            raise UsageError(
                "G107", f"the task '{printable(text)}' has {key}={printable(value)}, but '{key}' {error}"
            ) from None
    missing = [option for option in known.values() if option.required and option.name not in given]
    if missing:
        raise UsageError(
            "G107",
            f"the task '{printable(text)}' does not say '{missing[0].name}'",
            hint=f"add {missing[0].name}=..., the {missing[0].sentence}",
        )
    _check_outputs(text, given)
    return TaskSpec(
        text=text, name=name, values={key: given.get(key, option.initial) for key, option in known.items()}
    )


def _check_outputs(text: str, given: Mapping[str, object]) -> None:
    """Rows in one output, or boxes and scores apart; not both."""
    apart = [key for key in ("boxes-output", "scores-output", "classes-output") if key in given]
    if not apart:
        return
    both = [key for key in ("output", "columns") if key in given]
    if both:
        raise UsageError(
            "G107",
            f"the task '{printable(text)}' gives both '{both[0]}' and '{apart[0]}'",
            hint="rows of one output have columns; boxes and scores in outputs of their own have none",
        )
    for key in ("boxes-output", "scores-output"):
        if key not in given:
            raise UsageError("G107", f"the task '{printable(text)}' gives '{apart[0]}', but no '{key}'")

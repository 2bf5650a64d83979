"""What ``quantcli explain`` can explain: every registry of quantcli as texts. The docs are made from it, too."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from quantcli.cli.target_guide import target_facts
from quantcli.errors import ERROR_CODES, UsageError

if TYPE_CHECKING:
    from quantcli.cli.finding_guide import Meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One thing to explain.

    Attributes:
        name: As the user asks for it: "F203", "target:ort-cpu", "op:Conv".
        group: Heading of the list of topics.
        summary: One line.
        paragraphs: The rest.
        facts: Label → text.
    """

    name: str
    group: str
    summary: str
    paragraphs: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


FLOAT_REASONS = "Why a node stays in float"
ERRORS = "Errors"
TARGET_GROUP = "Targets"
METHOD_GROUP = "Range methods"
METRIC_GROUP = "Metrics of gates"
EXIT_GROUP = "Exit codes"
FINDING_GROUP = "What is wrong with a layer"
CAUSE_GROUP = "Why a layer is sensitive"
TASK_GROUP = "Tasks"
OPERATOR_GROUP = "Operators"


@cache
def topics() -> Mapping[str, Topic]:
    """Every topic by its name, in the order of the groups."""
    return {topic.name: topic for maker in _MAKERS for topic in maker()}


def find_topic(text: str) -> Topic:
    """The topic that ``text`` names, whatever its case; the prefix may be left out where only one fits.

    Raises:
        UsageError: U104, with the nearest names.
    """
    known = topics()
    wanted = text.strip().lower()
    exact = [topic for name, topic in known.items() if name.lower() == wanted]
    if exact:
        return exact[0]
    bare = [topic for name, topic in known.items() if name.partition(":")[2].lower() == wanted]
    if len(bare) == 1:
        return bare[0]
    pool = {name.lower(): name for name in known} | {
        name.partition(":")[2].lower(): name for name in known if ":" in name
    }
    near = [topic.name for topic in bare] or list(
        dict.fromkeys(pool[name] for name in difflib.get_close_matches(wanted, pool, n=3, cutoff=0.6))
    )
    hint = "did you mean " + " or ".join(f"'{name}'" for name in near) + "?" if near else "see: quantcli explain"
    raise UsageError("U104", f"there is no topic '{text}'", hint=hint)


def _reasons() -> Iterator[Topic]:
    from quantcli.cli.reason_guide import REMEDIES
    from quantcli.ops.reasons import REASONS

    for code, sentence in sorted(REASONS.items()):
        facts = (("what to do", REMEDIES[code]),) if code in REMEDIES else ()
        yield Topic(name=code, group=FLOAT_REASONS, summary=sentence, facts=facts)


def _errors() -> Iterator[Topic]:
    from quantcli.cli.error_guide import ADVICE, exit_code_of_error
    from quantcli.cli.input_guide import INPUT_ADVICE

    advice = {**ADVICE, **INPUT_ADVICE}
    for code, sentence in sorted(ERROR_CODES.items()):
        facts = [("exit code", str(exit_code_of_error(code)))]
        if code in advice:
            facts = [("cause", advice[code].cause), ("remedy", advice[code].remedy), *facts]
        yield Topic(name=code, group=ERRORS, summary=sentence, facts=tuple(facts))


def _meanings(prefix: str, group: str, table: Mapping[Any, Meaning]) -> Iterator[Topic]:
    for name, meaning in table.items():
        facts = (("it shows", meaning.sign), ("what to do", meaning.remedy))
        yield Topic(name=f"{prefix}:{name}", group=group, summary=meaning.sentence, facts=facts)


def _words() -> Iterator[Topic]:
    from quantcli.cli.finding_guide import CAUSES, EXITS, FINDINGS

    yield from _meanings("exit", EXIT_GROUP, EXITS)
    yield from _meanings("finding", FINDING_GROUP, FINDINGS)
    yield from _meanings("cause", CAUSE_GROUP, CAUSES)


def _targets() -> Iterator[Topic]:
    from quantcli.ops.targets import DEFAULT_TARGET, TARGETS

    for target in TARGETS.values():
        yield Topic(
            name=f"target:{target.name}",
            group=TARGET_GROUP,
            summary=target.summary + (" (default)" if target.name == DEFAULT_TARGET else ""),
            paragraphs=target.facts,
            facts=(*target_facts(target), ("checked", target.checked), ("source", target.source)),
        )


def _methods() -> Iterator[Topic]:
    from quantcli.calibration.estimators import ESTIMATORS

    for method in ESTIMATORS.values():
        facts = [("write", f"--method {method.name}")]
        if method.parameter is not None:
            usual = method.parameter
            facts = [
                ("write", f"--method {method.name}:{usual.default:g}"),
                (
                    "number",
                    f"{usual.name}, {usual.low:g} to {usual.high:g}; {usual.default:g} where none is given",
                ),
            ]
        yield Topic(name=f"method:{method.name}", group=METHOD_GROUP, summary=method.summary, facts=tuple(facts))


def _metrics() -> Iterator[Topic]:
    from quantcli.cli.metric_examples import baseline_text, example_gate
    from quantcli.evaluate.metric_table import METRICS

    for metric in METRICS.values():
        units = ", ".join(unit for unit in metric.units if unit != "db")
        facts = [("better", metric.better.value), ("needs", metric.needs.value)]
        if metric.per_output:
            facts.append(("outputs", f"of all outputs the worst counts; of one: OUTPUT.{metric.name}"))
        if units:
            facts.append(("units", units))
        facts += [("example", f"--gate '{example_gate(metric)}'"), ("baseline", baseline_text(metric))]
        yield Topic(name=f"gate:{metric.name}", group=METRIC_GROUP, summary=metric.sentence, facts=tuple(facts))


def _tasks() -> Iterator[Topic]:
    from quantcli.evaluate.task_spec import TASKS

    summaries = {
        "segmentation": "Mean intersection over union (mIoU) of class maps: "
        "compare --task 'segmentation?truth=FILE'.",
        "detection": "Mean average precision of boxes by COCO's definition: "
        "compare --task 'detection?truth=FILE&boxes=FORMAT'.",
    }
    for name, options in TASKS.items():
        facts = tuple(
            (option.name, f"{option.sentence}{' (has to be given)' if option.required else ''}")
            for option in options
        )
        yield Topic(name=f"task:{name}", group=TASK_GROUP, summary=summaries[name], facts=facts)


def _operators() -> Iterator[Topic]:
    from quantcli.ops.table import TABLE
    from quantcli.ops.targets import TARGETS

    for row in sorted(TABLE.values(), key=lambda row: (row.domain, row.op_type)):
        full = f"{row.domain}.{row.op_type}" if row.domain else row.op_type
        facts = []
        for target in TARGETS.values():
            support = target.support(row)
            text = f"{support.kernel.value}{f': {support.note}' if support.note else ''}"
            if support.float_output:
                text += " (may give its result in float)"
            facts.append((f"on {target.name}", text))
        facts += [(f"QOperator on {target}", name) for target, name in row.qlinear.items() if name]
        if row.fixed_range is not None:
            facts.append(("range", f"{row.fixed_range[0]:g} to {row.fixed_range[1]:g}, by definition"))
        yield Topic(
            name=f"op:{full}",
            group=OPERATOR_GROUP,
            summary=f"{_TRAITS[row.trait.value]}.",
            paragraphs=(row.note,) if row.note else (),
            facts=tuple(facts),
        )


_TRAITS = {
    "compute": "Computes with a constant weight, in integers with an int32 sum",
    "own": "Computes in integers; its output has parameters of its own",
    "shared": "Joins its inputs; they and the output share parameters where that is legal",
    "passthrough": "Moves or selects values: input and output have the same parameters",
    "fixed": "Its output range is known from its definition",
    "fused": "Becomes part of the kernel before it",
    "float": "Has no useful integer form",
    "shape": "Does not compute on floats",
}

_MAKERS = (_targets, _methods, _metrics, _tasks, _words, _reasons, _errors, _operators)

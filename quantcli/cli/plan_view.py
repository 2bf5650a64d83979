"""A plan on the screen: counts, the reasons for what stays in float, and every node with ``-v``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quantcli.cli.screen import Screen
from quantcli.report.format import plural

if TYPE_CHECKING:
    from quantcli.quantize.plan import NodePlan, Plan

NOT_ABOUT_FLOATS = "F901"

_ASIDE = {NOT_ABOUT_FLOATS, "F231"}
"""Reasons of nodes that nobody expects to change."""

_NO_PRODUCT = "F221"
"""Says little of a node in the dynamic form; such reasons come behind the telling ones."""

_OF_THE_FORM = {_NO_PRODUCT, "F231"}
"""Reasons that the form has for all operators but a few, which are one line together."""

_OTHERS = "(others)"

_WORDS = {
    "quantize": "integer",
    "store": "stored",
    "passthrough": "moved",
    "fuse": "fused",
    "narrow": "narrow",
    "float": "float",
}


def counts_sentence(plan: Plan) -> str:
    """How many nodes became what."""
    from quantcli.quantize.plan import Action
    from quantcli.quantize.widths import integer_kernels

    if plan.narrow is not None:
        return _narrow_sentence(plan)
    kernels = len(integer_kernels(plan))
    kinds = (
        (kernels, plural(kernels, "integer kernel").partition(" ")[2]),
        (plan.count(Action.QUANTIZE) - kernels, "computed in float between quantizers"),
        (plan.count(Action.STORE), "with stored weights"),
        (plan.count(Action.FUSE), "fused into them"),
        (plan.count(Action.PASSTHROUGH), "moving integers"),
    )
    parts = ", ".join(f"{count} {what}" for count, what in kinds if count)
    left = plan.count(Action.FLOAT)
    aside = sum(_code(node) == NOT_ABOUT_FLOATS for node in plan.nodes)
    text = f"{plan.quantized} of {len(plan.nodes)} quantized{f' ({parts})' if parts else ''}"
    text += f", {left - aside} in float"
    return f"{text}, {aside} not about floats" if aside else text


def _narrow_sentence(plan: Plan) -> str:
    """The same of a conversion to a narrower float type."""
    from quantcli.quantize.plan import Action

    assert plan.narrow is not None
    aside = sum(_code(node) == NOT_ABOUT_FLOATS for node in plan.nodes)
    left = plan.count(Action.FLOAT) - aside
    text = f"{plan.count(Action.NARROW)} of {len(plan.nodes)} compute in {plan.narrow.dtype}, {left} in float32"
    text += f", {aside} not about floats" if aside else ""
    return f"{text}; {plural(len(plan.narrow.constants), 'constant')} stored as {plan.narrow.dtype}"


def reason_rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    """(count, operator, code, sentence) of nodes left in float, most frequent first; shapes and masks last."""
    groups: dict[tuple[str, str], list[NodePlan]] = {}
    for node in plan.nodes:
        if node.reason is not None:
            operator = _OTHERS if node.reason.code in _OF_THE_FORM else node.op_type
            groups.setdefault((node.reason.code, operator), []).append(node)
    ranked = sorted(groups.items(), key=lambda item: (_rank(item[0][0]), -len(item[1]), item[0]))
    return [(str(len(nodes)), op, code, _sentence(nodes)) for (code, op), nodes in ranked]


def _rank(code: str) -> int:
    """0 for a reason that tells something."""
    return 2 if code in _ASIDE else int(code == _NO_PRODUCT)


def node_rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    """(name, operator, what becomes of it, why) of every node."""
    rows = []
    for node in plan.nodes:
        why = ""
        if node.reason is not None:
            why = f"{node.reason.code}: {node.reason.sentence}"
        elif node.into:
            why = f"into '{node.into}'"
        if node.rule:
            why = f"{why} (by '{node.rule}')".strip()
        if node.body:
            why = f"{why} (in '{node.body}')".strip()
        rows.append((node.name, node.op_type, _WORDS[node.action], why))
    return rows


def show_plan(screen: Screen, plan: Plan, *, limit: int | None = None) -> None:
    """Write the reasons as a table (``limit`` rows; all of them, and every node, with ``-v``)."""
    verbose = screen.settings.verbose
    rows = reason_rows(plan)
    shown = rows if verbose or limit is None else rows[:limit]
    if shown:
        screen.table(shown, head=("nodes", "operator", "code", "why in float"), indent=2)
    if len(shown) < len(rows):
        screen.line(f"  … and {plural(len(rows) - len(shown), 'more reason')} (-v shows them)")
    if verbose:
        screen.line()
        screen.table(node_rows(plan), head=("node", "operator", "becomes", "why"), indent=2)


def _code(node: NodePlan) -> str:
    return node.reason.code if node.reason is not None else ""


def _sentence(nodes: Sequence[NodePlan]) -> str:
    """The cause that most of them share, as an example where they do not share one."""
    sentences = Counter(node.reason.sentence for node in nodes if node.reason is not None)
    commonest = sentences.most_common(1)[0][0]
    return commonest if len(sentences) == 1 else f"for example: {commonest}"

"""What the user wants: defaults, and selectors of the nodes and tensors that must or must not be quantized.

A selector is a glob over node names (``block1/*``), ``re:EXPR`` (a regular expression that must match the
whole name) or ``op:TYPE`` (an operator). With ``tensor:`` before it, a glob or ``re:EXPR`` names activations
instead (``tensor:relu_3``). A selector that matches nothing is an error, because a misspelt exclusion would
otherwise pass in silence.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from quantcli.core.dtypes import INT8, UINT8, QType
from quantcli.errors import ConfigError
from quantcli.graph.view import GraphView, NodeInfo
from quantcli.ops.targets import DEFAULT_TARGET
from quantcli.quantize.choices import Choices
from quantcli.quantize.form import Form

TENSOR = "tensor:"
"""What stands before a selector of tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to quantize.

    Attributes:
        target: Name of the target.
        form: What is quantized when.
        float_type: Of the form "float": "float16" or "bfloat16"; "" for the others.
        activation_dtype: Type of activations' codes.
        weight_dtype: Type of weights' codes.
        symmetric: Whether activations have a fixed zero point.
        per_channel: Whether weights have a scale per output channel.
        weight_symmetric: Whether the zero points of weights are fixed.
        block: Weights that share a scale, along the axis that products sum over; 0 for no blocks.
        pow2_scales: Whether all scales are powers of two.
        contrib_qdq: Whether Q/DQ of com.microsoft are written, which have 16 and 4 bits below opset 21.
        accuracy_level: Of MatMulNBits: 4 for int8 activations inside, 1 for float32 (0 lets the runtime choose).
        dynamic_lstm: Whether the form "dynamic" writes LSTM as com.microsoft.DynamicQuantizeLSTM.
        keep_io: Of the form "float": whether inputs and outputs keep their types.
        method: Range method, as text ("capped", "minmax", "percentile:99.999", …).
        include: Selectors; when given, only matching nodes are quantized.
        exclude: Selectors of nodes left in float, and of tensors with "tensor:" before them; stronger than
            ``include``.
        float_tensors: Further selectors of tensors that carry no Q/DQ, with or without "tensor:".
        choices: Which way is taken where there are several.
    """

    target: str = DEFAULT_TARGET
    form: Form = Form.STATIC
    float_type: str = ""
    activation_dtype: QType = UINT8
    weight_dtype: QType = INT8
    symmetric: bool = False
    per_channel: bool = True
    weight_symmetric: bool = True
    block: int = 0
    pow2_scales: bool = False
    contrib_qdq: bool = False
    accuracy_level: int = 4
    dynamic_lstm: bool = False
    keep_io: bool = True
    method: str = "capped"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    float_tensors: tuple[str, ...] = ()
    choices: Choices = field(default_factory=Choices)

    @property
    def label(self) -> str:
        """What files are named after: "int8", "int4", "fp8", "float16"."""
        return self.float_type or ("fp8" if self.weight_dtype.floating else f"int{self.weight_dtype.bits}")

    @property
    def excluded_nodes(self) -> tuple[str, ...]:
        """Selectors of nodes left in float."""
        return tuple(selector for selector in self.exclude if not selector.startswith(TENSOR))

    @property
    def excluded_tensors(self) -> tuple[str, ...]:
        """Selectors of tensors left in float, from both fields, with "tensor:" before each."""
        named = (selector for selector in self.exclude if selector.startswith(TENSOR))
        return (*named, *(TENSOR + selector.removeprefix(TENSOR) for selector in self.float_tensors))


def matches(selector: str, node: NodeInfo) -> bool:
    """Whether ``selector`` names ``node``, by its own name, one that was folded into it, or its path.

    Raises:
        ConfigError: C102, the regular expression is invalid.
    """
    if selector.startswith("op:"):
        return node.op_type == selector[3:] or node.op == selector[3:]
    return any(map(_test(selector), filter(None, (node.name, *node.absorbed, node.path))))


def _test(selector: str) -> Callable[[str], bool]:
    """Whether a name is meant by a glob or ``re:EXPR``."""
    if not selector.startswith("re:"):
        return lambda name: name == selector or fnmatch.fnmatchcase(name, selector)
    try:
        expression = re.compile(selector[3:])
    except re.error as error:
        raise ConfigError("C102", f"selector '{selector}' is not a valid regular expression: {error}") from error
    return lambda name: expression.fullmatch(name) is not None


def select(selectors: Sequence[str], view: GraphView) -> dict[str, str]:
    """Nodes named by ``selectors``.

    Returns:
        Node name → the last selector that matched it.

    Raises:
        ConfigError: C101, a selector matches nothing (all such selectors are told at once).
    """

    def hits(selector: str) -> list[str]:
        return [node.name for node in view.nodes if matches(selector, node)]

    return _selected(selectors, hits, "node", lambda missing: _nearest(missing, view.nodes))


def tensor_selector(name: str) -> str:
    """The selector of exactly the tensor ``name``."""
    glob = re.sub(r"([*?[])", r"[\1]", name)
    return TENSOR + (f"[r]{glob[1:]}" if glob.startswith("re:") else glob)


def node_selector(name: str) -> str:
    """The selector of exactly the node ``name``."""
    glob = re.sub(r"([*?[])", r"[\1]", name)
    return f"[{glob[0]}]{glob[1:]}" if glob.startswith(("re:", "op:", TENSOR)) else glob


def select_tensors(selectors: Sequence[str], view: GraphView) -> dict[str, str]:
    """Activations named by ``selectors``, which begin with "tensor:".

    Returns:
        Value name → the last selector that matched it.

    Raises:
        ConfigError: C101, a selector matches nothing (all such selectors are told at once).
    """
    names = view.values

    def hits(selector: str) -> list[str]:
        return [*filter(_test(selector.removeprefix(TENSOR)), names)]

    def meant(missing: Sequence[str]) -> str:
        bare = (selector.removeprefix(TENSOR).removeprefix("re:") for selector in missing)
        return _meant(near for name in bare for near in difflib.get_close_matches(name, names, n=3, cutoff=0.4))

    return _selected(selectors, hits, "tensor", meant)


def _selected(
    selectors: Sequence[str],
    hits: Callable[[str], list[str]],
    kind: str,
    meant: Callable[[Sequence[str]], str],
) -> dict[str, str]:
    """Name → the last selector that hit it; a selector without a hit is an error with a hint."""
    found: dict[str, str] = {}
    missing = []
    for selector in selectors:
        names = hits(selector)
        if not names:
            missing.append(selector)
        found.update(dict.fromkeys(names, selector))
    if missing:
        raise ConfigError(
            "C101",
            "; ".join(f"selector '{selector}' matches no {kind} of the model" for selector in missing),
            hint=meant(missing),
        )
    return found


def _nearest(missing: Sequence[str], nodes: Iterable[NodeInfo]) -> str:
    """Names and operators that the user may have meant."""
    nodes = tuple(nodes)
    names = sorted({name for node in nodes for name in (node.name, *node.absorbed)})
    operators = sorted({f"op:{node.op_type}" for node in nodes})
    near: list[str] = []
    for selector in missing:
        pool = operators if selector.startswith("op:") else names
        near += difflib.get_close_matches(selector.removeprefix("re:"), pool, n=3, cutoff=0.4)
    return _meant(near)


def _meant(near: Iterable[str]) -> str:
    names = ", ".join(f"'{name}'" for name in dict.fromkeys(near))
    return f"did you mean {names}?" if names else "list the names with: quantcli inspect MODEL -v"

"""What rounding to a narrower float type costs in single parts of a model, measured; the dear ones stay float32.

Two kinds of parts are tried. Operators that sum many values or stretch differences, one kind after the other: each
goes back to float32 where the outputs gain ``LEAST_GAIN`` dB by it. Then, if the outputs are still below the
usual fidelity of the type, single layers: with noise powers that add up (independent roundings), a layer whose
weights alone are rounded gives its share of the noise, and the layers with the largest shares go back to float32
until the rest would reach the usual fidelity. A depthwise convolution behind a folded BatchNormalization can make
nine tenths of all noise (MobileNetV2: 39 dB with it in float16, 53 dB without).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantcli.data.base import Sample
from quantcli.graph.round_values import round_values
from quantcli.ops.reasons import Reason
from quantcli.pipeline.float_work import FloatWork, restricted
from quantcli.pipeline.source import runnable
from quantcli.pipeline.trial_fidelity import trial_fidelity
from quantcli.progress import Progress
from quantcli.quantize.plan import Action, Plan
from quantcli.runtime.session import Session, SessionSettings

LEAST_GAIN = 3.0
"""dB that keeping a part in float32 must gain."""

USUAL: Mapping[str, float] = {"float16": 50.0, "bfloat16": 35.0}
"""dB below which single layers are looked at."""

SENSITIVE = (
    "Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
    "RMSNormalization", "BatchNormalization", "ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "Pow",
    "Exp", "Log", "Sqrt", "Div", "Reciprocal", "CumSum", "Softplus",
)  # fmt: skip
"""Operators that sum many values or stretch differences."""

_MOST_LAYERS = 64
"""Layers that are tried one by one, the largest last: small ones are cheap to keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """What measuring led to.

    Attributes:
        plan: The plan.
        sqnr: Of the worst output in dB, with every narrow value rounded; inf where nothing differs.
        samples: Samples that it was measured on.
    """

    plan: Plan
    sqnr: float
    samples: int


def refine_floats(work: FloatWork, plan: Plan, samples: Sequence[Sample], progress: Progress) -> Refined:
    """Keep in float32 what the samples show to be dear.

    Args:
        work: The conversion; what is kept is added to it.
        plan: Its plan so far.
        samples: Complete feeds.
        progress: Told of each part that is tried.

    Returns:
        The plan with these parts in float32, and its fidelity.
    """
    return _Refiner(work, samples, progress).refined(plan)


class _Refiner:
    def __init__(self, work: FloatWork, samples: Sequence[Sample], progress: Progress) -> None:
        self.work = work
        self.samples = samples
        self.progress = progress
        self.settings = SessionSettings(threads=work.threads, optimization="disabled")
        reference = Session(work.source.path, SessionSettings(threads=work.threads))
        self.wanted = [reference.run(sample) for sample in samples]
        self.type = work.recipe.float_type

    def refined(self, plan: Plan) -> Refined:
        best = self._fidelity(plan)
        groups = _groups(plan)
        self.progress.start("operators in float32", len(groups))
        for op, names in groups.items():
            sentence = f"{op} in float32 brings the outputs {{gain:.1f}} dB closer to the float model"
            plan, best = self._kept(plan, best, dict.fromkeys(names, sentence))
            self.progress.advance()
        self.progress.finish()
        if best < USUAL[self.type]:
            plan, best = self._kept(plan, best, self._dear_layers(plan, best))
        return Refined(plan=plan, sqnr=best, samples=len(self.samples))

    def _kept(self, plan: Plan, best: float, sentences: Mapping[str, str]) -> tuple[Plan, float]:
        """With the nodes of ``sentences`` in float32, where that gains enough; otherwise as it was."""
        if not sentences:
            return plan, best
        candidate = self.work.plan({name: Reason(code="F707", sentence="") for name in sentences})
        found = self._fidelity(candidate)
        gain = found - best
        if not gain >= LEAST_GAIN:
            return plan, best
        self.work.kept |= {
            name: Reason(code="F707", sentence=sentence.format(gain=gain)) for name, sentence in sentences.items()
        }
        return self.work.plan(), found

    def _dear_layers(self, plan: Plan, best: float) -> dict[str, str]:
        """Layers with the largest shares of the noise, until the rest reaches the usual fidelity."""
        layers = self._layers(plan)
        self.progress.start("layers in float32", len(layers))
        shares: dict[str, float] = {}
        for name, constants in layers.items():
            found = self._fidelity(_only(plan, constants))
            shares[name] = 10 ** (-found / 10)
            self.progress.advance()
        self.progress.finish()
        noise = 10 ** (-best / 10)
        dear: dict[str, str] = {}
        for name, share in sorted(shares.items(), key=lambda item: (-item[1], item[0])):
            if noise <= 10 ** (-USUAL[self.type] / 10) or share < noise / len(shares):
                break
            left = -10 * np.log10(share)
            dear[name] = f"its weights in {self.type} alone leave the outputs {left:.0f} dB"
            noise -= share
        return dear

    def _layers(self, plan: Plan) -> dict[str, frozenset[str]]:
        """Nodes with narrow constants → these, smallest first."""
        assert plan.narrow is not None
        view = self.work.source.whole
        narrow = {constant.name for constant in plan.narrow.constants}
        found = {node.name: frozenset(node.inputs) & narrow for node in view.nodes}
        sizes = {
            name: sum(view.tensors[constant].nbytes for constant in constants)
            for name, constants in found.items()
            if constants
        }
        return {name: found[name] for name in sorted(sizes, key=lambda name: (sizes[name], name))[:_MOST_LAYERS]}

    def _fidelity(self, plan: Plan) -> float:
        """Of what ``plan`` makes, with every narrow value rounded."""
        model = self.work.emit(plan)
        if self.type == "float16":
            model = round_values(model)
        with runnable(model) as loadable:
            return trial_fidelity(Session(loadable, self.settings), self.samples, self.wanted).sqnr


def _only(plan: Plan, constants: frozenset[str]) -> Plan:
    """``plan`` with nothing narrow but some of its constants."""
    assert plan.narrow is not None
    kept = tuple(constant for constant in plan.narrow.constants if constant.name in constants)
    return replace(restricted(plan, frozenset()), narrow=replace(plan.narrow, constants=kept))


def _groups(plan: Plan) -> dict[str, list[str]]:
    """Operator → narrow nodes, of the sensitive ones."""
    groups: dict[str, list[str]] = defaultdict(list)
    for node in plan.nodes:
        if node.action is Action.NARROW and node.op_type in SENSITIVE:
            groups[node.op_type].append(node.name)
    return dict(sorted(groups.items()))

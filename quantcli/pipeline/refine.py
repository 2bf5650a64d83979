"""Weights and biases from the data: the sweep over a plan, with the runtime and the rounding wired in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantcli.algorithms.effort import Effort
from quantcli.algorithms.layer_form import LayerForm
from quantcli.algorithms.rounding import Pair, RoundingOptions, round_layer
from quantcli.algorithms.sweep import Feed, Run, SweepInput, SweepResult, sweep
from quantcli.core.affine import params_from_range
from quantcli.core.dtypes import UINT8
from quantcli.core.spec import QuantSpec
from quantcli.data.base import Sample
from quantcli.graph.extract import Piece
from quantcli.pipeline.source import FloatModel, runnable
from quantcli.progress import Progress
from quantcli.quantize.body_plans import main_part
from quantcli.quantize.plan import LayerPlan, Plan
from quantcli.quantize.solve import Solution, layer_rules, seen_constants
from quantcli.quantize.weights import QuantizedLayer
from quantcli.runtime.session import Session, SessionSettings

DAMPING = 0.01
"""Over the mean second moment; 0.001 to 0.1 are alike on convolutional networks."""

DAMPING_OF_TOKENS = 0.1
"""The same for (batch, tokens, channels): a few channels of huge moments leave the others undetermined."""

TOKEN_RANK = 3

_ANY_INPUT = params_from_range(0.0, 1.0, QuantSpec(dtype=UINT8))
"""Parameters of an input for a layer without an integer bias, on which nothing depends then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """A solution whose layers fit the data.

    Attributes:
        solution: The parameters, with the layers decided by the sweep.
        sweep: What the sweep found.
        variants: Layer → how its weight and bias were rounded.
    """

    solution: Solution
    sweep: SweepResult
    variants: Mapping[str, str]


def refine(
    source: FloatModel,
    plan: Plan,
    solution: Solution,
    samples: Sequence[Sample],
    effort: Effort,
    progress: Progress,
    *,
    masks: Sequence[np.ndarray] | None = None,
    max_bytes: int,
    threads: int,
    rounded: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Refined:
    """Decide weights and biases of the main graph on samples; those of layers in bodies stay as they are.

    Args:
        source: Float model; its prepared graph is what the plan is of.
        plan: What is quantized.
        solution: Ranges, and weights rounded to nearest.
        samples: Complete feeds.
        effort: How hard to try.
        progress: Told of every step.
        masks: For each sample which positions count (bool, shape (N, T)), None where all do.
        max_bytes: Limit of the tensors that are alive at a time.
        threads: Intra-op threads of the runtime.
        rounded: Rounds activations in the dynamic form, whose solution has no parameters of them; biases stay in
            float then.

    Raises:
        RuntimeFailure: A piece of the model fails by itself.
    """
    chooser = _Chooser(source, plan, solution, effort, masks)
    nodes = source.view.node_by_name
    given = SweepInput(
        model=source.prepared,
        view=source.view,
        plan=main_part(plan, source.view),
        params=solution.tensors,
        samples=samples,
        constants={place: seen for place, seen in seen_constants(solution).items() if place[0] in nodes},
        max_bytes=max_bytes,
        rounded=rounded,
    )
    found = sweep(given, pieces_run(threads), chooser.decide, progress)
    return Refined(
        solution=replace(solution, layers={**solution.layers, **found.layers}),
        sweep=found,
        variants=dict(sorted(chooser.variants.items())),
    )


def pieces_run(threads: int) -> Callable[[Piece], Run]:
    """What runs the pieces of a model that the sweep cuts, each in a session of its own."""
    settings = SessionSettings(threads=threads)

    def make_run(piece: Piece) -> Run:
        with runnable(piece.model) as loadable:
            session = Session(loadable, settings)

        def run(feeds: Iterable[Feed]) -> Iterator[Mapping[str, np.ndarray]]:
            return (session.run(feed, piece.outputs) for feed in feeds)

        return run

    return make_run


def damping(pairs: Sequence[Pair]) -> float:
    """Damping of GPTQ. Measured on MiniLM's last hidden state: 13.3 dB with 0.01, 16.3 with 0.1."""
    tokens = bool(pairs) and pairs[0].x.ndim == TOKEN_RANK
    return DAMPING_OF_TOKENS if tokens else DAMPING


class _Chooser:
    """Decides layers one by one, and remembers how."""

    def __init__(
        self,
        source: FloatModel,
        plan: Plan,
        solution: Solution,
        effort: Effort,
        masks: Sequence[np.ndarray] | None,
    ) -> None:
        self._view = source.view
        self._solution = solution
        self._effort = effort
        self._masks = masks
        self._uses = Counter(layer.weight for layer in plan.layers)
        self.variants: dict[str, str] = {}

    def decide(
        self,
        layer: LayerPlan,
        numbers: Sequence[int],
        plain: Sequence[np.ndarray],
        rounded: Sequence[np.ndarray],
    ) -> QuantizedLayer:
        form = LayerForm.of(self._view, self._view.node_by_name[layer.node])
        if not form.supported:
            self.variants[layer.node] = "nearest"
            return self._solution.layers[layer.node]
        pairs = [
            Pair(x=x, x_hat=x_hat, keep=self._keep(number, x))
            for number, x, x_hat in zip(numbers, plain, rounded, strict=True)
        ]
        # A weight that several layers read is stored once only if all of them round it alike.
        alone = self._uses[layer.weight] == 1
        params = self._solution.tensors.get(layer.input)
        float_bias = params is None or not layer.bias
        found = round_layer(
            form,
            self._view.constant(layer.weight),
            None if float_bias else np.asarray(self._view.constant(layer.bias)).reshape(-1),
            params or _ANY_INPUT,
            layer.weight_spec,
            pairs,
            RoundingOptions(gptq=self._effort.gptq and alone, rows=self._effort.rows, damp=damping(pairs)),
            may_create_bias=layer.may_create_bias,
            rules=layer_rules(layer),
        )
        self.variants[layer.node] = found.variant
        return found.layer

    def _keep(self, number: int, x: np.ndarray) -> np.ndarray | None:
        """Which leading positions of ``x`` count, where it is laid out as the mask is."""
        if self._masks is None:
            return None
        mask = self._masks[number]
        return mask if x.shape[: mask.ndim] == mask.shape and x.ndim == mask.ndim + 1 else None

"""Weights of the weight-only form rounded against samples: the sweep over a plan without rounded activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from quantcli.algorithms.effort import EFFORTS
from quantcli.algorithms.layer_form import LayerForm
from quantcli.algorithms.rounding import NEAREST
from quantcli.algorithms.samples import Pair
from quantcli.algorithms.sweep import SweepInput, sweep
from quantcli.algorithms.weight_rounding import round_weight
from quantcli.core.affine import dequantize
from quantcli.data.base import Sample
from quantcli.pipeline.refine import damping, pieces_run
from quantcli.pipeline.source import FloatModel
from quantcli.pipeline.types import ConvertRequest, RoundingFacts
from quantcli.pipeline.workbench import mask_of
from quantcli.progress import Progress
from quantcli.quantize.body_plans import main_part
from quantcli.quantize.plan import LayerPlan, Plan
from quantcli.quantize.solve_weight_only import StoredWeight, roots
from quantcli.quantize.weights import QuantizedLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinedWeights:
    """Weights that fit the data.

    Attributes:
        weights: By initializer, those that were rounded against the data and the others.
        facts: How they were rounded.
        notes: What the user should know.
    """

    weights: Mapping[str, StoredWeight]
    facts: RoundingFacts
    notes: tuple[str, ...]


def refine_weights(
    source: FloatModel,
    plan: Plan,
    nearest: Mapping[str, StoredWeight],
    samples: Sequence[Sample],
    request: ConvertRequest,
    progress: Progress,
) -> RefinedWeights:
    """Decide the weights of layers on samples, one after the other.

    Args:
        source: Float model; its prepared graph is what the plan is of.
        plan: Weight-only plan.
        nearest: Its weights, rounded to nearest.
        samples: Complete feeds.
        request: Mask, memory and threads.
        progress: Told of every step.

    Raises:
        RuntimeFailure: A piece of the model fails by itself.
    """
    chooser = _Chooser(source, plan, nearest, samples, request)
    main = main_part(plan, source.view)  # the walk does not enter bodies, whose weights stay rounded to nearest
    given = SweepInput(
        model=source.prepared,
        view=source.view,
        plan=main,
        params={},
        samples=samples,
        constants=chooser.seen_constants(main),
        max_bytes=request.max_memory,
        rounded=lambda values: values,
    )
    found = sweep(given, pieces_run(request.run.threads), chooser.decide, progress)
    facts = RoundingFacts(
        effort=request.effort,
        samples=found.samples,
        peak_bytes=found.peak_bytes,
        variants=dict(sorted(Counter(chooser.variants.values()).items())),
    )
    short = len(samples) - found.samples
    notes = (f"{short} of {len(samples)} samples were left out to stay below --max-memory",) if short else ()
    return RefinedWeights(weights=chooser.weights, facts=facts, notes=notes)


class _Chooser:
    """Decides layers one by one, and remembers how."""

    def __init__(
        self,
        source: FloatModel,
        plan: Plan,
        nearest: Mapping[str, StoredWeight],
        samples: Sequence[Sample],
        request: ConvertRequest,
    ) -> None:
        self._view = source.view
        self._masks = mask_of(samples, request.mask)
        self._rows = EFFORTS[request.effort].rows
        self._roots = roots(plan)
        names = [entry.constant for entry in plan.constants] + [table.table for table in plan.tables]
        names += [layer.weight for layer in plan.layers]
        self._readers = Counter(self._roots[name][0] for name in names)
        self.weights = dict(nearest)
        self.variants: dict[str, str] = {}

    def seen_constants(self, plan: Plan) -> dict[tuple[str, int], np.ndarray]:
        """Float32 values of the constants that are no weights of layers, as the emitted graph has them."""
        places = {(entry.node, entry.index): entry.constant for entry in plan.constants}
        places |= {(table.node, 0): table.table for table in plan.tables}
        made: dict[str, np.ndarray] = {}
        for name in places.values():
            if name not in made:
                found = self._seen(name)
                made[name] = dequantize(found.weight, found.weight_params)
        return {place: made[name] for place, name in places.items()}

    def _seen(self, name: str) -> QuantizedLayer:
        """Integers of a constant, as its reader sees them."""
        root, turned = self._roots[name]
        stored = self.weights[root]
        integers, params = stored.integers(), stored.params
        if turned:
            axis = params.spec.axis
            spec = replace(params.spec, axis=None if axis is None else 1 - axis)
            params = replace(params, spec=spec, scale=params.scale.T, zero_point=params.zero_point.T)
            integers = integers.T
        return QuantizedLayer(weight=integers, weight_params=params)

    def decide(
        self,
        layer: LayerPlan,
        numbers: Sequence[int],
        plain: Sequence[np.ndarray],
        rounded: Sequence[np.ndarray],
    ) -> QuantizedLayer:
        """The integers of a layer."""
        root, _ = self._roots[layer.weight]
        # A weight that several nodes read is stored once only if all of them round it alike.
        if self._readers[root] > 1:
            self.variants[layer.node] = NEAREST
            return self._seen(layer.weight)
        pairs = [
            Pair(x=x, x_hat=x_hat, keep=self._keep(number, x))
            for number, x, x_hat in zip(numbers, plain, rounded, strict=True)
        ]
        found = round_weight(
            LayerForm.of(self._view, self._view.node_by_name[layer.node]),
            self._view.constant(layer.weight),
            self.weights[root].params,
            pairs,
            rows=self._rows,
            damp=damping(pairs),
        )
        self.variants[layer.node] = found.variant
        integers = found.integers
        self.weights[root] = replace(self.weights[root], integers=lambda: integers)
        return self._seen(layer.weight)

    def _keep(self, number: int, x: np.ndarray) -> np.ndarray | None:
        """Which leading positions of ``x`` count, where it is laid out as the mask is."""
        if self._masks is None:
            return None
        mask = self._masks[number]
        return mask if x.shape[: mask.ndim] == mask.shape and x.ndim == mask.ndim + 1 else None

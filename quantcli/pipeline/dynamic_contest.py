"""How samples are used in the dynamic form: whatever leaves no output worse than without samples, and is the best.

Channels can be balanced or not, weights fitted to the samples or rounded to nearest. Ranges are found while the
model runs, so that samples set none of them, and each of the two can be left out. Both help most outputs and hurt
some: quiet channels that are enlarged by 1/s enlarge the noise of the weights that they meet, Σ (x_c/s_c)²·Δ²/12,
and only weights that fit the data make up for it. Measured on MiniLM's last hidden state, of tokens and of padding
together: 15.4 dB as it is, 7.2 dB balanced and rounded to nearest, 20.1 dB balanced and fitted. (On tokens alone
17.1, 23.6 and 24.5 dB. The first padding after a text is unstable, and tips over under any noise; weights that are
fitted to the tokens alone are worse there, and no better on the tokens: 15.5 and 24.2 dB.)

So every way is carried out and run on samples held out of the fitting. One that makes any output worse than the
model without samples is out of the question, padding included, and so is one that makes the worst output no better
for sure; of the others the one with the best worst output wins, judged by what counts (``--mask``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from quantcli.algorithms.effort import Effort
from quantcli.graph.model import OnnxModel
from quantcli.pipeline.contest import clearly
from quantcli.pipeline.trial_fidelity import TrialFidelity
from quantcli.progress import Progress

WORSE_DB = 0.1
"""What an output may lose without being called worse."""

BETTER_DB = 0.1
"""What another way must gain to take the place of one that is tried before it."""

CLEARLY_BETTER_DB = 0.3
"""What any way must gain over ``AS_WITHOUT``, and ``SURE`` standard errors at that: the samples may flatter it."""

SETTLED_DB = 3.0
"""A balanced and fitted way that gains so much over ``AS_WITHOUT`` needs no comparison with half of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A use of samples.

    Attributes:
        alpha: Strength of equalization, 0 for none.
        fitted: Whether weights are rounded against the samples.
    """

    alpha: float
    fitted: bool


AS_WITHOUT = Way(alpha=0.0, fitted=False)
"""What is made without samples."""


def ways(effort: Effort, *, fit: bool) -> tuple[Way, ...]:
    """The ways that an effort tries, the usual one first, and ``AS_WITHOUT`` last.

    Args:
        effort: Strengths of equalization.
        fit: Whether weights can be fitted.
    """
    alphas = tuple(dict.fromkeys((*effort.alphas, 0.0)))
    found = [
        Way(alpha=alpha, fitted=fitted) for fitted in ((True, False) if fit else (False,)) for alpha in alphas
    ]
    return (*(way for way in found if way != AS_WITHOUT), AS_WITHOUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How good a model is.

    Attributes:
        whole: Over all elements of the outputs.
        counting: Over the positions that count; the same without a mask.
    """

    whole: TrialFidelity
    counting: TrialFidelity

    def worse_somewhere(self, other: Judged) -> bool:
        """Whether any output has a lower SQNR than in ``other``, by more than ``WORSE_DB``."""
        mine, theirs = (np.concatenate([item.whole.outputs, item.counting.outputs]) for item in (self, other))
        return bool(np.any(mine < theirs - WORSE_DB))

    def gain_over(self, other: Judged) -> float:
        """Difference of the worst outputs in dB."""
        return self.counting.gain_over(other.counting)[0]

    def clearly_better(self, other: Judged) -> bool:
        """Whether the worst output is better for sure."""
        return clearly(*self.counting.gain_over(other.counting), least=CLEARLY_BETTER_DB)


def best_way(
    tried: Sequence[Way],
    model_of: Callable[[Way], OnnxModel | None],
    judge: Callable[[OnnxModel], Judged],
    progress: Progress,
) -> Way:
    """The best way on the judge's samples, among those that leave no output worse than ``AS_WITHOUT``.

    Args:
        tried: Ways in order of preference.
        model_of: Carries out a way; None where it comes to the same as another one.
        judge: Runs a model.
        progress: Told of every way.
    """
    progress.start("try", len(tried))
    try:
        limit = _judged(AS_WITHOUT, model_of, judge)
        progress.advance()
        if limit is None:
            return AS_WITHOUT
        best, reached = AS_WITHOUT, limit
        for way in tried:
            if way == AS_WITHOUT or (reached.gain_over(limit) > SETTLED_DB and not (way.alpha and way.fitted)):
                continue
            found = _judged(way, model_of, judge)
            progress.advance()
            if found is None or found.worse_somewhere(limit) or not found.clearly_better(limit):
                continue
            if best == AS_WITHOUT or found.gain_over(reached) > BETTER_DB:
                best, reached = way, found
    finally:
        progress.finish()
    return best


def _judged(
    way: Way, model_of: Callable[[Way], OnnxModel | None], judge: Callable[[OnnxModel], Judged]
) -> Judged | None:
    model = model_of(way)
    return None if model is None else judge(model)


def told(way: Way, *, fit: bool) -> str:
    """What the user should know of a way other than the usual one.

    Args:
        way: What was chosen.
        fit: Whether weights can be fitted.
    """
    left = [] if way.alpha else ["channels are not balanced"]
    if fit and not way.fitted:
        left.append("weights are rounded to nearest")
    if not left:
        return f"channels are balanced with strength {way.alpha:g}: better than others on samples held out"
    return f"{' and '.join(left)}: anything else made an output worse, or none better, on samples held out"

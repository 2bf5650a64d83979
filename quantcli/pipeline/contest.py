"""Candidates of one conversion, judged by what they do to the outputs on samples that had no part in the rounding.

Layers are rounded against the data one by one, and channels are balanced by a rule; both help on nearly all
models and hurt on a few. So the finished candidates run on samples that the sweep did not see. The first one is
kept unless another is clearly better (``CLEARLY_BETTER_DB``, and ``SURE`` standard errors); the last one is the
model rounded to nearest, which has to be beaten. The figures flatter a little, because ranges were chosen on these
samples, too, but they flatter all alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from quantcli.algorithms.effort import Effort
from quantcli.calibration.estimators import Method
from quantcli.pipeline.carry_out import Made, carry_out
from quantcli.pipeline.placement import SURE
from quantcli.pipeline.source import runnable
from quantcli.pipeline.trial_fidelity import TrialFidelity, trial_fidelity
from quantcli.pipeline.types import ConvertRequest
from quantcli.pipeline.workbench import Workbench, equalized
from quantcli.progress import Progress
from quantcli.runtime.session import Session, SessionSettings

CLEARLY_BETTER_DB = 0.3
"""What another strength of equalization must gain to take the place of the usual one."""


def best_of(bench: Workbench, request: ConvertRequest, effort: Effort, method: Method, progress: Progress) -> Made:
    """Plan and carry out every candidate of an effort, and keep the best.

    Raises:
        ModelError: M304, nothing can be quantized.
    """
    candidates = _candidates(bench, request, effort, method, progress)
    best = next(candidates)
    if not bench.judges:
        return best
    settings = SessionSettings(threads=request.run.threads)
    session = Session(bench.source.path, settings)
    expected = [session.run(sample) for sample in bench.judges]

    def judged(made: Made) -> TrialFidelity:
        with runnable(made.model) as loadable:
            return trial_fidelity(Session(loadable, settings), bench.judges, expected)

    reached = judged(best)
    for other in candidates:
        found = judged(other)
        gain, error = found.gain_over(reached)
        if gain > (0.0 if other.facts.samples == 0 else max(CLEARLY_BETTER_DB, SURE * error)):
            best, reached = other, found
    return best


def _candidates(
    bench: Workbench, request: ConvertRequest, effort: Effort, method: Method, progress: Progress
) -> Iterator[Made]:
    """In order of preference; with samples to round against, the last one is rounded to nearest all the same."""
    seen = set()
    for alpha in effort.alphas:
        balanced = equalized(bench, request, alpha, progress)
        if balanced.alpha in seen:
            continue
        seen.add(balanced.alpha)
        plan = replace(balanced.plan(request.recipe), equalization=balanced.alpha)
        yield carry_out(balanced, plan, request, effort, method, progress)
    if bench.samples:
        plain = replace(bench, samples=())
        yield carry_out(plain, plain.plan(request.recipe), request, effort, method, progress)

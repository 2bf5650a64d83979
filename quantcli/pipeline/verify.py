"""Before a quantized model appears under its name: it loads, it runs, and its kernels are counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from quantcli.errors import OutputError, RuntimeFailure
from quantcli.ops.targets import TARGETS
from quantcli.pipeline.source import FloatModel
from quantcli.quantize.plan import Plan
from quantcli.quantize.widths import integer_kernels
from quantcli.runtime.kernel_report import KernelReport
from quantcli.runtime.kernels import kernel_report
from quantcli.runtime.session import Session, SessionSettings


def verify(
    model: bytes | Path,
    source: FloatModel,
    plan: Plan,
    sample: Mapping[str, np.ndarray] | None,
    *,
    threads: int,
) -> KernelReport | None:
    """Check a quantized model.

    The report on its kernels is None for a target that onnxruntime's CPU provider does not stand for.

    Args:
        model: The result.
        source: What it was made of.
        plan: What it is meant to be.
        sample: One complete feed, None where there is none; the model is then loaded, but not run.
        threads: Intra-op threads.

    Raises:
        OutputError: O301, the result does not load, run or keep its interface.
    """
    settings = SessionSettings(threads=threads)
    with must_hold():
        session = Session(model, settings)
        if sample is not None:
            check_values(session.run(sample), Session(source.path, settings).run(sample))
    check_outputs(session.output_names, source)
    target = TARGETS[plan.target]
    if target.runtime:
        return None
    return kernel_report(model, integer_kernels(plan), replace(settings, config=target.session))


@contextmanager
def must_hold() -> Iterator[None]:
    """What the runtime refuses inside is a result that does not hold.

    Raises:
        OutputError: O301.
    """
    try:
        yield
    except RuntimeFailure as error:
        raise OutputError(
            "O301",
            f"the quantized model does not hold, and was not written: {error.message}",
            hint="please report it with the model; --exclude of the node named above is a way round",
        ) from error


def check_outputs(stated: Sequence[str], source: FloatModel) -> None:
    """Refuse a result with other outputs than its source.

    Raises:
        OutputError: O301.
    """
    if list(stated) != list(source.view.outputs):
        raise OutputError(
            "O301", f"the quantized model has outputs {sorted(stated)}, not {sorted(source.view.outputs)}"
        )


def check_values(found: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> None:
    """Refuse a result with other shapes than the float model's, or with NaN or Inf that this does not have.

    Raises:
        OutputError: O301.
    """
    for name, values in found.items():
        expected = reference[name]
        if np.shape(values) != np.shape(expected):
            raise OutputError(
                "O301",
                f"output '{name}' of the quantized model has shape {np.shape(values)}, not {np.shape(expected)}; "
                "it was not written",
                hint="please report it with the model",
            )
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
            continue
        broken = ~np.isfinite(values)
        if broken.any() and np.isfinite(expected).all():
            raise OutputError(
                "O301",
                f"output '{name}' of the quantized model has {int(broken.sum())} values that are NaN or Inf; "
                "the float model has none. It was not written",
                hint="please report it with the model",
            )

"""Every form and width of quantcli side by side: fidelity, size and speed of each, on every model.

Made by the command line in a process of its own, on the calibration samples where the form takes any; compared
with the float model over all evaluation samples (measure.py, written apart from quantcli); then all forms of a
model are timed in turn, in one process, on one thread. For models that predict the next token (labels [N,
positions]) the perplexity is measured, exp of the mean negative log-likelihood; for streaming models (``states``
in conditions.toml) the SQNR over the whole sequence, with each model going on from its own states.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
from makers import QUANTCLI, Maker, make
from measure import Latency, Quality, latency, quality
from models import Case, all_cases, feeds
from sessions import input_dtypes, open_session
from table import conditions, head, line, number, print_and_keep, rewrite

PART = "forms"

COLUMNS = (
    *("model", "form", "SQNR, dB", "over the sequence", "cosine", "agreement", "top-1 drop", "perplexity"),
    *("size / float", "time / float"),
)


@dataclass(frozen=True, kw_only=True)
class Form:
    """A way to convert.

    Attributes:
        name: As the table says it.
        options: Of ``quantcli convert``.
        data: Whether calibration samples are given.
    """

    name: str
    options: tuple[str, ...]
    data: bool = True


FORMS = (
    Form(name="static int8", options=()),
    Form(name="static W4A8", options=("--weight-bits", "4")),
    Form(name="static W8A16", options=("--activation-bits", "16")),
    Form(name="static fp8", options=("--bits", "fp8")),
    Form(name="dynamic int8", options=("--dynamic", "--dynamic-lstm"), data=False),
    Form(name="dynamic int8, samples", options=("--dynamic", "--dynamic-lstm")),
    Form(name="weight-only int8", options=("--weight-only", "--bits", "8"), data=False),
    Form(
        name="weight-only int4 block 32",
        options=("--weight-only", "--bits", "4", "--granularity", "block:32"),
        data=False,
    ),
    Form(
        name="weight-only int4 block 32, samples",
        options=("--weight-only", "--bits", "4", "--granularity", "block:32"),
    ),
    Form(
        name="weight-only int4 block 128, samples",
        options=("--weight-only", "--bits", "4", "--granularity", "block:128"),
    ),
    Form(name="fp16", options=("--bits", "fp16"), data=False),
    Form(name="bf16", options=("--bits", "bf16"), data=False),
)


@dataclass(kw_only=True)
class Found:
    """What was found for one model.

    Attributes:
        case: The model.
        float_perplexity: Of the float model; None where it predicts no tokens.
        errors: Why there is no model of a form.
        quality: By form.
        perplexity: By form.
        streamed: SQNR in dB over the whole sequence, by form.
        sizes: Relative to float, by form.
        latency: All in turn.
    """

    case: Case
    float_perplexity: float | None = None
    errors: dict[str, str] = field(default_factory=dict)
    quality: dict[str, Quality] = field(default_factory=dict)
    perplexity: dict[str, float | None] = field(default_factory=dict)
    streamed: dict[str, float | None] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)
    latency: Latency | None = None


def maker_of(form: Form) -> Maker:
    """The command for a form."""

    def command(case: Case, output: Path) -> list[str]:
        data = ["--data", str(case.calib)] if form.data else []
        mask = ["--mask", case.mask] if form.data and case.mask else []
        start = [sys.executable, "-m", "quantcli", "convert", str(case.model), *data, *mask]
        return [*start, *form.options, "-o", str(output), "-q", "-f"]

    return Maker(name=form.name, tool=QUANTCLI, version=importlib.metadata.version("quantcli"), command=command)


def measured(case: Case, forms: list[Form], folder: Path, arguments: argparse.Namespace) -> Found:
    """Every form of one model."""
    found = Found(case=case, float_perplexity=perplexity(case, case.model))
    files = {"float": case.model}
    for form in forms:
        made = make(maker_of(form), case, folder, patience=arguments.patience, reuse=arguments.reuse)
        if made.path is None:
            found.errors[form.name] = (made.error or "no model").splitlines()[0]
            continue
        files[form.name] = made.path
        found.quality[form.name] = quality(case, made.path)
        found.perplexity[form.name] = perplexity(case, made.path)
        found.streamed[form.name] = over_the_sequence(case, made.path)
        found.sizes[form.name] = bytes_of(made.path) / bytes_of(case.model)
    if len(files) > 1:
        found.latency = latency(files, case, arguments.seconds * len(files))
    return found


def bytes_of(model: Path) -> int:
    """Bytes of a model and of the files beside it that are called after it."""
    return sum(file.stat().st_size for file in model.parent.glob(f"{model.name}*") if file.is_file())


def perplexity(case: Case, model: Path) -> float | None:
    """exp(mean −log p(next token)); None for a model that predicts none, or without labels at every position."""
    if case.labels is None:
        return None
    labels = np.load(case.labels) if case.labels.suffix == ".npy" else None
    if labels is None or labels.ndim != 2:
        return None
    session = open_session(model)
    total, count = 0.0, 0
    for row, feed in enumerate(feeds(case.eval, case.complete, input_dtypes(session))):
        logits = session.run(None, feed)[0][0].astype(np.float64)
        wanted = labels[row]
        known = wanted >= 0
        top = logits.max(axis=-1, keepdims=True)
        logs = logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))
        total -= float(logs[known, wanted[known]].sum())
        count += int(known.sum())
    return math.exp(total / count)


def over_the_sequence(case: Case, model: Path) -> float | None:
    """SQNR in dB of the judged output over all evaluation samples as one sequence, states fed back."""
    if not case.states:
        return None
    sessions = [open_session(path) for path in (case.model, model)]
    names = [value.name for value in sessions[0].get_outputs()]
    judged = case.output or next(name for name in names if name not in case.states)
    states: list[dict[str, np.ndarray]] = [{}, {}]
    signal = noise = 0.0
    for feed in feeds(case.eval, case.complete, input_dtypes(sessions[0])):
        values = []
        for index, session in enumerate(sessions):
            outputs = dict(zip(names, session.run(names, {**feed, **states[index]}), strict=True))
            states[index] = {name: outputs[output] for output, name in case.states.items()}
            values.append(outputs[judged].astype(np.float64).reshape(-1))
        signal += float(values[0] @ values[0])
        noise += float((values[0] - values[1]) @ (values[0] - values[1]))
    return math.inf if noise == 0 else 10 * math.log10(signal / noise)


def rows(found: Found, forms: list[Form]) -> Iterator[str]:
    """A line for every form that there is a model of."""
    for form in forms:
        if form.name not in found.quality:
            continue
        of, size = found.quality[form.name], found.sizes[form.name]
        perplexed, before = found.perplexity[form.name], found.float_perplexity
        worse = None if perplexed is None or before is None else 100 * (perplexed / before - 1)
        ratio = None if found.latency is None else found.latency.ratios[form.name, "float"]
        yield line(
            [
                found.case.name,
                form.name,
                f"{of.judged:.2f}",
                number(found.streamed[form.name], ".2f"),
                f"{of.cosine:.4f}",
                number(of.agreement, ".4f"),
                number(of.drop, "+.2f"),
                "–" if worse is None else f"{perplexed:.3f} ({worse:+.2f} %)",
                f"{size:.3f}",
                number(ratio, ".3f"),
            ]
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="directory of real models with an INDEX.json")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="such models only; repeatable")
    parser.add_argument("--form", action="append", default=[], metavar="NAME", help="such forms only; repeatable")
    parser.add_argument("--seconds", type=float, default=1.0, help="timing of each model, about [1]")
    parser.add_argument(
        "--patience", type=float, default=900, metavar="SECONDS", help="end what takes longer [900]"
    )
    parser.add_argument("--work", type=Path, help="keep the models and prepared samples there")
    parser.add_argument("--reuse", action="store_true", help="take models from --work where they are there")
    parser.add_argument("--write", type=Path, metavar="DOC", help=f"write the table between the comments '{PART}'")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    ort.set_default_logger_severity(4)
    forms = [form for form in FORMS if not arguments.form or form.name in arguments.form]
    kept: list[str] = []
    say = print_and_keep(kept)
    refused: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        cases, remarks = all_cases(arguments.models, folder, tuple(arguments.only))
        print("\n".join([*remarks, ""]))
        versions = {name: importlib.metadata.version(name) for name in ("quantcli", "onnxruntime")}
        say(f"{conditions(versions)}\n")
        for text in head(COLUMNS):
            say(text)
        for case in cases:
            found = measured(case, forms, folder, arguments)
            for text in rows(found, forms):
                say(text)
            refused += [f"* {case.name}, {form}: {error}" for form, error in found.errors.items()]
    if refused:
        say("\nNo model of these forms:\n")
        for text in refused:
            say(text)
    if arguments.write:
        rewrite(arguments.write, PART, "\n".join(kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())

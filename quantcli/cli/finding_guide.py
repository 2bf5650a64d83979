"""What the words of a report mean: findings about layers, causes of sensitivity, exit codes.

``quantcli explain finding:NAME``, ``cause:NAME`` and ``exit:CODE`` are made from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantcli.errors import (
    EXIT_BUG,
    EXIT_FAILURE,
    EXIT_GATE_FAILED,
    EXIT_INPUT,
    EXIT_OK,
    EXIT_SIGINT,
    EXIT_SIGTERM,
    EXIT_USAGE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """One word of a report.

    Attributes:
        sentence: What it means.
        sign: How it shows in the figures.
        remedy: What to do about it.
    """

    sentence: str
    sign: str
    remedy: str


FINDINGS: Mapping[str, Meaning] = {
    "scale": Meaning(
        sentence="The scale of a tensor or weight is not that of its integers: everything is too large or too "
        "small by one factor.",
        sign="The quantized values are proportional to the original's, with a factor that is not 1; cosine "
        "similarity hardly notices.",
        remedy="Find what changed the scale after calibration (another tool, an edit, a merge of files) and "
        "convert again; a scale is never right by accident.",
    ),
    "zero_point": Meaning(
        sentence="The zero point is off: all values are shifted by a whole number of steps.",
        sign="The mean of the local error is a whole number of steps, and its spread is that of rounding.",
        remedy="Check where signed and unsigned types were mixed (a shift by 128 is typical), and convert again.",
    ),
    "channels": Meaning(
        sentence="Channels are interchanged, or their scales belong to others.",
        sign="Single channels do not match the original's, but match another channel.",
        remedy="Check axis and order of the scales of each channel, and whatever reordered the weights.",
    ),
    "bias": Meaning(
        sentence="The bias is missing, is another one, or was quantized with a wrong scale.",
        sign="The local error has a mean that is constant over the samples, different from channel to channel.",
        remedy="The bias is int32 with the scale of the input times that of the weight and zero point 0; "
        "convert again, or correct it with samples (--effort balanced).",
    ),
    "clipping": Meaning(
        sentence="The range is too small: values outside it are cut off.",
        sign="The share of values outside the range is larger than the range method means, and the error is "
        "largest for the largest values.",
        remedy="Calibrate on samples like those of use, or take a method that covers more: --method minmax.",
    ),
    "resolution": Meaning(
        sentence="The range is far larger than the values: most of the 256 levels are never used.",
        sign="Little of the range is used, and RMSE over scale is that of rounding (0.289), but the scale is "
        "coarse.",
        remedy="Take a method that gives up rare large values (capped, percentile), or leave the tensor in "
        "float: --exclude tensor:NAME.",
    ),
    "weight": Meaning(
        sentence="A weight differs by more than rounding explains.",
        sign="SQNR of the weight is far below that of its type, or single values are whole steps off.",
        remedy="If it was not changed on purpose (balanced channels, rounding against data), convert again; "
        "otherwise exclude the layer.",
    ),
    "nonfinite": Meaning(
        sentence="NaN or infinite values appear that the original does not have, or vanish.",
        sign="Counts of such values differ between the models.",
        remedy="Look at the first layer that is named: a scale of 0, a division by what was rounded to 0, or an "
        "overflow of half precision.",
    ),
    "other": Meaning(
        sentence="The layer's own error is larger than quantization explains, and none of the known patterns "
        "fits.",
        sign="The local SQNR is far below what the scales of the layer's tensors allow.",
        remedy="Compare the layer in both models by eye (quantcli inspect), convert again, or leave it in float.",
    ),
}
"""Findings of ``report.tensors.Finding``."""

CAUSES: Mapping[str, Meaning] = {
    "outlier channels": Meaning(
        sentence="A few channels are much larger than the others and set the scale for all of them.",
        sign="The extremes of the channels differ by a large factor, and most channels use few of the levels.",
        remedy="Scales for each channel (--granularity channel), balanced channels (--effort balanced), or the "
        "layer in float.",
    ),
    "clipping": Meaning(
        sentence="Values outside the chosen range are cut off, and the outputs depend on them.",
        sign="A share of the values lies outside the range, and their part of the error is the larger one.",
        remedy="A method that covers more (--method minmax), or more samples for calibration.",
    ),
    "rounding": Meaning(
        sentence="The steps between neighbouring levels are too coarse for what the layer does.",
        sign="The error is that of rounding (RMSE over scale 0.289), spread over all values.",
        remedy="A method with finer steps (--method mse or percentile), or the layer in float: no range makes "
        "256 levels enough here.",
    ),
    "weights": Meaning(
        sentence="Most of the error comes from the rounded weights.",
        sign="The part of the noise that weights make is larger than that of the activations.",
        remedy="Scales for each channel, 8 instead of 4 bits, or rounding against the data (--effort balanced).",
    ),
    "bias": Meaning(
        sentence="The error has a mean: quantization shifts the outputs of the layer.",
        sign="The mean of the error is a large part of its RMS.",
        remedy="Bias correction, which --effort balanced and max do with samples (--data).",
    ),
}
"""Causes of ``report.analysis.Cause``."""

EXITS: Mapping[int, Meaning] = {
    EXIT_OK: Meaning(
        sentence="Done, and no gate failed.",
        sign="An undecided gate passes by default, with a note; with --exit-zero a failed one passes as well.",
        remedy="Nothing to do; --undecided fail is stricter.",
    ),
    EXIT_GATE_FAILED: Meaning(
        sentence="A gate failed, or is undecided where --undecided fail was given; nothing else gives this code.",
        sign="The model and all reports were written; the verdict on the first line says how many gates failed.",
        remedy="Read the failed gates, and what compare -v and analyze say of the layers; or change the gate.",
    ),
    EXIT_USAGE: Meaning(
        sentence="Usage or configuration: an option, gate, selector, recipe or plan is wrong.",
        sign="An error of the families U, C or G on standard error; nothing was run or written.",
        remedy="Follow the hint; quantcli explain CODE says more.",
    ),
    EXIT_INPUT: Meaning(
        sentence="Input: a model, samples, labels or a calibration cannot be read, do not fit, or are not "
        "supported.",
        sign="An error of the families M, D, K or G on standard error; no output was written.",
        remedy="Follow the hint; quantcli inspect FILE shows what is in a file.",
    ),
    EXIT_FAILURE: Meaning(
        sentence="Run time or output: the runtime failed, memory or disk ran out, or a file exists and -f was "
        "not given.",
        sign="An error of the families R or O on standard error; outputs are whole or not there.",
        remedy="Follow the hint; the same command may work on another machine or a second time.",
    ),
    EXIT_BUG: Meaning(
        sentence="A bug of quantcli.",
        sign="error[B100] on standard error, with a traceback where -v was given.",
        remedy="Report the traceback with the output of quantcli --version.",
    ),
    EXIT_SIGINT: Meaning(
        sentence="Interrupted (Ctrl-C).",
        sign="Temporary files are removed, finished outputs stay.",
        remedy="Run it again; tune goes on where it stopped.",
    ),
    EXIT_SIGTERM: Meaning(
        sentence="Terminated by a signal, 128 + its number: 143 is SIGTERM, 129 a hang-up, 141 a closed pipe, "
        "139 and 134 a crash of onnxruntime itself.",
        sign="Temporary files are removed, finished outputs stay.",
        remedy="Look at the time limit or memory limit of the job that ran it.",
    ),
}
"""Exit code → what it means."""

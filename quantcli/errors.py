"""Errors with stable codes and exit codes, as data.

Every error a user can meet has a code. ``ERROR_CODES`` says what each one means, and
``quantcli explain CODE`` and the docs are made from it. This module imports nothing of quantcli.

Exit codes: 0 done · 1 only when a gate failed · 2 usage or configuration · 3 input (model, data,
calibration) · 4 run time or output · 70 a bug of ours · 130/143 interrupted.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_GATE_FAILED = 1
EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_FAILURE = 4
EXIT_BUG = 70
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


class QuantcliError(Exception):
    """An error that is the user's to know: what, why, and what to do.

    Attributes:
        code: Stable code, a key of ``ERROR_CODES``.
        message: What happened and why, one sentence, lower case, names quoted.
        hint: What to do about it, or None.
    """

    exit_code = EXIT_BUG

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        if code not in ERROR_CODES:
            raise KeyError(f"error code {code!r} is not in ERROR_CODES")
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class UsageError(QuantcliError):
    """The command line asks for something that cannot be."""

    exit_code = EXIT_USAGE


class ConfigError(QuantcliError):
    """A recipe, plan or configuration file is wrong."""

    exit_code = EXIT_USAGE


class ModelError(QuantcliError):
    """A model is unreadable or invalid."""

    exit_code = EXIT_INPUT


class UnsupportedModelError(ModelError):
    """A model is valid, but uses something that quantcli cannot preserve."""


class DataError(QuantcliError):
    """Samples or labels are unreadable, empty, or do not match the model."""

    exit_code = EXIT_INPUT


class StaleCalibrationError(QuantcliError):
    """A calibration file belongs to another model or is not readable."""

    exit_code = EXIT_INPUT


class RuntimeFailure(QuantcliError):
    """onnxruntime failed while it loaded or ran a model."""

    exit_code = EXIT_FAILURE


class OutputError(QuantcliError):
    """A file could not be written, or the written model does not hold."""

    exit_code = EXIT_FAILURE


ERROR_CODES: dict[str, str] = {
    # U: usage ---------------------------------------------------------------------------------
    "U100": "The command line does not parse: an unknown command or option, a missing argument, a value "
    "of the wrong kind.",
    "U101": "Something that the command needs was not given.",
    "U102": "A value is not available in this release.",
    "U103": "The name of a report does not end in .json, .md, .html or .xml, so its form is not known.",
    "U104": "There is no such topic to explain.",
    "U105": "Options exclude each other, or one has no effect without another.",
    "U106": "Two outputs of one command have the same name.",
    "U107": "No gate says what fidelity or accuracy tuning has to reach.",
    "U108": "The model has no input of the name that --mask gives.",
    "U109": "A pair of --state does not parse, or does not fit the model.",
    "U120": "An HTML report needs packages that are not installed: those of the extra, quantcli[html].",
    "U201": "Static quantization needs either a calibration file or samples.",
    "U202": "There is no such output format.",
    "U203": "The installed onnxruntime does not have the execution provider that was asked for.",
    # B: bugs ------------------------------------------------------------------------------------
    "B100": "An internal error of quantcli. It is a bug, whatever the input was: run the command again with -v "
    "and report the traceback.",
    # C: configuration, recipes, plans -----------------------------------------------------------
    "C101": "A selector of nodes or tensors matches nothing in the model.",
    "C102": "A selector is not a valid regular expression.",
    "C103": "The file is no plan of quantcli, or of another version.",
    "C104": "The plan was made for another model.",
    "C105": "The plan quantizes a tensor that calibration did not observe.",
    "C106": "A recipe file cannot be read, or is no TOML.",
    "C107": "A recipe file has a key that does not exist.",
    "C108": "A value in a recipe file is of the wrong kind.",
    "C109": "The file is no state of a tuning run, or was damaged.",
    "C201": "A configuration file does not exist, cannot be read, or is no TOML.",
    "C202": "A configuration file has a key that does not exist.",
    "C203": "A value in a configuration file is of the wrong kind.",
    "C204": "A configuration lacks something: it has no models, a model has no path or no samples, a glob finds "
    "no file, a gate has no limit.",
    "C205": "Two models of a configuration have the same name, or write the same file.",
    "C206": "A name of a file in a configuration has an unknown placeholder; there are {name}, {stem} and "
    "{folder}.",
    "C207": "The configuration has no model of the name that --only gives.",
    "C208": "The record of a run (quantcli.lock) is damaged, or of another version.",
    "C210": "Several things are wrong with a configuration; all of them are listed.",
    # M: models ----------------------------------------------------------------------------------
    "M101": "The model file cannot be read, or is not an ONNX model.",
    "M102": "The model is not valid ONNX: a value without a producer, a name defined twice, a cycle, no nodes.",
    "M103": "A file with external data is missing, too short, or cannot be read.",
    "M104": "External data lies outside the model's directory, or behind a link that leads out of it.",
    "M105": "The model's IR version or ai.onnx opset is outside the range that is supported.",
    "M106": "The model does not fit into one protobuf message (2 GiB).",
    "M107": "Nodes have no names of their own where names are needed.",
    "M201": "The model carries training information, which would be lost.",
    "M202": "The model has sparse initializers or sparse attributes, which would be lost.",
    "M203": "The model uses map types, which cannot be preserved.",
    "M204": "The model has something that cannot be represented in memory without loss.",
    "M210": "The model's opset cannot be raised, because an operator has no exact form in the newer one.",
    "M301": "A weight or bias of a layer to be quantized has NaN or infinite values.",
    "M302": "onnxruntime refuses to load the float model, so it can be neither calibrated nor compared.",
    "M303": "The wanted opset is below the model's, or has no quantized operators.",
    "M304": "Nothing in the model can be quantized.",
    # D: data ------------------------------------------------------------------------------------
    "D101": "A data specification does not parse; its form is [NAME=]PATH[?option=value&...], with "
    "FILE.py:FUNCTION, MODULE:FUNCTION or random:COUNT in the place of PATH.",
    "D102": "An option of a data specification is unknown, has a wrong value, or does not apply to this kind "
    "of data.",
    "D103": "A file or directory of samples does not exist, cannot be read, or is of no kind that quantcli reads.",
    "D104": "A file of samples is damaged, changed while it was read, or is not what its name says.",
    "D105": "An array holds Python objects or records. quantcli never unpickles: a pickle can run any code.",
    "D106": "The data holds no samples.",
    "D107": "The samples do not fit the inputs of the model: names, types, ranks, dimensions or counts differ.",
    "D108": "A sample holds NaN or Inf.",
    "D109": "A Python function of the user's (samples, a metric, a decoder) cannot be loaded, or failed.",
    "D110": "Random samples cannot be made for an input, for example because its shape is not known.",
    "D111": "An image cannot be read, or images are given and Pillow is not installed.",
    "D112": "Several things are wrong with the data; all of them are listed.",
    "D113": "A state that is fed back changes its shape, so the model cannot take it.",
    "D121": "The labels cannot be read, or their number is not that of the samples.",
    # K: calibration files -----------------------------------------------------------------------
    "K101": "An activation became NaN, or an input or output Inf or NaN, while calibration ran the model.",
    "K102": "A range method is unknown, or its parameter does not parse or is out of range; the form is "
    "NAME[:PARAMETER], for example 'percentile:99.99'.",
    "K201": "A calibration belongs to another model.",
    "K202": "The file is no calibration file, or cannot be read.",
    "K203": "A calibration file is damaged: truncated, changed, or inconsistent.",
    "K204": "A calibration file was written by a newer version of quantcli.",
    "K205": "Calibrations look at different tensors and cannot be merged.",
    "K206": "The same samples are in two calibrations that are to be merged.",
    # G: gates and comparison --------------------------------------------------------------------
    "G101": "A gate names a metric that does not exist.",
    "G102": "A gate does not parse; its form is [OUTPUT.]METRIC OP LIMIT[UNIT][:warn] with OP one of "
    ">= <= > < ==, for example 'logits.cosine>=0.999' or 'accuracy_drop<=1pp:warn'.",
    "G103": "The limit of a gate is outside what its metric can be, so the gate would always or never pass.",
    "G104": "A gate needs a measurement that was not asked for: samples, labels or timing.",
    "G105": "Accuracy was asked for on made-up samples, where it means nothing.",
    "G106": "A gate or an option names an output that the model does not have.",
    "G111": "Several gates or allowed regressions are wrong; all of them are listed.",
    "G112": "An allowed regression does not parse; its form is [OUTPUT.]METRIC=AMOUNT[UNIT][:warn] or METRIC=off, "
    "for example 'sqnr=1dB' or 'accuracy=0.5pp:warn'.",
    "G201": "The two models do not have the same inputs, so they cannot be compared on the same samples.",
    "G202": "The outputs of the two models cannot be matched, or none of them can be compared.",
    "G107": "A task does not parse; its form is NAME?option=value&..., for example "
    "'segmentation?truth=maps.npy' or 'detection?truth=boxes.npy&boxes=xyxy'.",
    "G108": "A metric of one's own, or the range of an output, does not parse; the forms are "
    "[NAME=]FILE.py:FUNCTION or [NAME=]MODULE:FUNCTION, and [OUTPUT=]LENGTH or [OUTPUT=]LOW:HIGH.",
    "G109": "The truth of a task cannot be read, or does not fit the model's outputs or samples.",
    "G110": "A metric of one's own, or a decoder, gave something that cannot be used.",
    "G203": "The labels fit no output of the model, or hold classes that the output does not have.",
    "G204": "A timing needs more repetitions.",
    "G301": "The file is not a quantcli report, or is one of another schema version.",
    "G302": "Nothing in the baseline can be held against the comparison: it is about another model, or measured "
    "something else.",
    "G303": "A regression is allowed of something that the baseline or the new report did not measure.",
    # R: run time --------------------------------------------------------------------------------
    "R101": "onnxruntime refuses to load the model.",
    "R102": "onnxruntime loaded the model, but running it failed.",
    "R103": "The memory of a process that runs a model could not be measured.",
    "R190": "The memory did not suffice.",
    "R191": "A package that quantcli needs cannot be imported: its installation is damaged or incomplete.",
    # O: output ----------------------------------------------------------------------------------
    "O101": "The output exists already, and -f was not given.",
    "O102": "The output would overwrite a file that the model was read from.",
    "O103": "A file could not be written: no such directory, no permission, no room.",
    "O301": "The quantized model does not load, does not run, or gives values that are not finite; it was not "
    "written.",
}

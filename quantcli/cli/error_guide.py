"""What usually stands behind an error of usage, configuration, gates, run time or output, and what to do.

``quantcli explain CODE`` adds this to the sentence of ``ERROR_CODES``; codes about input are in ``input_guide``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantcli.errors import EXIT_BUG, EXIT_FAILURE, EXIT_INPUT, EXIT_USAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to say of an error besides its meaning.

    Attributes:
        cause: What usually stands behind it.
        remedy: What to do about it.
    """

    cause: str
    remedy: str


_BY_FAMILY = {
    "U": EXIT_USAGE,
    "C": EXIT_USAGE,
    "G": EXIT_USAGE,
    "M": EXIT_INPUT,
    "D": EXIT_INPUT,
    "K": EXIT_INPUT,
    "R": EXIT_FAILURE,
    "O": EXIT_FAILURE,
    "B": EXIT_BUG,
}

_EXCEPTIONS = {
    "D101": EXIT_USAGE,
    "D102": EXIT_USAGE,
    "K102": EXIT_USAGE,
    "G201": EXIT_INPUT,
    "G202": EXIT_INPUT,
    "G203": EXIT_INPUT,
    "G109": EXIT_INPUT,
    "G110": EXIT_INPUT,
    "G301": EXIT_INPUT,
}


def exit_code_of_error(code: str) -> int:
    """The exit code of a command that ends with the error ``code``."""
    return _EXCEPTIONS.get(code, _BY_FAMILY[code[0]])


ADVICE: Mapping[str, Advice] = {
    # U: usage ---------------------------------------------------------------------------------
    "U100": Advice(
        cause="A misspelt option, a value that the shell split because it is not in quotes, or an option of "
        "another command; it may also come from a variable QUANTCLI_<COMMAND>_<OPTION>, which is then named.",
        remedy="Take the name that the hint suggests, or look at quantcli COMMAND --help; put gates and globs "
        "in single quotes.",
    ),
    "U101": Advice(
        cause="An option asks for something that rests on another one: a target of accuracy on labels, a search "
        "on samples.",
        remedy="Add the option that the hint names.",
    ),
    "U102": Advice(
        cause="The value belongs to a newer release, or to something that was planned and is not there.",
        remedy="Leave the option out, or take one of the values that the hint names; quantcli --version tells "
        "which release this is.",
    ),
    "U103": Advice(
        cause="The form of a report follows from the ending of its name, and this ending stands for none.",
        remedy="Give the file one of the endings that the hint names.",
    ),
    "U104": Advice(
        cause="A misspelt code or name.",
        remedy="quantcli explain lists everything that there is; a prefix such as op: or gate: narrows it down.",
    ),
    "U105": Advice(
        cause="An option was left over from another call, or two options answer the same question.",
        remedy="Leave out the one that is not meant; the message names them.",
    ),
    "U106": Advice(
        cause="The output, the plan or two reports were given one name.",
        remedy="Give every output a name of its own.",
    ),
    "U107": Advice(
        cause="Tuning orders tensors by what they do to outputs, so it needs to know what is good enough there; "
        "gates on size, time or counts do not say that.",
        remedy="Add a gate on fidelity or accuracy: --gate 'sqnr>=22' or --gate 'accuracy_drop<=1pp'.",
    ),
    "U108": Advice(
        cause="The name of the input is misspelt, or the export renamed it.",
        remedy="quantcli inspect MODEL lists the inputs.",
    ),
    "U109": Advice(
        cause="A state goes back as it is: the output of one step is the input of the next, so name, type and "
        "shape have to fit.",
        remedy="quantcli inspect MODEL lists inputs and outputs; write --state OUTPUT=INPUT, once for each state.",
    ),
    "U120": Advice(
        cause="The templates and charts of HTML reports are packages of their own, which not everybody needs.",
        remedy="pip install 'quantcli[html]'; or write the report as .json now, and render it elsewhere with "
        "quantcli report.",
    ),
    "U201": Advice(
        cause="Ranges of activations can only be known from samples.",
        remedy="Add --data calib.npz, or --calibration MODEL.calib; --dry-run needs neither.",
    ),
    "U202": Advice(
        cause="A misspelt format.",
        remedy="Write --format qdq, or --format qoperator.",
    ),
    "U203": Advice(
        cause="The installed package of onnxruntime was built without it: onnxruntime-gpu has CUDA, the plain "
        "one only the CPU.",
        remedy="Install the package that has it, or leave --provider out; the hint lists what there is.",
    ),
    # B: bugs ------------------------------------------------------------------------------------
    "B100": Advice(
        cause="Something happened that quantcli does not foresee; the input may be unusual, but the error is "
        "ours.",
        remedy="Run it again with -v and report the traceback with the output of quantcli --version.",
    ),
    # C: configuration, recipes, plans -----------------------------------------------------------
    "C101": Advice(
        cause="Names are those of the model file; a pattern that is meant for another version of the model, or "
        "a glob that the shell expanded, hits nothing.",
        remedy="quantcli inspect MODEL -v lists the nodes; the hint has the nearest names. Quote globs.",
    ),
    "C102": Advice(
        cause="What follows re: is a regular expression of Python for the whole name; dots and brackets of "
        "names need a backslash.",
        remedy="Correct the place that the message points at, or use a glob.",
    ),
    "C103": Advice(
        cause="Another JSON file, an edited plan, or one of an older quantcli.",
        remedy="Make it again: quantcli convert MODEL --dry-run --plan-out plan.json.",
    ),
    "C104": Advice(
        cause="A plan holds the digest of its model, and the model file has changed since, if only by an export.",
        remedy="Make the plan again for this model.",
    ),
    "C105": Advice(
        cause="The calibration was made for another target or with an older quantcli, or the plan was edited by "
        "hand.",
        remedy="Calibrate for the same target, or leave --plan out.",
    ),
    "C106": Advice(
        cause="The path is wrong, or a line is no TOML: a missing quote, a backslash in a double-quoted string.",
        remedy="Mend the line that the message names; paths and patterns are best in single quotes.",
    ),
    "C107": Advice(
        cause="A misspelt key, one in the wrong section, or one of a newer quantcli.",
        remedy="Take the name that the hint suggests. Unknown keys are refused, so that no setting is lost.",
    ),
    "C108": Advice(
        cause="A number in quotes, or one value where a list is wanted.",
        remedy="Write what the message asks for, on the line that it names.",
    ),
    "C109": Advice(
        cause="The file was cut off or edited, or --state-file names another file.",
        remedy="Delete it to measure anew, or name another one with --state-file.",
    ),
    "C201": Advice(
        cause="The path behind --config is wrong, or a line is no TOML: a missing quote, a backslash in a "
        "double-quoted string.",
        remedy="Mend the line that the message names; quantcli init writes a file to start from.",
    ),
    "C202": Advice(
        cause="A misspelt key, or one in the wrong section.",
        remedy="Take the name that the hint suggests; docs/config.md lists all keys. Unknown keys are refused, "
        "so that no setting is lost.",
    ),
    "C203": Advice(
        cause="A number in quotes, one value where a list is wanted, or a limit without its operator.",
        remedy="Write what the message asks for, on the line that it names.",
    ),
    "C204": Advice(
        cause="An empty list of models, a glob for files that are not there yet, or a model without data.",
        remedy="Add what the message names; names of files count from the folder of the configuration.",
    ),
    "C205": Advice(
        cause="Two entries without {name} in the names of their outputs, or a glob and an entry that call "
        "models the same.",
        remedy="Give them different names, or write {name} into the names of files.",
    ),
    "C206": Advice(
        cause="Braces that are meant literally, or another word in them.",
        remedy="Write {name}, {stem} or {folder}.",
    ),
    "C207": Advice(
        cause="A misspelt name, or one that the glob of the configuration does not give.",
        remedy="quantcli run --dry-run lists the models.",
    ),
    "C208": Advice(
        cause="The file was merged by hand, cut off, or written by a newer quantcli.",
        remedy="Delete it: the next run makes everything again and writes a new one.",
    ),
    "C210": Advice(
        cause="Several keys or values are wrong; each has its own code, line and hint in the list.",
        remedy="Mend all of them; quantcli explain CODE says more about each.",
    ),
    # G: gates and comparison --------------------------------------------------------------------
    "G101": Advice(
        cause="A misspelt metric, or one of a task that is not measured here.",
        remedy="quantcli explain lists the metrics of gates.",
    ),
    "G102": Advice(
        cause="A missing quote (the shell takes > as a redirection), a sign such as =>, or a unit of another "
        "metric.",
        remedy="Write it in single quotes: 'sqnr>=25', 'logits.cosine>=0.999:warn'.",
    ),
    "G103": Advice(
        cause="A percentage without its sign: accuracy_drop<=1 means 100 percentage points.",
        remedy="Add the unit: accuracy_drop<=1pp, top1_agreement>=99%.",
    ),
    "G104": Advice(
        cause="The gate is about outputs, accuracy or time, and the command got no samples, labels or --latency.",
        remedy="Give what the message names, or leave the gate out.",
    ),
    "G105": Advice(
        cause="random: samples have no true classes, and a model's answers to noise say nothing about it.",
        remedy="Give real samples; made-up ones serve to try a pipeline out.",
    ),
    "G106": Advice(
        cause="A misspelt output, or a metric whose name was taken for an output because of a dot.",
        remedy="Take one of the names in the hint; they are those of the original model.",
    ),
    "G107": Advice(
        cause="A misspelt task or option, a missing truth, or & and ? that the shell took because of missing "
        "quotes.",
        remedy="quantcli explain task:detection (or another task) lists the options; put the whole in single "
        "quotes.",
    ),
    "G108": Advice(
        cause="A missing function behind the colon, or a range with its ends in the wrong order.",
        remedy="Write --metric 'name=file.py:function', and --output-range 'image=255' or '-1:1'.",
    ),
    "G109": Advice(
        cause="Truth of other samples, in another order or layout, or classes that the output does not have.",
        remedy="The truth has one entry per sample, in their order; the message says what was found and expected.",
    ),
    "G110": Advice(
        cause="The function gives something else than a number (or, as a decoder, boxes), NaN, or another "
        "number of values than there are samples.",
        remedy="Call the function on one sample in Python, and compare what it gives with what the message asks "
        "for.",
    ),
    "G111": Advice(
        cause="More than one of --gate and --allow-regression is wrong; each has its own code and hint in the "
        "list.",
        remedy="Mend all of them; quantcli explain CODE says more about each.",
    ),
    "G112": Advice(
        cause="A sign such as >= or a minus, or % where it could mean percentage points.",
        remedy="Write METRIC=AMOUNT: 'sqnr=1dB', 'accuracy=0.5pp', 'rmse=10%', 'float_nodes=off'.",
    ),
    "G201": Advice(
        cause="Another tool renamed inputs or changed their types or shapes, or the files are of two models.",
        remedy="Compare files with the same inputs; quantcli inspect A B shows both.",
    ),
    "G202": Advice(
        cause="The outputs have other names and other types or shapes, or none of them is a tensor of numbers.",
        remedy="Export both with the same outputs; outputs of other names are matched where types and shapes "
        "leave no doubt.",
    ),
    "G203": Advice(
        cause="Labels count from 1 instead of 0, belong to another data set, or have an axis that no output has.",
        remedy="Name the output with --labels-output, and give one class number per decision, from 0 on.",
    ),
    "G204": Advice(
        cause="The interval of a median needs at least six values for 95 %.",
        remedy="Raise --repeats.",
    ),
    "G301": Advice(
        cause="Another JSON file, an edited report, or one of a quantcli with another version of the schema.",
        remedy="Write it again: quantcli compare … --report report.json.",
    ),
    "G302": Advice(
        cause="The baseline is of another model, was made without samples, or everything in it was left out.",
        remedy="Give a report of the same model that was made with the same options.",
    ),
    "G303": Advice(
        cause="--allow-regression names a metric, so it is meant to be judged, but one of the reports was made "
        "without labels, samples or timing.",
        remedy="Measure it in both, or leave the option out: what is only in one report is then noted, no error.",
    ),
    # R: run time --------------------------------------------------------------------------------
    "R101": Advice(
        cause="An operator, type or opset that this onnxruntime does not have, or a custom operator whose "
        "library is not loaded.",
        remedy="Load the file with onnxruntime alone to see whether it is at fault; a newer onnxruntime knows "
        "newer opsets.",
    ),
    "R102": Advice(
        cause="A shape that the model does not really allow, an index out of range, or memory that ran out "
        "inside the runtime.",
        remedy="Try one sample, and the shapes that the model was exported with; -v shows the runtime's message.",
    ),
    "R103": Advice(
        cause="The process was stopped from outside (out of memory), or the system gives no figures of memory.",
        remedy="Leave the measurement of memory out, or try it on a machine with more memory.",
    ),
    "R190": Advice(
        cause="A large batch, many samples kept for rounding, or a model near the size of the memory.",
        remedy="Lower --batch-size and --max-memory, or use --effort fast.",
    ),
    "R191": Advice(
        cause="A package was removed or upgraded to a version that does not fit.",
        remedy="pip install --force-reinstall quantcli, best in an environment of its own.",
    ),
    # O: output ----------------------------------------------------------------------------------
    "O101": Advice(
        cause="The command ran before, and quantcli never replaces a file unasked.",
        remedy="Add -f, or choose another name.",
    ),
    "O102": Advice(
        cause="The output has the name of the model, its external data, the samples or the baseline.",
        remedy="Choose another name; a model is never changed in place.",
    ),
    "O103": Advice(
        cause="A folder that does not exist, missing permission, or a full disk; nothing half-written is left.",
        remedy="Create the folder, make room, or write elsewhere.",
    ),
    "O301": Advice(
        cause="A range that is far too small or large, weights that are not finite, or a form of graph that the "
        "runtime rejects after quantization.",
        remedy="Try another --method, exclude the node that the message names, and report the model if neither "
        "helps.",
    ),
}
"""Code → advice, for the families U, B, C, G, R and O."""

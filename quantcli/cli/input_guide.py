"""What usually stands behind an error about a model, samples or a calibration, and what to do."""

from __future__ import annotations

from collections.abc import Mapping

from quantcli.cli.error_guide import Advice

INPUT_ADVICE: Mapping[str, Advice] = {
    # M: models ----------------------------------------------------------------------------------
    "M101": Advice(
        cause="A path to something else (a checkpoint, a git-lfs pointer, a half download), or a folder.",
        remedy="Name the .onnx file; fetch the whole file where it is only a pointer.",
    ),
    "M102": Advice(
        cause="An export or an edit of the graph went wrong.",
        remedy="Run onnx.checker.check_model on it and export it again.",
    ),
    "M103": Advice(
        cause="The .onnx file was copied or renamed without the file of weights beside it.",
        remedy="Put all files of the model into one folder, under the names that they were saved with.",
    ),
    "M104": Advice(
        cause="A model can name any file as its weights; reading files outside its folder is refused, because "
        "the model may come from somebody else.",
        remedy="Put a copy of the file beside the model; links that lead out of the folder do not count.",
    ),
    "M105": Advice(
        cause="A very old model, or one that is newer than this quantcli.",
        remedy="Export it again with an opset in the range that the message names.",
    ),
    "M106": Advice(
        cause="A message of protobuf ends at 2 GiB.",
        remedy="Save the model with external data: onnx.save(model, path, save_as_external_data=True).",
    ),
    "M107": Advice(
        cause="Plans and selectors address nodes by name, and some have none, or share one.",
        remedy="Give the nodes names when exporting.",
    ),
    "M201": Advice(
        cause="The model was exported for training.",
        remedy="Export it for inference.",
    ),
    "M202": Advice(
        cause="A pruned or sparse model with sparse initializers.",
        remedy="Store the tensors densely; zeros compress well.",
    ),
    "M203": Advice(
        cause="Classifiers of scikit-learn end in a ZipMap by default.",
        remedy="Export without it: skl2onnx, options={'zipmap': False}.",
    ),
    "M204": Advice(
        cause="A rare part of ONNX: bytes that are no text in an attribute, an output that is an outer value of "
        "a body, and the like; the message names it.",
        remedy="Change that part as the hint says. What cannot be kept whole is refused, never dropped.",
    ),
    "M210": Advice(
        cause="An operator changed its meaning between opsets (Upsample, for example) and has no exact form in "
        "the newer one.",
        remedy="Export the model with a newer opset, or leave --opset and --weight-bits out.",
    ),
    "M301": Advice(
        cause="Training diverged, or weights in half precision overflowed.",
        remedy="Look at the float model first; exclude the layer if the values belong there.",
    ),
    "M302": Advice(
        cause="The float model is at fault before anything is quantized: an operator or opset that the "
        "installed onnxruntime does not have.",
        remedy="Load it with onnxruntime alone; install a newer one, or export with an older opset.",
    ),
    "M303": Advice(
        cause="--opset is lower than what the model has or than what quantized operators need (10; 13 per "
        "channel; 21 for int4).",
        remedy="Leave --opset out: it is raised only as far as needed.",
    ),
    "M304": Advice(
        cause="Everything was excluded, the model is quantized already, or it has no operator with a worthwhile "
        "integer kernel on the target.",
        remedy="quantcli inspect MODEL -v gives the reason of each node.",
    ),
    # D: data ------------------------------------------------------------------------------------
    "D101": Advice(
        cause="A colon or question mark in a path, a missing path, or none at all.",
        remedy="Write [NAME=]PATH[?option=value&...]; put it in quotes, because of ? and &.",
    ),
    "D102": Advice(
        cause="A misspelt option, or one about images given for arrays.",
        remedy="The hint lists what this kind of data takes.",
    ),
    "D103": Advice(
        cause="A wrong path or folder, or files of a kind that is not read.",
        remedy="Check the path; npz, npy, folders of them, ONNX test data, images and Python functions are read.",
    ),
    "D104": Advice(
        cause="A half download, a file that is still being written, or a wrong ending.",
        remedy="Copy or write the file again.",
    ),
    "D105": Advice(
        cause="numpy stores ragged lists and strings as Python objects.",
        remedy="Save plain arrays of numbers; samples of several shapes as one file each.",
    ),
    "D106": Advice(
        cause="An empty file or folder, an axis of length 0, or a function that yields nothing.",
        remedy="Check what wrote the data.",
    ),
    "D107": Advice(
        cause="Keys that are not the input names, another layout (NHWC), pixels not scaled to floats, a missing "
        "batch axis.",
        remedy="Compare the expected with the found in the message; --layout, --scale, --shape and NAME=PATH "
        "mend most cases.",
    ),
    "D108": Advice(
        cause="A division by zero in preprocessing, or markers such as −Inf for missing values.",
        remedy="Mend the preprocessing; samples have to be finite.",
    ),
    "D109": Advice(
        cause="An import that fails, a function that needs arguments, or an exception inside it.",
        remedy="Call the function in Python by itself; -v shows its traceback.",
    ),
    "D110": Advice(
        cause="A dimension that the model leaves open, or an input that holds text.",
        remedy="State the shape: --shape NAME=1x3x224x224; or give real samples.",
    ),
    "D111": Advice(
        cause="A broken or exotic image file, or an installation without Pillow.",
        remedy="pip install 'quantcli[images]'; open the file that the message names with an image viewer.",
    ),
    "D112": Advice(
        cause="Several files or inputs do not fit; each has its own code and hint in the list.",
        remedy="Mend all of them; quantcli explain CODE says more about each.",
    ),
    "D113": Advice(
        cause="The output grows from step to step (a cache of all steps so far), or sequences of several sizes "
        "follow each other.",
        remedy="Say where sequences end (--sequence-length), or give recorded states as data in place of --state.",
    ),
    "D121": Advice(
        cause="Labels of another data set, a header line in a CSV file, or labels of all samples for a part of "
        "them.",
        remedy="Give one label per sample, in the same order.",
    ),
    # K: calibration files -----------------------------------------------------------------------
    "K101": Advice(
        cause="The float model itself overflows on the sample (exp, division, square root), or the sample is "
        "out of its range.",
        remedy="Run the float model on the sample that the message names; --ignore-nonfinite leaves such values "
        "inside the model out of the statistics.",
    ),
    "K102": Advice(
        cause="A misspelt method, or a parameter outside its range (percentile:0.9999 instead of 99.99).",
        remedy="quantcli explain lists the methods; quantcli explain method:NAME says what the parameter means.",
    ),
    "K201": Advice(
        cause="The model file changed since it was calibrated, if only by another export or optimizer.",
        remedy="Calibrate again; the samples need not change.",
    ),
    "K202": Advice(
        cause="Another file, such as the samples themselves.",
        remedy="Name a file that quantcli calibrate wrote; samples belong to --data.",
    ),
    "K203": Advice(
        cause="A half copy, or a full disk while it was written.",
        remedy="Copy it again, or calibrate again.",
    ),
    "K204": Advice(
        cause="It was made on a machine with a newer quantcli.",
        remedy="Use that version here, or calibrate again.",
    ),
    "K205": Advice(
        cause="The parts were made with other versions or options.",
        remedy="Calibrate all parts with the same quantcli and options.",
    ),
    "K206": Advice(
        cause="One part was given twice, or the parts overlap; its samples would count twice.",
        remedy="Merge calibrations of different samples.",
    ),
}
"""Code → advice, for the families M, D and K."""

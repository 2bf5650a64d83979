"""Tensors in files of their own: the ``input_k.pb`` of ONNX test data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from quantcli.errors import DataError


def read_tensor(path: Path) -> tuple[str, np.ndarray]:
    """Read a serialised TensorProto.

    Returns:
        The name it carries ("" where it has none) and its values.

    Raises:
        DataError: D103, the file cannot be read; D104, it is no tensor of numbers or strings, or its values lie
            in another file.
    """
    proto = TensorProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except OSError as error:
        raise DataError("D103", f"'{path.name}' cannot be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise DataError(
            "D104",
            f"'{path.name}' holds no serialised tensor",
            hint="sequences, maps and optionals cannot be fed; give the inputs as .npz",
        ) from error
    if proto.data_location == TensorProto.EXTERNAL:
        raise DataError("D104", f"'{path.name}' keeps its values in another file, which is not read")
    try:
        array = numpy_helper.to_array(proto)
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(
            "D104",
            f"'{path.name}' holds no serialised tensor: {' '.join(str(error).split())}",
            hint="sequences, maps and optionals cannot be fed; give the inputs as .npz",
        ) from error
    if array.dtype == object:  # strings: numpy_helper gives Python objects
        array = np.array([str(item) for item in array.ravel()], dtype=np.str_).reshape(array.shape)
    return proto.name, array

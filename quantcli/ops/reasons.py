"""Why a node is where it is: codes and sentences.

Every node that stays in float carries one of these; ``quantcli explain CODE`` and the docs read this table.
"""

from __future__ import annotations

from dataclasses import dataclass

REASONS: dict[str, str] = {
    "F101": "You excluded the node (--exclude), or did not include it (--include).",
    "F102": "A tensor that the node reads or makes is left in float (--exclude tensor:NAME, or a target of "
    "fidelity that asks for it), and its integer kernel needs that tensor as integers.",
    "F201": "The operator has no integer kernel on the target; Q/DQ around it would only add work and noise.",
    "F202": "The target has an integer kernel for the operator, but it is slower than the float one.",
    "F203": "A grouped convolution with more than one channel per group: the integer kernel of onnxruntime "
    "takes about three times as long as the float one.",
    "F204": "Both operands of the matrix product are activations that do not exist as integers anyway: on the "
    "target an integer product gains no time at common sizes and adds noise.",
    "F207": "The stem: the first convolution (at most 4 input channels) and the depthwise one behind it. Their "
    "integer kernels are slower than the float ones, and the noise of 8 bits on the input image is the "
    "largest of all (measured: 4 to 36 % less time and 0.3 to 3 dB less noise on three MobileNets).",
    "F205": "quantcli does not know the operator (another domain, or newer than its table), so it is left as "
    "it is.",
    "F206": "The node runs a body over a sequence of tensors (SequenceMap); sequences are not quantized, so that "
    "body is left in float, the graph around it is not. Bodies of If, Loop and Scan are quantized.",
    "F208": "A table of constants (an embedding) that is better left in float: it is small, something else "
    "reads it in float and would keep it in the file, it is not looked up row by row, or it has infinite "
    "values. Other tables are stored as int8, and only the rows that are looked up become floats.",
    "F209": "A choice of placement: the structure that the node belongs to is left in float, because the whole "
    "model was measured to be faster that way, or as fast and more accurate (--placement measured).",
    "F214": "The sum in front of a normalization, in a transformer the residual: few of its channels are 100 "
    "times as large as the others, and one scale for all leaves these no bits. It stays in float, as elsewhere.",
    "F221": "In the dynamic form only products with a constant weight (MatMul, Gemm, and LSTM on request) compute "
    "on integers, whose activations are rounded just before; everything else is float, as it was.",
    "F222": "In the dynamic form a convolution stays in float: onnxruntime does not fuse ConvInteger with what "
    "surrounds it, and takes 6.3 times as long as the float convolution (measured).",
    "F223": "An LSTM in the dynamic form: --dynamic-lstm writes it as com.microsoft.DynamicQuantizeLSTM, an "
    "operator of onnxruntime alone. It pays where sequences are long or weights are large; see the guide.",
    "F224": "A recurrent operator for which onnxruntime has no integer kernel (GRU, RNN). The weight-only form "
    "stores its weights as integers.",
    "F225": "A product so small that rounding its input while the model runs takes as long as integers save "
    "(measured: fewer than 4096 weights; fewer than 32768 of an LSTM).",
    "F231": "The weight-only form changes nothing but constant weights, and the operator has none.",
    "F232": "The weight is so small that its integers, with their scales and the nodes that read them, save less "
    "than a kilobyte.",
    "F233": "Something else needs the float values of the weight (another operator, an excluded node, an output), "
    "so that as integers it would be stored twice.",
    "F301": "The weight is not a constant, so it cannot be quantized ahead of time.",
    "F302": "The data are not float32: the integer kernels of the target take scales in float32 only.",
    "F303": "An attribute has a value that the integer kernel does not support.",
    "F304": "The weight has a form (rank or size) that the integer kernel does not support.",
    "F305": "The model's opset has no QuantizeLinear, and could not be raised.",
    "F401": "The result reaches a graph output through data movement only: quantizing it would put 8-bit "
    "noise on the output itself, which costs 3 to 12 dB and saves nothing.",
    "F402": "An input of the node stays in float: an integer kernel needs all of them as integers.",
    "F403": "Nobody reads the result as integers, so an integer kernel would only be followed by a conversion.",
    "F404": "The integer max-pool is fast only between two quantized convolutions; elsewhere it is up to 70 "
    "times slower than the float one.",
    "F405": "The output is not read by one QuantizeLinear only, so the runtime could not fuse the node.",
    "F406": "The node computes together with a kernel that stays in float.",
    "F501": "Calibration has no statistics for a tensor of this node (it was always empty, or was not "
    "computed on the samples, as in a branch that none of them takes), so no range is known.",
    "F701": "The installed onnxruntime does not run the operator in this float type on CPUs, so it computes in "
    "float32. Its weights are stored in the narrow type all the same, with a Cast behind each.",
    "F702": "The ONNX specification does not allow this float type for the operator at the model's opset, so it "
    "computes in float32. Its weights are stored in the narrow type all the same, with a Cast behind each.",
    "F703": "The node computes shapes or indices, for which the narrow type has too few bits: float16 holds "
    "integers exactly up to 2048, bfloat16 up to 256.",
    "F704": "A constant of the node lies outside of what the narrow type can hold: it would become infinite or "
    "zero.",
    "F705": "On the samples, a tensor that the node reads or makes lies outside of what the narrow type can hold: "
    "it comes within a factor of 2 of the largest value, or is so small that most of its bits would be lost.",
    "F706": "The node makes float32 by one of its attributes, or only moves values between nodes that compute in "
    "float32: Casts around it would cost more than it saves.",
    "F707": "Measured: the outputs are more than 3 dB closer to the float model when operators of this kind, or "
    "the layers whose weights lose most, compute in float32.",
    "F901": "The node does not compute on floats (shapes, indices, masks): there is nothing to quantize. If, Loop "
    "and Scan are such nodes; the nodes of their bodies are listed by themselves.",
    "F902": "The node is quantized already, or stands between QuantizeLinear and DequantizeLinear nodes of the "
    "model itself; it is left as it is.",
}
"""Code → what it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a node stays in float.

    Attributes:
        code: A key of ``REASONS``.
        sentence: The cause in this very case.
    """

    code: str
    sentence: str

    def __post_init__(self) -> None:
        if self.code not in REASONS:
            raise KeyError(f"reason code {self.code!r} is not in REASONS")

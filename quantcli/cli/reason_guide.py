"""What can be done about a node that stays in float; ``quantcli explain F203`` adds it to the reason."""

from __future__ import annotations

from collections.abc import Mapping

REMEDIES: Mapping[str, str] = {
    "F101": "Leave --exclude or --include out, or make the selector narrower.",
    "F102": "Leave the tensor out of --exclude, or lower the target of fidelity that asks for it.",
    "F201": "Nothing on this target: float is the faster form. Where another runtime executes the model, try "
    "--target generic.",
    "F202": "Nothing: the model is faster with the node in float. --target generic quantizes it all the same.",
    "F203": "Nothing at run time; when training anew, depthwise or ordinary convolutions are the fast ones.",
    "F204": "Nothing: quantizing it would cost fidelity and gain no time. --target generic does it all the same.",
    "F205": "Nothing, if the operator is another domain's. A standard one that is missing is worth a report.",
    "F206": "Export it as a Loop, or unroll it, if its nodes matter for time.",
    "F207": "Nothing: int8 would be slower there. --target generic quantizes it, for runtimes that want it.",
    "F208": "Nothing for a small table. A large one that is read in float as well is worth two "
    "copies in the model.",
    "F209": "--placement static goes by rules in place of measurements; inspect the plan with --plan-out.",
    "F214": "Nothing: with it in integers transformers lose most of their accuracy. --target qnn wants it so.",
    "F221": "Nothing: the dynamic form is about products. The static form (--data) quantizes more operators.",
    "F222": "Quantize convolutions by the static form, with --data.",
    "F223": "Add --dynamic-lstm, if onnxruntime executes the model.",
    "F224": "Use --weight-only for a smaller file.",
    "F225": "Nothing: the product is too small to be worth it.",
    "F231": "Nothing: there is nothing to store.",
    "F232": "Nothing: the file would not become smaller.",
    "F233": "If you excluded one of the nodes that read the weight, include it again.",
    "F301": "Make the weight an initializer: fold what computes it before exporting, or export in evaluation "
    "mode.",
    "F302": "Convert the model to float32 first; a float16 model has to be exported again.",
    "F303": "quantcli inspect MODEL -v names the node; export it with another value of the attribute if that "
    "can be.",
    "F304": "Export it in another form, for instance a 1-D convolution as a 2-D one.",
    "F305": "Export the model with opset 13 or newer.",
    "F401": "Nothing: an output in float is what you want. The node only moves values.",
    "F402": "Look at the reason of the node that makes this input: quantcli inspect MODEL -v.",
    "F403": "Look at the reasons of the nodes that read the result: if they were quantized, this one would be.",
    "F404": "Nothing: the float pool is the faster one there.",
    "F405": "Nothing in the plan; an output that is also a graph output, or read twice, cannot be fused. Where it "
    "matters, give the graph output a copy of its own when exporting.",
    "F406": "Look at the reason of the kernel that it belongs to.",
    "F501": "Calibrate on samples that reach this part of the model: other branches, longer sequences, objects to "
    "detect.",
    "F701": "Nothing: the result is more exact there. A newer onnxruntime, or another one, may run it.",
    "F702": "--opset N with a newer opset, where the operator allows the type there.",
    "F703": "Nothing: rounded shapes and indices would be wrong ones.",
    "F704": "Nothing. A smaller constant does where it only masks: -1e4 in front of a Softmax is as good as -1e9.",
    "F705": "Nothing; bf16 has the range of float32, with fewer bits.",
    "F706": "Nothing.",
    "F707": "Nothing; --include of the node makes it narrow all the same.",
    "F901": "Nothing: there is nothing to quantize.",
    "F902": "Nothing. To quantize the model anew, start from its float original.",
}
"""Code of ``ops.reasons.REASONS`` → what to do."""

"""The model as a graph. The only package that imports onnx and onnx_ir."""

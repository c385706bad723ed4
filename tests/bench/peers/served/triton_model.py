import json

import torchscript
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.run = torchscript.load(parameters["file"]["string_value"])

    def execute(self, requests):
        return [triton.InferenceResponse([triton.Tensor("y", self.run(
            triton.get_input_tensor_by_name(request, "x").as_numpy()))]) for request in requests]

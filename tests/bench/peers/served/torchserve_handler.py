import json
import os

import numpy as np
import torchscript


class Handler:
    def initialize(self, context):
        folder = context.system_properties["model_dir"]
        self.run = torchscript.load(os.path.join(folder, "model.pt"))
        with open(os.path.join(folder, "shape.json"), encoding="utf-8") as shape:
            self.shape = json.load(shape)

    def handle(self, data, context):
        return [self.answer(one["body"]) for one in data]

    def answer(self, body):
        if isinstance(body, dict):
            return {"y": self.run(np.array(body["x"], np.float32).reshape(self.shape)).ravel().tolist()}
        return self.run(torchscript.of_bytes(body, self.shape)).tobytes()

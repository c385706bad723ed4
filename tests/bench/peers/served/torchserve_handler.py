import json
import os

import torchscript


class Handler:
    def initialize(self, context):
        folder = context.system_properties["model_dir"]
        self.run = torchscript.load(os.path.join(folder, "model.pt"))
        with open(os.path.join(folder, "shape.json"), encoding="utf-8") as shape:
            self.shape = json.load(shape)

    def handle(self, data, context):
        return [self.run(torchscript.of_bytes(one["body"], self.shape)).tobytes() for one in data]

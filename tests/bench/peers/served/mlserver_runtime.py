import torchscript
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class TorchScript(MLModel):
    async def load(self):
        self.run = torchscript.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload):
        y = self.run(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)])

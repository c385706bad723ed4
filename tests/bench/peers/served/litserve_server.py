"""litserve_server.py PORT THREADS {MODEL: [FILE, SHAPE]}"""

import json
import sys

import litserve
import numpy as np
import torchscript


class Api(litserve.LitAPI):
    def __init__(self, name, file, shape):
        super().__init__(api_path=f"/{name}")
        self.file, self.shape = file, shape

    def setup(self, device):
        self.run = torchscript.load(self.file)

    def decode_request(self, request):
        return np.array(request["x"], np.float32).reshape(self.shape)

    def predict(self, x):
        return self.run(x)

    def encode_response(self, output):
        return {"y": output.ravel().tolist()}


if __name__ == "__main__":
    port, threads, models = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    server = litserve.LitServer([Api(name, file, shape) for name, (file, shape) in models.items()], accelerator="cpu",
                                workers_per_device=threads)
    server.run(host="127.0.0.1", port=port, num_api_servers=threads, log_level="warning", generate_client_file=False)

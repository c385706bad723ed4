import json

from . import process, ways
from .server import HERE, PythonServer


class LitServe(PythonServer):
    name = package = "litserve"
    title = "LitServe 0.2.19"
    ways = ("json",)  # of a body it takes JSON and forms
    requirements = ("litserve==0.2.19",)

    def launch(self, folder):
        self.port, = process.free_ports(1)
        models = {model.name: [str(model.file), model.input.shape] for model in self.settings.models}
        return [self.python, HERE / "served" / "litserve_server.py", self.port, self.settings.threads,
                json.dumps(models)], self.variables()

    def request(self, way, model):
        return ways.plain_json(f"http://127.0.0.1:{self.port}/{model.name}", model.input)

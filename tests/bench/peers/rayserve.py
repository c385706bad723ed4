import json

from . import process, ways
from .server import HERE, PythonServer


class RayServe(PythonServer):
    name = package = "rayserve"
    title = "Ray Serve 2.60"
    ways = ("binary",)
    requirements = ("ray[serve]==2.60.0",)

    def launch(self, folder):
        self.port, = process.free_ports(1)
        models = {model.name: [str(model.file), model.input.shape] for model in self.settings.models}
        return [self.python, HERE / "served" / "rayserve_server.py", self.port, self.settings.threads,
                json.dumps(models), folder], {**self.variables(), "RAY_USAGE_STATS_ENABLED": "0"}

    def request(self, way, model):
        return ways.raw(f"http://127.0.0.1:{self.port}/{model.name}", model.input)

import json

from . import process, ways
from .server import PythonServer


class MLServer(PythonServer):
    name = package = "mlserver"
    title = "MLServer 1.7.1"
    ways = ("grpc", "json")  # over HTTP it refuses binary tensors
    requirements = ("mlserver==1.7.1", "uvloop==0.21.0")  # of later ones its workers want a loop that is not there

    def workers(self):
        return self.settings.threads

    def launch(self, folder):
        grpc, http, metrics = process.free_ports(3)
        self.ports = {"grpc": grpc, "json": http}
        (folder / "settings.json").write_text(json.dumps({
            "debug": False, "host": "127.0.0.1", "grpc_port": grpc, "http_port": http, "metrics_port": metrics,
            "parallel_workers": self.workers(), "metrics_dir": str(folder), "environments_dir": str(folder),
        }), encoding="utf-8")
        for model in self.settings.models:
            (folder / model.name).mkdir()
            (folder / model.name / "model-settings.json").write_text(json.dumps({
                "name": model.name, "implementation": "mlserver_runtime.TorchScript",
                "parameters": {"uri": str(model.file)}}), encoding="utf-8")
        return [self.venv / "bin" / "mlserver", "start", folder], self.variables()

    def request(self, way, model):
        return getattr(ways, f"v2_{way}")(self.ports[way], model.name, model.input)


class MLServerAlone(MLServer):
    """Models run in the server's own process, one request at a time: quicker while they are small."""

    name = "mlserver-alone"
    title = "MLServer 1.7.1 without workers"

    def workers(self):
        return 0

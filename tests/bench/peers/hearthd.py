import json
import os

from . import process, ways
from .server import Server, Unavailable


class Hearthd(Server):
    name = title = "hearthd"
    ways = ("grpc", "binary", "json")

    def install(self):
        self.program = (self.settings.build / "server" / "hearthd").resolve()
        if not self.program.exists():
            raise Unavailable(f"there is no {self.program}")

    def launch(self, folder):
        for model in self.settings.models:
            version = folder / "models" / model.name / "1"
            version.mkdir(parents=True)
            os.symlink(model.file, version / "model.pt")
        grpc, rest, http = process.free_ports(3)
        self.ports = {"grpc": grpc, "binary": rest, "json": rest}
        host = "127.0.0.1"
        config = {"repository": {"roots": [str(folder / "models")]},
                  "models": [model.name for model in self.settings.models],
                  "grpc": {"host": host, "port": grpc}, "rest": {"host": host, "port": rest},
                  "http": {"host": host, "port": http}, "compute": {"threads": self.settings.threads}}
        (folder / "hearth.yaml").write_text(json.dumps(config), encoding="utf-8")
        return [self.program, "--config", folder / "hearth.yaml"], {}

    def request(self, way, model):
        return getattr(ways, f"v2_{way}")(self.ports[way], model.name, model.input)

    def pids(self):
        return [self.process.pid]

    def stop(self):
        """Ends it alone: another server may run."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()

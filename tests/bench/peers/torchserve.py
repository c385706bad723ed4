import json
import shutil
import zipfile

from . import process, ways
from .server import HERE, PythonServer, Unavailable


class TorchServe(PythonServer):
    name = package = "torchserve"
    title = "TorchServe 0.12"
    ways = ("binary",)
    requirements = ("torchserve==0.12.0", "pyyaml==6.0.4", "setuptools<81")  # of later ones it misses pkg_resources

    def install(self):
        if not shutil.which("java"):
            raise Unavailable("wants Java: install openjdk-17-jre-headless")
        super().install()

    def launch(self, folder):
        self.port, management, metrics, grpc, grpc_management = process.free_ports(5)
        for model in self.settings.models:
            with zipfile.ZipFile(folder / f"{model.name}.mar", "w") as archive:
                archive.writestr("MAR-INF/MANIFEST.json", json.dumps({
                    "runtime": "python", "archiverVersion": "0.12.0", "model": {
                        "modelName": model.name, "modelVersion": "1.0", "serializedFile": "model.pt",
                        "handler": "torchserve_handler.py"}}))
                archive.write(model.file, "model.pt")
                archive.write(HERE / "served" / "torchserve_handler.py", "torchserve_handler.py")
                archive.writestr("shape.json", json.dumps(model.input.shape))
        (folder / "config.properties").write_text("\n".join((
            f"inference_address=http://127.0.0.1:{self.port}", f"management_address=http://127.0.0.1:{management}",
            f"metrics_address=http://127.0.0.1:{metrics}", f"grpc_inference_port={grpc}",
            f"grpc_management_port={grpc_management}", "grpc_inference_address=127.0.0.1",
            "grpc_management_address=127.0.0.1", "disable_token_authorization=true", "disable_system_metrics=true",
            f"default_workers_per_model={self.settings.threads}", "job_queue_size=1000")), encoding="utf-8")
        # A line for each request is not what is compared.
        (folder / "log4j2.xml").write_text("""<Configuration><Appenders><Console name="stdout"/></Appenders>
            <Loggers><Root level="warn"><AppenderRef ref="stdout"/></Root></Loggers></Configuration>""",
                                           encoding="utf-8")
        return [self.venv / "bin" / "torchserve", "--start", "--foreground", "--no-config-snapshots", "--ts-config",
                folder / "config.properties", "--log-config", folder / "log4j2.xml", "--model-store", folder, "--models",
                *(f"{model.name}={model.name}.mar" for model in self.settings.models)], \
            {**self.variables(), "LOG_LOCATION": str(folder), "METRICS_LOCATION": str(folder), "TEMP": str(folder)}

    def request(self, way, model):
        return ways.raw(f"http://127.0.0.1:{self.port}/predictions/{model.name}", model.input)

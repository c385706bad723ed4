import json
import os
import pathlib
import shutil
import sys

from . import process, ways
from .server import HERE, PythonServer, Unavailable


class Triton(PythonServer):
    """NVIDIA's server as the wheel of PyTriton brings it. That has no LibTorch backend, so that models run in the
    Python backend: a process for each instance, which gets tensors through shared memory."""

    name = package = "triton"
    title = "Triton 2.51, Python backend"
    remark = "the only backend that its wheel on PyPI has"
    ways = ("grpc", "binary")
    requirements = ("nvidia-pytriton==0.7.0", "numpy==1.26.4")  # with numpy 2 its outputs are empty

    def install(self):
        super().install()
        self.home = self.site / "pytriton" / "tritonserver"
        stub = self.home / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}" / \
            "triton_python_backend_stub"
        if not stub.exists():
            raise Unavailable(f"its Python backend is not made for {sys.version}")
        backend = self.home / "backends" / "python" / stub.name
        if not backend.exists():
            shutil.copy(stub, backend)
        backend.chmod(0o755)

    def launch(self, folder):
        for model in self.settings.models:
            version = folder / "models" / model.name / "1"
            version.mkdir(parents=True)
            shutil.copy(HERE / "served" / "triton_model.py", version / "model.py")
            version.with_name("config.pbtxt").write_text(f"""
                backend: "python"
                input {{ name: "x" data_type: TYPE_FP32 dims: {json.dumps(model.input.shape)} }}
                output {{ name: "y" data_type: TYPE_FP32 dims: [ -1, -1 ] }}
                instance_group {{ kind: KIND_CPU count: {self.settings.threads} }}
                parameters {{ key: "file" value {{ string_value: {json.dumps(str(model.file))} }} }}
            """, encoding="utf-8")
        grpc, http, metrics = process.free_ports(3)
        self.ports = {"grpc": grpc, "binary": http}
        libraries = [self.site / "nvidia_pytriton.libs", self.home / "lib", os.environ.get("LD_LIBRARY_PATH", "")]
        return [
            self.home / "bin" / "tritonserver", "--model-repository", folder / "models",
            "--backend-directory", self.home / "backends", "--allow-gpu-metrics", "false", "--exit-timeout-secs", "5",
            "--http-address", "127.0.0.1", "--http-port", http, "--grpc-address", "127.0.0.1", "--grpc-port", grpc,
            "--metrics-address", "127.0.0.1", "--metrics-port", metrics,
        ], {**self.variables(), "LD_LIBRARY_PATH": os.pathsep.join(map(str, filter(None, libraries)))}

    def request(self, way, model):
        return getattr(ways, f"v2_{way}")(self.ports[way], model.name, model.input)

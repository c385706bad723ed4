"""rayserve_server.py PORT THREADS {MODEL: [FILE, SHAPE]} FOLDER"""

import json
import signal
import sys

import ray
import torchscript
from ray import serve
from starlette.responses import Response


# No processors are asked for: they are as many as there are, and Ray's own processes want some, too.
@serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=100)
class Model:
    def __init__(self, file, shape):
        self.run, self.shape = torchscript.load(file), shape

    async def __call__(self, request):
        return Response(self.run(torchscript.of_bytes(await request.body(), self.shape)).tobytes())


if __name__ == "__main__":
    port, threads, models, folder = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4]
    ray.init(include_dashboard=False, _temp_dir=folder, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port},
                logging_config={"enable_access_log": False, "log_level": "WARNING"})
    for name, (file, shape) in models.items():
        serve.run(Model.options(num_replicas=threads).bind(file, shape), name=name, route_prefix=f"/{name}")
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    serve.shutdown()
    ray.shutdown()

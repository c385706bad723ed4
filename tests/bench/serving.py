"""Requests per second of ModelInfer on an identity model, against a bare gRPC echo server.

Both servers run all the time; the load generator turns to one, then to the other, round by round.
"""

import itertools
import json
import pathlib
import signal
import subprocess
import sys
import tempfile

import torch

import common


IN_FLIGHT = 256 << 20  # bytes; more than that waits for the machine's memory, whoever serves


class Identity(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Server:
    """A process that says on which port it listens, in a line of JSON."""

    def __init__(self, command, stream, key):
        self.process = subprocess.Popen([str(word) for word in command], text=True,
                                        env=common.quiet_environment(), **{stream: subprocess.PIPE})
        for line in getattr(self.process, stream):
            event = json.loads(line) if line.startswith("{") else {}
            if key in event:
                self.event = event
                self.address = f"127.0.0.1:{event[key]}"
                break
        else:
            sys.exit(f"{command[0]} ended with {self.process.wait()}")
        self.lines = getattr(self.process, stream)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.lines.read()  # so that a full pipe stops nobody from ending
        self.process.wait()


def serve(build, repository, models, grpc=None, **config):
    """A hearthd with all of `models` loaded. The configuration lies beside the repository."""
    file = repository.with_suffix(".yaml")
    file.write_text(json.dumps({
        "repository": {"roots": [str(repository)]},
        "models": [{"name": name, "pin": True} for name in models],
        "grpc": {"host": "127.0.0.1", "port": 0, **(grpc or {})},
        "http": {"host": "127.0.0.1", "port": 0},
        "rest": {"enabled": False},
        "logging": {"format": "json"},
        **config,
    }), encoding="utf-8")
    return Server([build / "server" / "hearthd", "--config", file], "stderr", "grpc_port")


def start_hearthd(build, folder):
    repository = pathlib.Path(folder, "models")
    (repository / "identity" / "1").mkdir(parents=True)
    torch.jit.script(Identity()).save(str(repository / "identity" / "1" / "model.pt"))
    return serve(build, repository, ["identity"])


def main():
    parser = common.parser(__doc__.split("\n\n", maxsplit=1)[0], rounds=7)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--bytes", type=int, nargs="+", default=[1 << 10, 1 << 20, 16 << 20],
                        help="of the tensor; default 1 KiB, 1 MiB, 16 MiB")
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement; default 3")
    parser.add_argument("--threads", type=int, default=0, help="of the load generator; default: one for each client")
    arguments = parser.parse_args()
    tools = arguments.build / "tests" / "bench"

    def load(server, size, clients):
        return common.run_json(
            tools / "grpc_load", "--address", server.address, "--model", "identity",
            "--bytes", size, "--clients", clients, "--threads", arguments.threads,
            "--seconds", arguments.seconds)

    result = {}
    with tempfile.TemporaryDirectory() as folder:
        servers = {"hearth": start_hearthd(arguments.build, folder),
                   "echo": Server([tools / "echo_server"], "stdout", "port")}
        try:
            for size, clients in itertools.product(arguments.bytes, arguments.clients):
                if size * clients > IN_FLIGHT:
                    continue
                rounds = []
                for number in range(arguments.rounds):
                    # Who goes first changes, so that neither always finds the machine rested.
                    order = sorted(servers, reverse=number % 2 == 1)
                    rounds.append({name: load(servers[name], size, clients) for name in order})
                    common.say(f"{size} bytes, {clients} clients, round {number + 1}: " + ", ".join(
                        f"{name} {rounds[-1][name]['requests_per_second']:.0f}/s" for name in servers))
                result.setdefault(str(size), {})[str(clients)] = summary(rounds)
        finally:
            for server in servers.values():
                server.stop()
    common.report("serving", {"rounds": arguments.rounds, "bytes": result})


def summary(rounds):
    def of(name, key):
        return common.median(one[name][key] for one in rounds)

    ratios = [one["hearth"]["requests_per_second"] / one["echo"]["requests_per_second"]
              for one in rounds]
    return {
        "share_of_echo": common.median(ratios),
        "share_of_echo_range": [round(min(ratios), 4), round(max(ratios), 4)],
        **{name: {key: of(name, key) for key in ("requests_per_second", "p50_us", "p99_us")}
           for name in ("hearth", "echo")},
    }


if __name__ == "__main__":
    main()

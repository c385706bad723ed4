"""How requests run: together, by turns, and one after the other where a module keeps its state."""

import pathlib
import queue
import shutil
import threading

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from torch import nn
from tritonclient.utils import InferenceServerException

import models
from test_protocol import request
from test_speech import RATE, samples_of, silero_file

ROWS = "inputs:\n  - {name: x, datatype: FP32, shape: [-1, 64]}\noutputs:\n  - {name: y, datatype: FP32, shape: [-1, 8]}\n"


class Runner(nn.Module):
    """Its state is the sum of what it was given."""

    def __init__(self):
        super().__init__()
        self.register_buffer("sum", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.min() < 0:
            raise ValueError("negative")
        self.sum = self.sum + x.sum()
        return self.sum


class Sums(nn.Module):
    """Of so many elements that more than one thread has something to do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ones(1 << 20).add(x.sum()).mean().reshape(1)


class Mean(nn.Module):
    """Has no rows in its output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean()


class Picky(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool((x < 0).any()):
            raise ValueError("negative")
        return x * 2


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("execution")
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 8))
    models.write_model(root, "mlp", mlp, options="max_batch_size: 16\nbatching: {max_delay: 20ms}\n" + ROWS)
    models.write_model(root, "plain", mlp, options="max_batch_size: 16\n" + ROWS)
    models.write_model(root, "mean", Mean(), options="max_batch_size: 16\nbatching: {max_delay: 20ms}\n")
    models.write_model(root, "picky", Picky(), options="max_batch_size: 16\nbatching: {max_delay: 50ms}\n"
                       "inputs:\n  - {name: x, datatype: FP32, shape: [-1, 4]}\n")
    models.write_model(root, "runner", Runner(), options="sequences: {idle_timeout: 1m}\n")
    models.write_model(root, "brief", Runner(), options="sequences: {idle_timeout: 10ms}\n")
    models.write_model(root, "slow", models.Slow())
    models.write_model(root, "quick", models.Identity())
    models.write_model(root, "kept", models.Identity(), options="response_cache: true\n")
    (root / "silero" / "1").mkdir(parents=True)
    shutil.copy(silero_file(), root / "silero" / "1" / "model.pt")
    return root


def tensor(name, values):
    wire = triton.InferInput(name, list(values.shape),
                             {"float32": "FP32", "int64": "INT64"}[str(values.dtype)])
    wire.set_data_from_numpy(values)
    return wire


def floats_of(answer, name=None):
    return answer.as_numpy(name or answer.get_response().outputs[0].name)


def together(client, calls):
    """Sends all at once; answers or errors in the order of the calls."""
    results = [None] * len(calls)
    left = threading.Semaphore(0)

    def take(number, result, error):
        results[number] = error or result
        left.release()

    for number, (model, inputs) in enumerate(calls):
        client.async_infer(model, inputs, callback=lambda result, error, n=number: take(n, result, error))
    for _ in calls:
        assert left.acquire(timeout=60)
    return results


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as made:
        yield made


def test_the_same_inputs_need_one_run_where_model_and_server_allow_it(start, repository):
    server = start(repository, config={"cache": {"responses": "1MiB"}, "metrics": {"triton_names": True}})
    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        inputs = [tensor("x", np.ones((1, 4), np.float32))]
        for model, runs in (("kept", 1), ("quick", 3)):
            answers = [client.infer(model, inputs) for _ in range(3)]
            told = ["hearth_response_cache" in answer.get_response().parameters for answer in answers]
            assert told == [False, model == "kept", model == "kept"]
            assert all(np.array_equal(floats_of(answer), np.ones((1, 4), np.float32)) for answer in answers)
            assert server.metric("hearth_runs_total", model=model) == runs
        sums = client.get_inference_statistics("kept").model_stats[0].inference_stats
        assert (sums.success.count, sums.cache_hit.count, sums.cache_miss.count, sums.compute_infer.count) == (3, 2, 1, 1)
        assert client.get_inference_statistics("kept").model_stats[0].inference_count == 1
        counted = {name: server.metric(f"nv_{name}", model="kept", version="1") for name in (
            "inference_request_success", "inference_count", "cache_num_hits_per_model", "cache_num_misses_per_model")}
        assert list(counted.values()) == [3, 1, 2, 1], counted
        assert server.metric("nv_inference_request_duration_us", model="kept", version="1").is_integer()


def test_requests_that_wait_are_run_together_and_each_gets_its_own_rows(server, repository, client):
    network = torch.jit.load(str(models.model_file(repository, "mlp")))
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((1 + number % 3, 64), np.float32) for number in range(40)]
    client.infer("mlp", [tensor("x", inputs[0])])
    runs = server.metric("hearth_runs_total", model="mlp")
    answers = together(client, [("mlp", [tensor("x", values)]) for values in inputs])
    for values, answer in zip(inputs, answers):
        with torch.no_grad():
            expected = network(torch.from_numpy(values)).numpy()
        np.testing.assert_allclose(answer.as_numpy("y"), expected, rtol=1e-5, atol=1e-6)
    rows = sum(len(values) for values in inputs)
    assert -(-rows // 16) <= server.metric("hearth_runs_total", model="mlp") - runs < 40
    stats = client.get_inference_statistics("mlp").model_stats[0]
    assert stats.inference_count == rows + 1 and stats.execution_count < 41
    assert max(batch.batch_size for batch in stats.batch_stats) > 3
    assert sum(batch.compute_infer.count for batch in stats.batch_stats) == stats.execution_count
    assert stats.inference_stats.compute_infer.count == stats.inference_stats.queue.count == 41


def test_without_batching_each_request_is_a_run(server, client):
    together(client, [("plain", [tensor("x", np.ones((1, 64), np.float32))])] * 10)
    assert server.metric("hearth_runs_total", model="plain") == 10


def test_a_bad_request_spoils_no_neighbours(client):
    rows = [np.full((1, 4), value, np.float32) for value in (1, 2, -1, 3)]
    client.infer("picky", [tensor("x", rows[0])])
    answers = together(client, [("picky", [tensor("x", row)]) for row in rows])
    assert [None if isinstance(answer, InferenceServerException) else float(floats_of(answer)[0, 0])
            for answer in answers] == [2, 4, None, 6]
    assert "negative" in str(answers[2])


def test_a_program_that_mixes_rows_is_found_out_and_answered_all_the_same(server, client):
    rows = [np.full((1, 4), value, np.float32) for value in (1, 5)]
    client.infer("mean", [tensor("x", rows[0])])
    for _ in range(3):
        assert [float(floats_of(answer)) for answer in together(client, [("mean", [tensor("x", row)]) for row in rows])] == [1, 5]
    assert sum("requests cannot be batched" in line for line in server.lines) == 1


def test_a_model_that_is_batched_may_leave_and_come_back_meanwhile(server, client):
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            server.cli("evict", "mlp", check=False)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(10):
            answers = together(client, [("mlp", [tensor("x", np.ones((1, 64), np.float32))])] * 20)
            assert not [answer for answer in answers if isinstance(answer, InferenceServerException)]
    finally:
        stop.set()
        thread.join()


def test_a_quick_model_does_not_wait_for_a_slow_one(server, client):
    """However many requests of a model that takes its time are waiting, on however few threads."""
    big = np.eye(300, dtype=np.float32)
    slow = [tensor("x", big), tensor("rounds", np.array([400], np.int64))]
    quick = [tensor("x", np.ones((1, 4), np.float32))]
    client.infer("slow", slow)
    client.infer("quick", quick)
    done = threading.Semaphore(0)
    ended = []
    for _ in range(20):
        client.async_infer("slow", slow, callback=lambda result, error: (ended.append(error), done.release()))
    for _ in range(20):
        client.infer("quick", quick)
    assert len(ended) < 20
    for _ in range(20):
        assert done.acquire(timeout=100)
    assert ended == [None] * 20


def test_a_sequence_goes_on_where_its_last_request_left_it(client):
    def ask(sequence, value, **control):
        return float(floats_of(client.infer("runner", [tensor("x", np.array([value], np.float32))], sequence_id=sequence,
                                            **control))[0])
    assert ask(7, 1, sequence_start=True) == 1
    assert ask("7", 10, sequence_start=True) == 10
    assert ask(7, 2) == 3
    assert ask("7", 20) == 30
    assert float(floats_of(client.infer("runner", [tensor("x", np.array([5], np.float32))]))[0]) == 5
    assert ask(7, 3, sequence_end=True) == 6
    with pytest.raises(InferenceServerException, match="must specify the START flag") as refused:
        ask(7, 1)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert ask("7", 0, sequence_end=True) == 30


def test_a_run_that_fails_ends_its_sequence(client):
    ask = lambda value, **control: client.infer("runner", [tensor("x", np.array([value], np.float32))], sequence_id=9, **control)
    ask(1, sequence_start=True)
    with pytest.raises(InferenceServerException, match="negative"):
        ask(-1)
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        ask(1)


def test_a_sequence_nobody_asks_for_ends_and_its_model_may_leave(server, client):
    client.infer("brief", [tensor("x", np.array([1], np.float32))], sequence_id=1, sequence_start=True)
    while server.metric("hearth_sequences_ended_total", reason="idle") == 0:
        pass
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        client.infer("brief", [tensor("x", np.array([1], np.float32))], sequence_id=1)
    server.cli("unload", "brief")


def test_a_run_has_as_many_threads_as_its_model_says(start, tmp_path):
    repository = tmp_path / "models"
    models.write_model(repository, "usual", Sums())
    models.write_model(repository, "pair", Sums(), options="intra_op_threads: 2\n")
    models.write_model(repository, "triton", Sums())
    (repository / "triton" / "config.pbtxt").write_text(
        'parameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "64" } }')
    server = start(repository, config={"compute": {"threads": 2, "intra_op_threads": 1}})

    def computing():  # what helps a thread is called like it
        tasks = pathlib.Path(f"/proc/{server.process.pid}/task").iterdir()
        return sum(task.joinpath("comm").read_text().startswith("compute") for task in tasks)

    def ask(client, model):
        answer = client.infer(model, [tensor("x", np.ones((1, 4), np.float32))])
        assert floats_of(answer).ravel()[0] == 5

    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        ask(client, "usual")
        assert computing() == 2
        ask(client, "pair")
        assert computing() == 3
        ask(client, "triton")
        assert computing() in (3, 4)  # on the same thread, or on the other one, which has got one to help it now
        config = client.get_model_config("triton").config
        assert config.parameters["INTRA_OP_THREAD_COUNT"].string_value == "64"
        assert "INTRA_OP_THREAD_COUNT" not in client.get_model_config("usual").config.parameters
    told = server.wait_for("a model is to have more threads than there are processors for computing, and gets as many as there are")
    assert (told["model"], told["intra_op_threads"], told["processors"]) == ("triton:1", 64, 2)


def windows_of(samples):
    """As the package cuts them: 512 new samples at a time."""
    padded = np.pad(samples, ((0, 0), (0, -samples.shape[1] % 512)))
    return [np.ascontiguousarray(padded[:, at:at + 512]) for at in range(0, padded.shape[1], 512)]


def test_silero_vad_hears_windows_of_many_speakers_at_once(client, recordings):
    """Each on a stream of its own, or a sequence beside others on one; to the bit what the package says of each alone."""
    sequences = [windows_of(samples_of(path))[:60] for path in recordings]
    expected = []
    for windows in sequences:
        network = torch.jit.load(str(silero_file()))
        with torch.no_grad():
            expected.append([float(network(torch.from_numpy(window), RATE)) for window in windows])
    assert max(map(max, expected)) > 0.9 and min(map(min, expected)) < 0.1
    heard = {}
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    rate = tensor("sr", np.array([RATE], np.int64))
    sent = 0
    for number in range(max(map(len, sequences))):
        for speaker, windows in enumerate(sequences):
            if number < len(windows):
                client.async_stream_infer(
                    "silero", [tensor("x", windows[number]), rate], request_id=f"{speaker}.{number}",
                    sequence_id=f"speaker {speaker}", sequence_start=number == 0, sequence_end=number + 1 == len(windows))
                sent += 1
    for _ in range(sent):
        result, error = answers.get(timeout=60)
        assert error is None, error
        speaker, number = map(int, result.get_response().id.split("."))
        heard[speaker, number] = float(floats_of(result).ravel()[0])
    client.stop_stream()
    for speaker, windows in enumerate(expected):
        assert [heard[speaker, number] for number in range(len(windows))] == windows

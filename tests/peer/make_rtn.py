#!/usr/bin/env python3
"""Round-to-nearest exports of tiny_llama by auto-round 0.16.1: iters 0, no scale search, symmetric, format auto_round.

usage: make_rtn.py [DATADIR]        (default: tests/data/peer)

Writes DATADIR/tiny_rtn_bB_gG.safetensors with qweight, qzeros and scales of every linear for B in 2, 3, 4, 8 and
G in 32, 64, and DATADIR/tiny_rtn_config.json: the quantization_config of each run."""
import json
import os
import sys
import tempfile

import torch
from auto_round import AutoRound
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

here = os.path.dirname(os.path.abspath(__file__))
data = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "data", "peer")
torch.set_num_threads(1)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0})))  # asked for, not used


def tensors(folder):
    found = {}
    for root, _, files in os.walk(folder):
        for f in files:
            if f.endswith(".safetensors"):
                found.update(load_file(os.path.join(root, f)))
    return found


def config(folder):
    for root, _, files in os.walk(folder):
        if "config.json" in files:
            return json.load(open(os.path.join(root, "config.json")))["quantization_config"]
    raise FileNotFoundError(folder)


configs = {}
for bits in (2, 3, 4, 8):
    for group in (32, 64):
        with tempfile.TemporaryDirectory() as tmp:
            model = AutoModelForCausalLM.from_pretrained(os.path.join(data, "tiny_llama"), dtype="auto")
            run = AutoRound(model, tokenizer=tokenizer, bits=bits, group_size=group, sym=True, iters=0,
                            disable_opt_rtn=True, device_map="cpu", enable_torch_compile=False)
            run.quantize_and_save(tmp, format="auto_round")
            found, configs[f"b{bits}_g{group}"] = tensors(tmp), config(tmp)
        packed = {k: t for k, t in found.items() if k.split(".")[-1] in ("qweight", "qzeros", "scales")}
        assert len(packed) == 3 * 14, sorted(found)
        save_file(packed, os.path.join(data, f"tiny_rtn_b{bits}_g{group}.safetensors"))
with open(os.path.join(data, "tiny_rtn_config.json"), "w") as f:
    json.dump(configs, f, indent=1)

#!/usr/bin/env python3
"""Quantizes a model with auto-round 0.16.1 on the CPU, calibrated on the first windows of a text, and saves it.

usage: run_peer.py MODEL TEXT OUT --bits B [--group-size 64] [--iters 20] [--nsamples 16] [--seqlen 256]
                   [--batch-size 4] [--float32] [--eager]

Symmetric, format auto_round. The samples are consecutive windows of seqlen tokens without BOS. By default everything is
as the peer chooses it on a CPU: bf16 weights and autocast, torch.compile. The samples go in as one of its named data
sets would, so that it needs no attention mask and takes its fast path. The packed model is OUT/NAME-wBgG; the time
printed last runs from the start of this script's process, imports included."""
import argparse
import json
import os
import time

import psutil
import torch
from auto_round import AutoRound, calib_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

a = argparse.ArgumentParser()
for name in ("model", "text", "out"):
    a.add_argument(name)
a.add_argument("--bits", type=int, required=True)
for name, value in (("group-size", 64), ("iters", 20), ("nsamples", 16), ("seqlen", 256), ("batch-size", 4)):
    a.add_argument(f"--{name}", type=int, default=value)
a.add_argument("--float32", action="store_true", help="float32 weights and products instead of bf16")
a.add_argument("--eager", action="store_true", help="no torch.compile")
a = a.parse_args()

tokenizer = AutoTokenizer.from_pretrained(a.model)
with open(a.text, encoding="utf-8", newline="") as f:
    ids = torch.tensor(tokenizer(f.read(), add_special_tokens=False)["input_ids"][:a.nsamples * a.seqlen])
batches = ids.reshape(a.nsamples, a.seqlen).split(a.batch_size)
calib_dataset.get_dataloader = lambda *args, **kwargs: batches
model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32 if a.float32 else "auto")
run = AutoRound(model, tokenizer, bits=a.bits, group_size=a.group_size, sym=True, iters=a.iters, nsamples=a.nsamples,
                seqlen=a.seqlen, batch_size=a.batch_size, dataset="text", seed=42, device_map="cpu", amp=not a.float32,
                enable_torch_compile=False if a.eager else None)
started = time.time()
run.quantize_and_save(a.out, format="auto_round")
ended = time.time()
print(json.dumps(dict(bits=a.bits, group_size=a.group_size, threads=torch.get_num_threads(), torch=torch.__version__,
                      quantize_and_save_s=round(ended - started, 1),
                      wall_s=round(ended - psutil.Process(os.getpid()).create_time(), 1))))

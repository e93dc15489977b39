#!/usr/bin/env python3
"""Times auto-round 0.16.1 on blocks with random weights, on a GPU or a CPU, without a network: one JSON line.

usage: time_peer.py [--hidden 4096] [--ffn 14336] [--heads 32] [--kv-heads 8] [--layers 2] [--bits 4] [--group-size 128]
                    [--iters 50] [--nsamples 128] [--seqlen 2048] [--batch-size 8] [--device cuda] [--eager]

The model is of the Llama kind, by default two blocks shaped like Llama-3-8B's, saved and loaded as any other, in bf16; the
samples are random ids. Everything else is as the peer chooses it: torch.compile on, the fast path without an attention mask.
A block is what lies between the last step of the one before and its own last step, and so the second block has nothing of
the compiler in it; a step is the median of its steps. With fewer steps than 200, block_200_s adds the missing ones.
Memory is what torch allocated at most. The package datasets is not needed: ids are given, and stand-ins serve its names."""
import argparse
import importlib.machinery
import json
import statistics
import sys
import tempfile
import time
import types

import accelerate  # noqa: F401  before the stand-in: they look for datasets
import tokenizers
import torch
import transformers

try:
    import datasets  # noqa: F401
except ImportError:
    stand_in = types.ModuleType("datasets")
    stand_in.__spec__ = importlib.machinery.ModuleSpec("datasets", None)
    stand_in.__version__ = "0"
    for name in ("Dataset", "DatasetDict", "Features", "IterableDataset", "Sequence", "Value"):
        setattr(stand_in, name, type(name, (), {}))
    for name in ("concatenate_datasets", "load_dataset", "load_from_disk"):
        setattr(stand_in, name, None)
    sys.modules["datasets"] = stand_in

import auto_round
from auto_round import AutoRound, calib_dataset
from auto_round.algorithms.quantization.sign_round.sign_sgd import SignSGD

VOCABULARY = 1024

a = argparse.ArgumentParser()
for name, value in (("hidden", 4096), ("ffn", 14336), ("heads", 32), ("kv-heads", 8), ("layers", 2), ("bits", 4),
                    ("group-size", 128), ("iters", 50), ("nsamples", 128), ("seqlen", 2048), ("batch-size", 8)):
    a.add_argument(f"--{name}", type=int, default=value)
a.add_argument("--device", default="cuda")
a.add_argument("--eager", action="store_true", help="no torch.compile")
a = a.parse_args()
assert a.layers >= 2, "the second block is the one that is timed"
on_gpu = a.device.startswith("cuda")


def save_model(folder):
    config = transformers.LlamaConfig(
        hidden_size=a.hidden, intermediate_size=a.ffn, num_hidden_layers=a.layers, num_attention_heads=a.heads,
        num_key_value_heads=a.kv_heads, vocab_size=VOCABULARY, max_position_embeddings=8192, rms_norm_eps=1e-5,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=1)
    torch.manual_seed(1)
    with torch.device(a.device):  # quicker there
        model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.cpu().save_pretrained(folder)
    words = {f"w{i}": i for i in range(VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="w0", eos_token="w1",
                                         unk_token="w0").save_pretrained(folder)


stamps = []  # when each step of the optimiser was issued; the host waits for the loss once a step
step = SignSGD.step


def stamped_step(self, *args, **kwargs):
    stamps.append(time.perf_counter())
    return step(self, *args, **kwargs)


SignSGD.step = stamped_step

with tempfile.TemporaryDirectory() as folder:
    save_model(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    ids = torch.randint(0, VOCABULARY, (a.nsamples, a.seqlen), generator=torch.Generator().manual_seed(1))
    calib_dataset.get_dataloader = lambda *args, **kwargs: ids.split(a.batch_size)
    run = AutoRound(model, tokenizer, bits=a.bits, group_size=a.group_size, sym=True, iters=a.iters, nsamples=a.nsamples,
                    seqlen=a.seqlen, batch_size=a.batch_size, dataset="text", seed=42, device_map=a.device,
                    enable_torch_compile=False if a.eager else None)
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    run.quantize()
    if on_gpu:
        torch.cuda.synchronize()
    end = time.perf_counter()

assert len(stamps) == a.layers * a.iters, f"{len(stamps)} steps were seen, not {a.layers} x {a.iters}"
second = stamps[a.iters:2 * a.iters]
step_s = statistics.median(y - x for x, y in zip(second, second[1:]))
block_s = second[-1] - stamps[a.iters - 1]
print(json.dumps(dict(
    program="auto-round", version=auto_round.__version__, torch=torch.__version__, transformers=transformers.__version__,
    device=torch.cuda.get_device_name() if on_gpu else "cpu", hidden=a.hidden, ffn=a.ffn, heads=a.heads,
    kv_heads=a.kv_heads, bits=a.bits, group_size=a.group_size, iters=a.iters, nsamples=a.nsamples, seqlen=a.seqlen,
    batch_size=a.batch_size, compiled=not a.eager, step_ms=round(1e3 * step_s, 2), block_s=round(block_s, 2),
    block_200_s=round(block_s + (200 - a.iters) * step_s, 2), first_block_s=round(stamps[a.iters - 1] - begin, 2),
    all_s=round(end - begin, 2), peak_gb=round(torch.cuda.max_memory_allocated() / 1e9, 2) if on_gpu else None,
    peak_reserved_gb=round(torch.cuda.max_memory_reserved() / 1e9, 2) if on_gpu else None)))

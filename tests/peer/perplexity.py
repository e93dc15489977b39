#!/usr/bin/env python3
"""Perplexity by transformers, in float32, of a model or of one that was packed as auto_round:auto_gptq.

usage: perplexity.py MODEL TEXT --seqlen S --windows N

The first N windows of S tokens of the text, without overlap and without BOS; each scored from its second token; what
fills no window is dropped. bf16 weights are widened, packed ones become scale * (code - zero)."""
import argparse
import glob
import json
import os
import time

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def unpack(words, bits):
    """int32 [n * bits / 32, columns] -> codes [n, columns]; element i takes bits i*bits.. of the column's bit stream."""
    w = words.numpy().view(np.uint32)
    stream = (w[:, None, :] >> np.arange(32, dtype=np.uint32)[None, :, None]) & 1
    stream = stream.reshape(-1, bits, w.shape[1])
    return (stream << np.arange(bits, dtype=np.uint32)[None, :, None]).sum(1).astype(np.float32)


def dequantized(folder, config):
    q = config.quantization_config
    q = q if isinstance(q, dict) else q.to_dict()
    assert q["packing_format"] == "auto_round:auto_gptq", q
    found = {}
    for f in glob.glob(os.path.join(folder, "*.safetensors")):
        found.update(load_file(f))
    weights = {k: t.float() for k, t in found.items() if k.rsplit(".", 1)[-1] not in ("qweight", "qzeros", "scales")}
    for name in (k[:-8] for k in found if k.endswith(".qweight")):
        codes = unpack(found[name + ".qweight"], q["bits"])                        # [in, out]
        zeros = unpack(found[name + ".qzeros"].T.contiguous(), q["bits"]).T + 1    # [groups, out]
        scales = found[name + ".scales"].float().numpy()
        group = codes.shape[0] if q["group_size"] <= 0 else q["group_size"]
        at = np.arange(codes.shape[0]) // group
        weights[name + ".weight"] = torch.from_numpy((codes - zeros[at]) * scales[at]).T.contiguous()
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all("lm_head" in m for m in missing) and (not missing or config.tie_word_embeddings)
    model.tie_weights()
    return model


a = argparse.ArgumentParser()
a.add_argument("model")
a.add_argument("text")
a.add_argument("--seqlen", type=int, required=True)
a.add_argument("--windows", type=int, required=True)
a = a.parse_args()
config = AutoConfig.from_pretrained(a.model)
if getattr(config, "quantization_config", None):
    model = dequantized(a.model, config)
else:
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
with open(a.text, encoding="utf-8", newline="") as f:
    ids = torch.tensor(AutoTokenizer.from_pretrained(a.model)(f.read(), add_special_tokens=False)["input_ids"])
n = min(a.windows, len(ids) // a.seqlen)
start, total = time.time(), 0.0
with torch.no_grad():
    for w in ids[:n * a.seqlen].reshape(n, a.seqlen):
        logits = model(w[None]).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, w[1:], reduction="sum").item()
nll = total / (n * (a.seqlen - 1))
print(json.dumps(dict(model=a.model, text=os.path.basename(a.text), tokens_in_text=len(ids), windows=n, seqlen=a.seqlen,
                      nll=nll, perplexity=float(np.exp(nll)), seconds=round(time.time() - start, 1))))

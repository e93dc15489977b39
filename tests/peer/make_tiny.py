#!/usr/bin/env python3
"""Writes three tiny Llama checkpoints with random weights, and what transformers computes with them in float32.

usage: make_tiny.py [OUTDIR]        (default: tests/data/peer)

  tiny_llama        bf16, tied head; down_proj reads 160 values, which groups of 64 do not divide
  tiny_llama_rope   bf16, untied head, llama3 rope scaling, head_dim that is not hidden / heads
  tiny_llama_bias   f16, tied head, biases on every linear
  tiny_llama_logits.safetensors: for each NAME of base, rope, bias
      NAME.ids I64 [1, T], NAME.logits F32 [T, vocab], NAME.nll F32 [1]: mean over the T-1 scored positions"""
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
VARIANTS = {
    "base": ("tiny_llama", torch.bfloat16, dict(tie_word_embeddings=True)),
    "rope": ("tiny_llama_rope", torch.bfloat16, dict(tie_word_embeddings=False, rope_parameters=LLAMA3, head_dim=32)),
    "bias": ("tiny_llama_bias", torch.float16, dict(tie_word_embeddings=True, attention_bias=True, mlp_bias=True)),
}


def model(dtype, options):
    config = dict(vocab_size=256, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
    m = LlamaForCausalLM(LlamaConfig(**{**config, **options}))
    gen = torch.Generator().manual_seed(7)
    for name, p in m.named_parameters():
        x = torch.randn(p.shape, generator=gen)
        p.data = 1 + 0.2 * x if "norm" in name else x * (0.1 if "layers" in name else 0.2)
    return m.to(dtype)


here = os.path.dirname(os.path.abspath(__file__))
outdir = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "data", "peer")
out = {}
for name, (folder, dtype, options) in VARIANTS.items():
    m = model(dtype, options)
    m.save_pretrained(os.path.join(outdir, folder))
    ids = torch.randint(0, 256, (1, 96), generator=torch.Generator().manual_seed(11))
    m = LlamaForCausalLM.from_pretrained(os.path.join(outdir, folder), dtype=torch.float32)  # .to() would round the rotary angles too
    with torch.no_grad():
        logits = m(ids).logits[0]
    nll = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
    out.update({f"{name}.ids": ids, f"{name}.logits": logits.contiguous(), f"{name}.nll": nll.reshape(1)})
    print(name, "perplexity", nll.exp().item(), "largest logit", logits.abs().max().item())
save_file(out, os.path.join(outdir, "tiny_llama_logits.safetensors"))

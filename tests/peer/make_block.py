#!/usr/bin/env python3
"""One-block oracle: auto-round 0.16.1 tunes the blocks of a model in float32 on the CPU, in eager mode, and is watched.

usage: make_block.py MODEL OUT.safetensors [--text FILE] [--blocks 0,1] [--steps 20] [--samples 16] [--seqlen 128]
                     [--batch 4] [--row-stride 1]

Every block is tuned on the float chain (enable_quanted_input off), so that a test can make the inputs itself: the
block's input is the original model's hidden state of `ids`. seed 42, lr 1/steps, no gradient accumulation. Samples are
consecutive windows of the text's tokens; without a text, random ids. The peer never counts the last position of a
sample, in loss or gradient, but divides by all positions.

  ids I32 [samples, seqlen];  meta I32 [4] = steps, batch, seqlen, row stride
per RUN of w4g32sym, w4g32asym, w2g32sym, w2g32asym and block B, prefix "RUN.B.":
  order I32 [steps * batch]     samples of each step
  loss F32 [steps]              mean squared error over all positions, last ones counted as zero: what is minimised
  reported F32 [steps]          loss / (batch * (seqlen - 1)): what the peer prints and compares
  best I32 [1]                  step whose parameters were kept
per linear P (such as self_attn.q_proj), prefix "RUN.B.P.", after the first step:
  v I8 [rows, in]               sign of V, every row-stride-th row, from row 0
  lo, hi F32 [rows, groups]     factors of the ranges of these rows as the second forward takes them (clamped to [0, 1])"""
import argparse
import random

import torch
from auto_round import AutoRound
from auto_round.algorithms.quantization.sign_round import quantizer as peer
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

a = argparse.ArgumentParser()
a.add_argument("model")
a.add_argument("out")
a.add_argument("--text")
a.add_argument("--blocks", default="0,1")
for name, value in (("steps", 20), ("samples", 16), ("seqlen", 128), ("batch", 4), ("row-stride", 1)):
    a.add_argument(f"--{name}", type=int, default=value)
a = a.parse_args()
blocks = sorted(map(int, a.blocks.split(",")))



class NoPadding(PreTrainedTokenizerFast):
    pad_token_id = -1  # without one the peer takes repeated tokens at a sample's end for padding


tokenizer = NoPadding(tokenizer_object=Tokenizer(models.WordLevel({"a": 0})))  # asked for; this is all it is asked
if a.text:
    with open(a.text, encoding="utf-8", newline="") as f:
        flat = AutoTokenizer.from_pretrained(a.model)(f.read(), add_special_tokens=False)["input_ids"][:a.samples * a.seqlen]
else:
    vocab = AutoModelForCausalLM.from_pretrained(a.model).config.vocab_size
    flat = torch.randint(0, vocab, (a.samples * a.seqlen,), generator=torch.Generator().manual_seed(5)).tolist()
ids = torch.tensor(flat).reshape(a.samples, a.seqlen)

seen = {}


class Watched(peer.SignRoundQuantizer):
    """The peer's own loop; what passes through its small methods is noted down."""

    def quantize_block(self, block, fp_inputs, input_others, fp_outputs, q_inputs, block_ctx, **kw):
        assert q_inputs is None
        self.block, self.log = block, dict(order=[], loss=[], reported=[], params={})
        best = original["quantize_block"](self, block, fp_inputs, input_others, fp_outputs, q_inputs, block_ctx, **kw)
        self.log["best"] = best
        seen[block_ctx.block_index] = self.log
        return best

    def _get_loss(self, pred_output, ref_output, indices, loss_func, device="cpu", valid_token_mask=None, **kw):
        loss = original["_get_loss"](self, pred_output, ref_output, indices, loss_func, device, valid_token_mask, **kw)
        kept = sum(int(valid_token_mask[i].sum()) for i in indices)
        assert kept == len(indices) * (a.seqlen - 1), kept
        self.log["order"] += [int(i) for i in indices]
        self.log["loss"].append(loss.item())
        self.log["reported"].append(loss.item() / kept)
        assert pred_output.dtype == torch.float32 == ref_output.dtype
        return loss

    def _step(self, *args):
        original["_step"](self, *args)
        if len(self.log["loss"]) == 1:
            for name, m in self.block.named_modules():
                if hasattr(m, "orig_layer"):
                    rows, cols = m.orig_layer.weight.shape
                    pick = lambda key: m.params[key].detach().reshape(rows, -1)[::a.row_stride]
                    self.log["params"][name] = dict(v=pick("value")[:, :cols].sign().to(torch.int8),
                                                    lo=pick("min_scale").clamp(0, 1), hi=pick("max_scale").clamp(0, 1))


names = ("quantize_block", "_get_loss", "_step")
original = {n: getattr(peer.SignRoundQuantizer, n) for n in names}
for n in names:
    setattr(peer.SignRoundQuantizer, n, getattr(Watched, n))

meta = torch.tensor([a.steps, a.batch, a.seqlen, a.row_stride], dtype=torch.int32)
out = {"ids": ids.to(torch.int32), "meta": meta}
for bits in (4, 2):
    for sym in (True, False):
        seen.clear()
        model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
        del model.model.layers[blocks[-1] + 1:]  # later ones have no say
        samples = [{"input_ids": x.reshape(1, -1), "attention_mask": torch.ones(1, a.seqlen, dtype=torch.long)} for x in ids]
        AutoRound(model, tokenizer, bits=bits, group_size=32, sym=sym, iters=a.steps, nsamples=a.samples, seqlen=a.seqlen,
                  batch_size=a.batch, dataset=samples, seed=42, amp=False, enable_quanted_input=False, device_map="cpu",
                  enable_torch_compile=False, low_cpu_mem_usage=False).quantize()
        random.seed(42)
        expected = list(range(a.samples))
        random.shuffle(expected)
        assert seen[0]["order"][:a.batch] == expected[:a.batch], (seen[0]["order"], expected)
        for b in blocks:
            log, prefix = seen[b], f"w{bits}g32{'sym' if sym else 'asym'}.{b}."
            out[prefix + "order"] = torch.tensor(log["order"], dtype=torch.int32)
            for key in ("loss", "reported"):
                out[prefix + key] = torch.tensor(log[key])
            out[prefix + "best"] = torch.tensor([min(range(a.steps), key=log["loss"].__getitem__)], dtype=torch.int32)
            for name, p in log["params"].items():
                out.update({f"{prefix}{name}.{key}": t.contiguous() for key, t in p.items()})
            print(prefix, "loss", *(f"{x:.6e}" for x in log["loss"]))
save_file(out, a.out)

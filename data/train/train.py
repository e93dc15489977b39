"""Trains the embedded model on what prepare.py made; keeps the newest checkpoint in DATA/model all the time.

usage: train.py DATA WORK [--steps N] [--minutes M] [--compile]

The learning rate falls along a cosine of progress, the larger of the share of steps done and of minutes used, so a
run that meets its time limit ends well too. WORK/log.json gets the held-out perplexity at each checkpoint."""
import argparse
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import llama


def config(vocab, end):
    return dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=256, intermediate_size=768,
                num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2, head_dim=64, vocab_size=vocab,
                max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10000.0, rope_scaling=None, hidden_act="silu",
                tie_word_embeddings=True, attention_bias=False, mlp_bias=False, bos_token_id=end, eos_token_id=end,
                torch_dtype="bfloat16")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("data")
    p.add_argument("work")
    p.add_argument("--steps", type=int, default=1000)
    p.add_argument("--minutes", type=float, default=3.0)
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--compile", action="store_true")
    a = p.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    began = time.time()

    out = os.path.join(a.data, "model")
    tok = Tokenizer.from_file(os.path.join(out, "tokenizer.json"))
    held = tok.encode(open(os.path.join(a.data, "heldout.txt"), encoding="utf-8").read()).ids
    tokens = torch.from_numpy(np.fromfile(os.path.join(a.work, "train.bin"), np.uint16).astype(np.int16)).to(device)
    starts = torch.from_numpy(np.fromfile(os.path.join(a.work, "starts.bin"), np.int64)).to(device)
    model = llama.Llama(config(tok.get_vocab_size(), tok.token_to_id("<|endoftext|>"))).init().to(device)
    window = model.config["max_position_embeddings"]
    starts = starts[starts < len(tokens) - window - 1]
    span = torch.arange(window + 1, device=device)

    def batch():
        """Half of the windows begin where a story begins, half anywhere."""
        half = a.batch // 2
        at = torch.cat([starts[torch.randint(len(starts), (half,), device=device)],
                        torch.randint(len(tokens) - window - 1, (a.batch - half,), device=device)])
        rows = tokens[at.unsqueeze(1) + span].long()
        return rows[:, :-1], rows[:, 1:]

    def loss_of(x, y):
        with torch.autocast(device, torch.bfloat16):
            logits = model(x)
        return F.cross_entropy(logits.float().flatten(0, 1), y.flatten())

    groups = [dict(params=[q for q in model.parameters() if q.dim() == 2], weight_decay=0.1),
              dict(params=[q for q in model.parameters() if q.dim() == 1], weight_decay=0.0)]
    opt = torch.optim.AdamW(groups, lr=a.lr, betas=(0.9, 0.95), fused=device == "cuda")
    loss_fn = torch.compile(loss_of) if a.compile else loss_of
    log, total, step, progress = [], torch.zeros((), device=device), 0, 0.0
    while True:
        if step in (0, 100) or step % 1000 == 0 or progress >= 1.0:
            seconds = time.time() - began
            log.append(dict(step=step, tokens=step * a.batch * window, seconds=round(seconds, 1),
                            heldout_perplexity=llama.perplexity(model, held, window)))
            print(json.dumps(log[-1]), flush=True)
            with open(os.path.join(a.work, "log.json"), "w") as f:
                json.dump(dict(parameters=sum(q.numel() for q in model.parameters()), arguments=vars(a), log=log), f, indent=1)
            llama.save(model, out)
        if progress >= 1.0:
            break
        warm = min(1.0, (step + 1) / 200)
        for g in opt.param_groups:
            g["lr"] = a.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        loss = loss_fn(*batch())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        step += 1
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f} seconds {time.time() - began:.1f}", flush=True)
        progress = min(1.0, max(step / a.steps, (time.time() - began) / (60 * a.minutes)))


if __name__ == "__main__":
    main()

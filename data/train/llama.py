"""A Llama-architecture language model in plain torch, written as a Hugging Face directory: its parameters bear the names
that the files use."""
import json
import os

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn


def rope_tables(positions, head_dim, theta):
    """cos and sin of shape positions.shape + [head_dim], halves repeated (the rotate-half convention)."""
    inv = theta ** (-torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim)
    angle = positions.float().unsqueeze(-1) * inv
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Norm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, hd = c["hidden_size"], c["head_dim"]
        self.heads, self.kv_heads, self.head_dim = c["num_attention_heads"], c["num_key_value_heads"], hd
        self.q_proj = nn.Linear(d, self.heads * hd, bias=False)
        self.k_proj = nn.Linear(d, self.kv_heads * hd, bias=False)
        self.v_proj = nn.Linear(d, self.kv_heads * hd, bias=False)
        self.o_proj = nn.Linear(self.heads * hd, d, bias=False)

    def qkv(self, x, cos, sin):
        """q [B, heads, T, hd], k and v [B, kv_heads, T, hd]; q and k rotated."""
        b, t, _ = x.shape
        q, k, v = (p(x).view(b, t, -1, self.head_dim).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        return rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype), v

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q, k, v = self.qkv(x, cos, sin)
        k, v = (a.repeat_interleave(self.heads // self.kv_heads, 1) for a in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, f = c["hidden_size"], c["intermediate_size"]
        self.gate_proj, self.up_proj = nn.Linear(d, f, bias=False), nn.Linear(d, f, bias=False)
        self.down_proj = nn.Linear(f, d, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, eps = c["hidden_size"], c["rms_norm_eps"]
        self.self_attn, self.mlp = Attention(c), Mlp(c)
        self.input_layernorm, self.post_attention_layernorm = Norm(d, eps), Norm(d, eps)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Tied head; no biases."""

    def __init__(self, c):
        super().__init__()
        self.config = c
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.model.layers = nn.ModuleList(Block(c) for _ in range(c["num_hidden_layers"]))
        self.model.norm = Norm(c["hidden_size"], c["rms_norm_eps"])

    def init(self):
        """Normal weights; those that write into the residual stream are smaller by sqrt(2 layers)."""
        for name, p in self.named_parameters():
            if p.dim() == 2:
                out = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = 0.02 / (2 * self.config["num_hidden_layers"]) ** 0.5 if out else 0.02
                nn.init.normal_(p, 0.0, std)
        return self

    def forward(self, ids):
        """Logits [B, T, vocab] of ids [B, T]; the head is the embedding."""
        x = self.model.embed_tokens(ids)
        cos, sin = rope_tables(torch.arange(ids.shape[1], device=ids.device), self.config["head_dim"],
                               self.config["rope_theta"])
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)


def load(directory, dtype, device):
    with open(os.path.join(directory, "config.json")) as f:
        model = Llama(json.load(f))
    model.load_state_dict(load_file(os.path.join(directory, "model.safetensors")))
    return model.to(device=device, dtype=dtype).eval()


def save(model, directory):
    """config.json and model.safetensors (bf16)."""
    os.makedirs(directory, exist_ok=True)
    tensors = {k: v.detach().to("cpu", torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    path = os.path.join(directory, "model.safetensors")
    save_file(tensors, path, {"format": "pt"})
    os.chmod(path, 0o644)                                 # the writer leaves it to its owner alone
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(model.config, f, indent=2)
        f.write("\n")


@torch.no_grad()
def perplexity(model, ids, window=512, batch=32):
    """exp of the mean loss over non-overlapping windows, each scored from its second token; the remainder is dropped."""
    device = next(model.parameters()).device
    rows = torch.as_tensor(ids[:len(ids) // window * window], dtype=torch.long).view(-1, window)
    total = 0.0
    for i in range(0, len(rows), batch):
        x = rows[i:i + batch].to(device)
        logits = model(x)[:, :-1].float()
        total += F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="sum").double().item()
    return float(torch.tensor(total / (len(rows) * (window - 1))).exp())

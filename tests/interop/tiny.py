"""Tiny checkpoints that know one text by heart: their logits are far apart, yet hang on every part of the model being right."""
import json
from pathlib import Path

import torch
import transformers

SIZES = dict(vocab_size=512, hidden_size=64, intermediate_size=128, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
             max_position_embeddings=256, bos_token_id=500, eos_token_id=501, pad_token_id=0)
LONGROPE = dict(rope_type="longrope", rope_theta=1e4, original_max_position_embeddings=64)
RISING = lambda n, last: [1 + (last - 1) * i / (n - 1) for i in range(n)]
GEMMA3_ROPE = dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                   sliding_attention=dict(rope_type="default", rope_theta=1e4))
# transformers' class, options, a tokenizer of tests/data/tokenizers
FAMILIES = {
    "gemma2": ("Gemma2", dict(num_hidden_layers=2, sliding_window=24, query_pre_attn_scalar=32, attn_logit_softcapping=5.0,
                              final_logit_softcapping=12.0), "gemma"),
    "gemma3": ("Gemma3", dict(num_hidden_layers=3, sliding_window=24, query_pre_attn_scalar=32, rope_parameters=GEMMA3_ROPE,
                              layer_types=["sliding_attention"] * 2 + ["full_attention"]), "gemma"),
    "phi3": ("Phi3", dict(num_hidden_layers=2, head_dim=None, original_max_position_embeddings=64,
                          rope_parameters=dict(LONGROPE, short_factor=RISING(16, 1.5), long_factor=RISING(16, 6))), "llama2"),
    # llama.cpp looks at the room it has, 256 positions here, to choose between the factors
    "phi4": ("Phi3", dict(num_hidden_layers=2, head_dim=None, max_position_embeddings=512, original_max_position_embeddings=256, tie_word_embeddings=True,
                          rope_parameters=dict(LONGROPE, short_factor=RISING(8, 1.7), long_factor=RISING(8, 6),
                                               original_max_position_embeddings=256, partial_rotary_factor=0.5)), "qwen2"),
}

MOE = dict(num_hidden_layers=2, num_experts_per_tok=2, moe_intermediate_size=64)
EXPERTS = {
    "mixtral": ("Mixtral", dict(MOE, intermediate_size=64, num_local_experts=6), "llama2"),
    "qwen2moe": ("Qwen2Moe", dict(MOE, num_experts=6, shared_expert_intermediate_size=64, head_dim=None), "qwen2"),
    "qwen3moe": ("Qwen3Moe", dict(MOE, num_experts=6, norm_topk_prob=True), "qwen2"),
}


def as_sentencepiece(tokenizer):
    """The merges that a conversion from SentencePiece lists: every pair that makes a token, in the order of the tokens' scores."""
    vocab, order = tokenizer["model"]["vocab"], {}
    if not tokenizer["model"].get("byte_fallback"):
        return tokenizer
    for left, right in tokenizer["model"]["merges"]:
        order.setdefault(left + right, len(order))
    plain = {t for t in vocab if not (t.startswith("<0x") or t == "<unk>")}
    tokenizer["model"]["merges"] = [[token[:i], token[i:]] for token in order for i in range(1, len(token))
                                    if token[:i] in plain and token[i:] in plain]
    return tokenizer


def byte_tokenizer():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = dict(zip(plain, map(chr, plain))) | {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in plain)}
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": by_bytes, "post_processor": None,
            "decoder": by_bytes, "model": {"type": "BPE", "vocab": {letters[b]: b for b in range(256)}, "merges": []}}


def checkpoint(folder, family, options, tokenizer):
    """An untrained model with its tokenizer, in memory and, but for the weights, on the disk."""
    config_class = getattr(transformers, family + "TextConfig", None) or getattr(transformers, family + "Config")
    torch.manual_seed(0)
    net = getattr(transformers, family + "ForCausalLM")(config_class(**{k: v for k, v in {**SIZES, **options}.items() if v is not None}))
    Path(folder).mkdir(parents=True)
    made = json.loads(Path(f"tests/data/tokenizers/{tokenizer}.json").read_text())
    (Path(folder) / "tokenizer.json").write_text(json.dumps(as_sentencepiece(made)))
    return net


def learn(net, windows, steps=200):
    torch.set_num_threads(1)  # so small that a second one only costs
    for name, p in net.named_parameters():
        if "norm" in name:
            p.data += 0.1 * torch.randn_like(p)
    ids, best = torch.tensor(windows), torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(best, 3e-3, total_steps=steps)
    net.train()
    for _ in range(steps):
        loss = net(ids, labels=ids).loss
        best.zero_grad()
        loss.backward()
        best.step()
        schedule.step()
    return loss.item()

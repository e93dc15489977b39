#!/usr/bin/env python3
"""Writes a tiny checkpoint with loud random weights for every family, and what transformers and autograd make of it in float32.

usage: make_families.py [OUTDIR [NAME...]]        (default: tests/data/families, all)

  NAME/                  config.json, model.safetensors (bf16)
  NAME.safetensors       ids I64 [T]; logits F32 [T, vocab]; for each block i, with P the prefix of its weights:
                           P.in, P.out, P.target F32 [T, D]; P.grad.LAYER.weight F32: d mean((out - target)^2) / d weight"""
import json
import os
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.bloom.modeling_bloom import _get_alibi_slopes as build_alibi_slopes
from transformers.pytorch_utils import Conv1D

TOKENS, VOCAB, LAYERS = 20, 64, 2
SIZES = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
WINDOWS = ["sliding_attention", "full_attention"]

HEADS = dict(num_key_value_heads=None)  # families without that key
EXPERTS = dict(num_experts_per_tok=2, moe_intermediate_size=32)
# transformers' name, options; NAME_stacked: the experts of a layer in 3-D tensors, as transformers holds them
FAMILIES = {
    "mistral": ("Mistral", dict(sliding_window=7, head_dim=16)),
    "qwen2": ("Qwen2", dict(use_sliding_window=True, sliding_window=6, max_window_layers=1)),
    "qwen3": ("Qwen3", dict(head_dim=16, rope_parameters=dict(rope_type="default", rope_theta=1e6))),
    "smollm3": ("SmolLM3", dict(no_rope_layers=[1, 0])),
    "olmo2": ("Olmo2", dict()),
    "gemma": ("Gemma", dict(head_dim=16, num_key_value_heads=1)),
    "gemma2": ("Gemma2", dict(head_dim=16, sliding_window=5, query_pre_attn_scalar=24, attn_logit_softcapping=3.0,
                              final_logit_softcapping=2.0)),
    "gemma3": ("Gemma3", dict(head_dim=16, sliding_window=5, query_pre_attn_scalar=24, layer_types=WINDOWS,
                              attn_logit_softcapping=3.0,  # which the model does not heed
                              rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                                                   sliding_attention=dict(rope_type="default", rope_theta=1e4)))),
    "gemma3_vision": ("Gemma3", dict(head_dim=16, sliding_window=5, layer_types=WINDOWS)),
    "phi": ("Phi", dict(head_dim=None, partial_rotary_factor=0.5)),
    "phi_norms": ("Phi", dict(head_dim=None, partial_rotary_factor=0.5, qk_layernorm=True, num_key_value_heads=4,
                               tie_word_embeddings=True)),
    "phi3": ("Phi3", dict(sliding_window=9, original_max_position_embeddings=16,  # fewer than TOKENS: the long factors
                          rope_parameters=dict(rope_type="longrope", rope_theta=1e4, short_factor=[1.0, 1.1, 1.2, 1.3],
                                               long_factor=[1.5, 2.0, 3.0, 5.0], original_max_position_embeddings=16))),
    "phi4": ("Phi3", dict(original_max_position_embeddings=32,
                          rope_parameters=dict(rope_type="longrope", rope_theta=1e4, short_factor=[1.2, 1.7],
                                               long_factor=[2.0, 3.0], original_max_position_embeddings=32,
                                               partial_rotary_factor=0.5))),
    "starcoder2": ("Starcoder2", dict(sliding_window=8)),
    "gpt_neox": ("GPTNeoX", dict(HEADS, rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5))),
    "gpt_neox_serial": ("GPTNeoX", dict(HEADS, use_parallel_residual=False)),
    "opt": ("OPT", dict(HEADS, intermediate_size=None, ffn_dim=64)),
    "opt_post": ("OPT", dict(HEADS, intermediate_size=None, ffn_dim=64, do_layer_norm_before=False, word_embed_proj_dim=16)),
    "opt_bare": ("OPT", dict(HEADS, intermediate_size=None, ffn_dim=64, enable_bias=False, _remove_final_layer_norm=True)),
    "gpt2": ("GPT2", dict(HEADS, intermediate_size=None, n_inner=64)),
    "gptj": ("GPTJ", dict(HEADS, intermediate_size=None, n_inner=64, rotary_dim=4)),
    "falcon": ("Falcon", dict(HEADS, intermediate_size=None, ffn_hidden_size=64)),
    "falcon_new": ("Falcon", dict(HEADS, intermediate_size=None, ffn_hidden_size=64, new_decoder_architecture=True,
                                  num_kv_heads=2, bias=True)),
    "falcon_serial": ("Falcon", dict(HEADS, intermediate_size=None, ffn_hidden_size=64, multi_query=False, parallel_attn=False,
                                     bias=True)),
    "falcon_alibi": ("Falcon", dict(HEADS, intermediate_size=None, ffn_hidden_size=64, num_attention_heads=8, multi_query=False,
                                    parallel_attn=False, bias=True, alibi=True)),
    "bloom": ("Bloom", dict(HEADS, intermediate_size=None, num_attention_heads=8)),
    "mixtral": ("Mixtral", dict(EXPERTS, intermediate_size=32, num_local_experts=5)),
    "mixtral_stacked": ("Mixtral", dict(EXPERTS, intermediate_size=32, num_local_experts=4, sliding_window=7)),
    "qwen2_moe": ("Qwen2Moe", dict(EXPERTS, num_experts=5, shared_expert_intermediate_size=64, mlp_only_layers=[1])),
    "qwen2_moe_stacked": ("Qwen2Moe", dict(EXPERTS, num_experts=4, shared_expert_intermediate_size=32, norm_topk_prob=True,
                                           qkv_bias=False, use_sliding_window=True, sliding_window=6, max_window_layers=1)),
    "qwen3_moe": ("Qwen3Moe", dict(EXPERTS, num_experts=7, num_experts_per_tok=3, head_dim=16, norm_topk_prob=True,
                                   decoder_sparse_step=2)),
    "qwen3_moe_stacked": ("Qwen3Moe", dict(EXPERTS, num_experts=4, use_sliding_window=True, sliding_window=5)),
    "baichuan_rope": ("Llama", HEADS),
    "baichuan2": ("Llama", HEADS),
    "baichuan_alibi": ("Llama", dict(HEADS, hidden_size=96, intermediate_size=32, num_attention_heads=6)),
}


VISION = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14)


def loud(model, seed):
    gen = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        x = torch.randn(p.shape, generator=gen)
        if p.dim() > 1:
            p.data = x * (0.5 if "embed" in name else 1.5 / p.shape[-1] ** 0.5)
        else:
            p.data = (p.data.mean().round() if "weight" in name else 0) + 0.3 * x  # 1, or 0 where w - 1 is stored


# Baichuan is not in transformers: it is Llama with q, k and v in one linear, and for the larger model ALiBi instead of rotation.
def fuse(tensors):
    out = {}
    for name, x in tensors.items():
        if "k_proj" in name or "v_proj" in name:
            continue
        if "q_proj" in name:
            x = torch.cat([tensors[name.replace("q_proj", p)] for p in ("q_proj", "k_proj", "v_proj")])
        out[name.replace("q_proj", "W_pack")] = x.contiguous()
    return out


def save_as_baichuan(folder, alibi, second):
    path = os.path.join(folder, "model.safetensors")
    save_file(fuse(load_file(path)), path, metadata={"format": "pt"})
    path = os.path.join(folder, "config.json")
    config = json.load(open(path))
    config.update(architectures=["BaichuanForCausalLM"], model_type="baichuan", model_max_length=64)
    if alibi:
        del config["max_position_embeddings"]
    if second:
        config["z_loss_weight"] = 0
    json.dump(config, open(path, "w"), indent=2)


def with_alibi(model):
    """Rotation by nothing, and slopes in the mask; returns the mask."""
    heads = model.config.num_attention_heads
    model.model.rotary_emb.forward = lambda x, position_ids: (torch.ones(1, TOKENS, 1), torch.zeros(1, TOKENS, 1))
    distance = torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)[None, :]
    mask = -build_alibi_slopes(heads, "cpu")[:, None, None] * distance
    return mask.masked_fill(distance < 0, torch.finfo(torch.float32).min)[None]


def experts_eager(model):
    return dict(experts_implementation="eager") if hasattr(model.config, "num_experts_per_tok") else {}


def make(outdir, name):
    family, options = FAMILIES[name][:2]
    config_class = getattr(transformers, family + "TextConfig", None) or getattr(transformers, family + "Config")
    model_class = getattr(transformers, family + "ForCausalLM", None) or getattr(transformers, family + "LMHeadModel")
    folder = os.path.join(outdir, name)
    config = config_class(**{k: v for k, v in {**SIZES, **options}.items() if v is not None})
    if name.endswith("_vision"):
        model_class = getattr(transformers, family + "ForConditionalGeneration")
        config = getattr(transformers, family + "Config")(text_config=config, vision_config=VISION, mm_tokens_per_image=4)
    model = model_class(config)
    loud(model, 5)
    model.to(torch.bfloat16).save_pretrained(folder, save_original_format=not name.endswith("_stacked"))
    if os.path.exists(os.path.join(folder, "generation_config.json")):
        os.remove(os.path.join(folder, "generation_config.json"))
    baichuan, alibi = name.startswith("baichuan"), name == "baichuan_alibi"
    attention = "sdpa" if name == "falcon_alibi" else "eager"  # eager Falcon adds its ALiBi twice
    model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention, **experts_eager(model)).eval()

    mask = dict(attention_mask=with_alibi(model)) if alibi else {}
    if baichuan:
        save_as_baichuan(folder, alibi, name == "baichuan2")
    if name == "baichuan2":
        model.lm_head.weight.data = torch.nn.functional.normalize(model.lm_head.weight.data)
    ids = torch.randint(3, VOCAB, (1, TOKENS), generator=torch.Generator().manual_seed(11))
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == LAYERS)
    prefix = next(n for n, m in model.named_modules() if m is blocks)
    seen = {}
    for i, block in enumerate(blocks):
        block.register_forward_hook(lambda m, args, kwargs, out, i=i: seen.__setitem__(i, (args, kwargs, out)), with_kwargs=True)
    with torch.no_grad():
        logits = model(ids, use_cache=False, **mask).logits[0]
    out = {"ids": ids[0], "logits": logits.contiguous()}
    gen = torch.Generator().manual_seed(13)
    for i, block in enumerate(blocks):
        args, kwargs, _ = seen[i]
        x = args[0] if args else kwargs["hidden_states"]
        model.zero_grad()
        y = block(*args, **kwargs)
        y = y[0] if isinstance(y, tuple) else y
        target = torch.randn(y.shape, generator=gen)
        torch.nn.functional.mse_loss(y, target).backward()
        p = f"{prefix}.{i}."
        out.update({p + "in": x[0].contiguous(), p + "out": y[0].detach().contiguous(), p + "target": target[0]})
        for layer, module in block.named_modules():
            if isinstance(module, (torch.nn.Linear, Conv1D)) and "shared_expert_gate" not in layer:
                grad = module.weight.grad
                out[f"{p}grad.{layer}.weight"] = (grad.T if isinstance(module, Conv1D) else grad).contiguous()  # [out, in]
            if hasattr(module, "gate_up_proj") and isinstance(module.gate_up_proj, torch.nn.Parameter):
                gate, up = module.gate_up_proj.grad.chunk(2, dim=1)
                grads = zip(("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"), (gate, up, module.down_proj.grad))
                for new, old, grad in grads:  # one expert below the other
                    where = f"block_sparse_moe.experts.*.{old}" if family == "Mixtral" else f"{layer}.*.{new}"
                    out[f"{p}grad.{where}.weight"] = grad.flatten(0, 1).contiguous()
    save_file(fuse(out) if baichuan else out, os.path.join(outdir, name + ".safetensors"))
    nll = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{name}: perplexity {nll.exp().item():.4g}, largest logit {logits.abs().max().item():.3g}, largest state "
          f"{y.abs().max().item():.3g}, {size} + {os.path.getsize(os.path.join(outdir, name + '.safetensors'))} bytes")


here = os.path.dirname(os.path.abspath(__file__))
outdir = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "data", "families")
for name in sys.argv[2:] or FAMILIES:
    make(outdir, name)

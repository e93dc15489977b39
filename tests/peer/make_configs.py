#!/usr/bin/env python3
"""Writes what transformers makes of the config.json of well-known models, and of the same with keys left out or spelt otherwise.

usage: make_configs.py [OUT]        (default: tests/data/configs.json)

A list of {name, configs: [as published, as transformers 5 would save it], expected: {weights: {name: shape} of the first block
and what lies around the blocks, eps, act: the activation at 1.3, window: by layer (0: none), tied, scale: of scores, experts:
[count, active, ffn, shared ffn] or null (else weights are without MLPs), rope: [{scale, inv_freq, long_at, long_inv_freq}] of the
model, then of layers with a window if they have their own}}."""
import copy
import json
import os
import sys
import tempfile

import torch
import transformers

LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192, rope_type="llama3")
SHORT = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.05, 1.05, 1.1, 1.1, 1.15, 1.2, 1.25, 1.25, 1.3, 1.35, 1.4, 1.45, 1.5, 1.6, 1.7,
         1.8, 1.9, 2.0, 2.0, 2.05, 2.1, 2.2, 2.3, 2.4, 2.5, 2.55, 2.6, 2.65, 2.7, 2.75, 2.8, 2.85, 2.9, 2.95, 3.0, 3.0, 3.0, 3.0,
         3.0, 3.0]
LONG = [1.08 + 0.02 * i * i for i in range(48)]


def llama(hidden, ffn, layers, heads, kv, vocab, positions, **more):
    return dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=hidden, intermediate_size=ffn,
                num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv, vocab_size=vocab,
                max_position_embeddings=positions, hidden_act="silu", pretraining_tp=1, use_cache=True,
                torch_dtype="bfloat16") | dict(rms_norm_eps=1e-5) | more


def qwen(kind, hidden, ffn, layers, heads, kv, **more):
    return dict(architectures=[kind + "ForCausalLM"], model_type=kind.lower(), hidden_size=hidden, intermediate_size=ffn,
                num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv, vocab_size=151936,
                max_position_embeddings=32768, hidden_act="silu", rms_norm_eps=1e-6, rope_theta=1e6, sliding_window=32768,
                use_sliding_window=False, max_window_layers=layers, torch_dtype="bfloat16") | more


def phi3(hidden, ffn, layers, heads, kv, **more):
    return dict(architectures=["Phi3ForCausalLM"], model_type="phi3", hidden_size=hidden, intermediate_size=ffn,
                num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv, hidden_act="silu",
                rms_norm_eps=1e-5, rope_theta=1e4, vocab_size=32064, original_max_position_embeddings=4096, rope_scaling=None,
                tie_word_embeddings=False, attention_bias=False, torch_dtype="bfloat16") | more


GEMMA2 = dict(architectures=["Gemma2ForCausalLM"], model_type="gemma2", attention_bias=False, attn_logit_softcapping=50.0,
              cache_implementation="hybrid", final_logit_softcapping=30.0, head_dim=256, hidden_act="gelu_pytorch_tanh",
              hidden_activation="gelu_pytorch_tanh", hidden_size=2304, intermediate_size=9216, max_position_embeddings=8192,
              num_attention_heads=8, num_hidden_layers=26, num_key_value_heads=4, query_pre_attn_scalar=256,
              rms_norm_eps=1e-6, rope_theta=10000.0, sliding_window=4096, torch_dtype="float32", vocab_size=256000)
GEMMA3 = dict(architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", attention_bias=False, attn_logit_softcapping=None,
              final_logit_softcapping=None, head_dim=256, hidden_activation="gelu_pytorch_tanh", hidden_size=1152,
              intermediate_size=6912, max_position_embeddings=32768, num_attention_heads=4, num_hidden_layers=26,
              num_key_value_heads=1, query_pre_attn_scalar=256, rms_norm_eps=1e-6, rope_local_base_freq=10000,
              rope_scaling=None, rope_theta=1000000, sliding_window=512, sliding_window_pattern=6, vocab_size=262144)
PHI2 = dict(architectures=["PhiForCausalLM"], model_type="phi", hidden_act="gelu_new", hidden_size=2560, intermediate_size=10240,
            layer_norm_eps=1e-5, max_position_embeddings=2048, num_attention_heads=32, num_hidden_layers=32,
            num_key_value_heads=32, partial_rotary_factor=0.4, qk_layernorm=False, rope_scaling=None, rope_theta=10000.0,
            tie_word_embeddings=False, torch_dtype="float16", vocab_size=51200)
PYTHIA = dict(architectures=["GPTNeoXForCausalLM"], model_type="gpt_neox", hidden_act="gelu", hidden_size=512,
              intermediate_size=2048, layer_norm_eps=1e-5, max_position_embeddings=2048, num_attention_heads=8,
              num_hidden_layers=6, rotary_emb_base=10000, rotary_pct=0.25, tie_word_embeddings=False, torch_dtype="float16",
              use_parallel_residual=True, vocab_size=50304)
FALCON = dict(architectures=["FalconForCausalLM"], model_type="falcon", alibi=False, bias=False, hidden_size=4544,
              layer_norm_epsilon=1e-5, multi_query=True, new_decoder_architecture=False, num_attention_heads=71,
              num_hidden_layers=32, parallel_attn=True, torch_dtype="bfloat16", vocab_size=65024,
              apply_residual_connection_post_layernorm=False, hidden_dropout=0.0)
OPT = dict(architectures=["OPTForCausalLM"], model_type="opt", _remove_final_layer_norm=False, activation_function="relu",
           do_layer_norm_before=True, ffn_dim=3072, hidden_size=768, max_position_embeddings=2048, num_attention_heads=12,
           num_hidden_layers=12, torch_dtype="float16", vocab_size=50272, word_embed_proj_dim=768, prefix="</s>")
GPT2 = dict(architectures=["GPT2LMHeadModel"], model_type="gpt2", activation_function="gelu_new", layer_norm_epsilon=1e-5,
            n_ctx=1024, n_embd=768, n_head=12, n_layer=12, n_positions=1024, vocab_size=50257)

CONFIGS = {
    "llama-3.2-1b": llama(2048, 8192, 16, 32, 8, 128256, 131072, head_dim=64, rope_theta=500000.0, attention_bias=False,
                          mlp_bias=False, tie_word_embeddings=True, rope_scaling=dict(LLAMA3, factor=32.0)),
    "llama-3.1-8b": llama(4096, 14336, 32, 32, 8, 128256, 131072, rope_theta=500000.0, rope_scaling=LLAMA3,
                          tie_word_embeddings=False),
    "llama-2-7b": llama(4096, 11008, 32, 32, 32, 32000, 4096, rope_scaling=None, tie_word_embeddings=False),
    "vicuna-16k": llama(4096, 11008, 32, 32, 32, 32000, 4096, rope_scaling=dict(factor=4.0, type="linear")),
    "tinyllama": llama(2048, 5632, 22, 32, 4, 32000, 2048, rope_scaling=None, rope_theta=10000.0),
    "yi-6b": llama(4096, 11008, 32, 32, 4, 64000, 4096, rope_theta=5000000.0, tie_word_embeddings=False),
    "smollm2-135m": llama(576, 1536, 30, 9, 3, 49152, 8192, rope_theta=100000, tie_word_embeddings=True, rope_interleaved=False),
    "llama-dynamic": llama(512, 1024, 2, 8, None, 1000, 32, rope_scaling=dict(type="dynamic", factor=2.0), head_dim=None),
    "llama-yarn": llama(4096, 11008, 4, 32, 32, 32000, 131072, rope_scaling=dict(factor=32.0, type="yarn", finetuned=True,
                                                                             original_max_position_embeddings=4096)),
    "deepseek-r1-distill-qwen-1.5b": qwen("Qwen2", 1536, 8960, 28, 12, 2, max_position_embeddings=131072, rope_theta=10000,
                                          sliding_window=4096, max_window_layers=21, use_mrope=False),
    "mistral-7b-v0.1": dict(architectures=["MistralForCausalLM"], model_type="mistral", hidden_act="silu", hidden_size=4096,
                            intermediate_size=14336, max_position_embeddings=32768, num_attention_heads=32,
                            num_hidden_layers=32, num_key_value_heads=8, rms_norm_eps=1e-5, rope_theta=10000.0,
                            sliding_window=4096, tie_word_embeddings=False, torch_dtype="bfloat16", vocab_size=32000),
    "mistral-7b-v0.3": dict(architectures=["MistralForCausalLM"], model_type="mistral", hidden_act="silu", hidden_size=4096,
                            intermediate_size=14336, max_position_embeddings=32768, num_attention_heads=32,
                            num_hidden_layers=32, num_key_value_heads=8, rms_norm_eps=1e-5, rope_theta=1000000.0,
                            sliding_window=None, tie_word_embeddings=False, torch_dtype="bfloat16", vocab_size=32768),
    "mistral-nemo": dict(architectures=["MistralForCausalLM"], model_type="mistral", head_dim=128, hidden_size=5120,
                         intermediate_size=14336, num_hidden_layers=40, max_position_embeddings=131072, rms_norm_eps=1e-5,
                         rope_theta=1000000.0, sliding_window=None, vocab_size=131072),
    "qwen2.5-0.5b": qwen("Qwen2", 896, 4864, 24, 14, 2, tie_word_embeddings=True, use_mrope=False),
    "qwen2.5-7b-yarn": qwen("Qwen2", 3584, 18944, 28, 28, 4, vocab_size=152064, rope_scaling=dict(
        factor=4.0, original_max_position_embeddings=32768, type="yarn")),
    "qwen2-windows": qwen("Qwen2", 896, 4864, 24, 14, 2, use_sliding_window=True, sliding_window=128, max_window_layers=21),
    "qwen2-null-window": qwen("Qwen2", 896, 4864, 24, 14, 2, use_sliding_window=True, sliding_window=None, max_window_layers=21),
    "qwen3-0.6b": qwen("Qwen3", 1024, 3072, 28, 16, 8, max_position_embeddings=40960, head_dim=128, attention_bias=False,
                       sliding_window=None, tie_word_embeddings=True, rope_scaling=None),
    "qwen3-few-keys": {k: v for k, v in qwen("Qwen3", 1024, 3072, 28, 64, 8).items() if k != "num_key_value_heads"},
    "qwen3-yarn": qwen("Qwen3", 2048, 6144, 4, 16, 8, head_dim=128, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32768, beta_fast=24, beta_slow=2, mscale=0.8,
        mscale_all_dim=0.5, truncate=False)),
    "qwen3-yarn-factor": qwen("Qwen3", 2048, 6144, 4, 16, 8, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=32768, attention_factor=0.7)),
    "smollm3-3b": dict(architectures=["SmolLM3ForCausalLM"], model_type="smollm3", attention_bias=False, hidden_act="silu",
                       hidden_size=2048, intermediate_size=11008, max_position_embeddings=65536, max_window_layers=28,
                       mlp_bias=False, no_rope_layer_interval=4, no_rope_layers=[1, 1, 1, 0] * 9, num_attention_heads=16,
                       num_hidden_layers=36, num_key_value_heads=4, pretraining_tp=2, rms_norm_eps=1e-6, rope_scaling=None,
                       rope_theta=5000000.0, sliding_window=None, torch_dtype="bfloat16", use_sliding_window=False,
                       layer_types=["full_attention"] * 36, vocab_size=128256),
    "olmo2-1b": dict(architectures=["Olmo2ForCausalLM"], model_type="olmo2", attention_bias=False, hidden_act="silu",
                     hidden_size=2048, intermediate_size=8192, max_position_embeddings=4096, num_attention_heads=16,
                     num_hidden_layers=16, num_key_value_heads=16, rms_norm_eps=1e-6, rope_scaling=None, rope_theta=500000,
                     tie_word_embeddings=False, torch_dtype="float32", vocab_size=100352),
    "gemma-2b": dict(architectures=["GemmaForCausalLM"], model_type="gemma", head_dim=256, hidden_act="gelu_pytorch_tanh",
                     hidden_size=2048, intermediate_size=16384, max_position_embeddings=8192, num_attention_heads=8,
                     num_hidden_layers=18, num_key_value_heads=1, rms_norm_eps=1e-6, rope_scaling=None, rope_theta=10000.0,
                     torch_dtype="bfloat16", vocab_size=256000, hidden_activation=None),
    "gemma-2-2b": GEMMA2,
    "gemma-2-27b": GEMMA2 | dict(hidden_size=4608, intermediate_size=36864, num_attention_heads=32, num_hidden_layers=46,
                                 num_key_value_heads=16, head_dim=128, query_pre_attn_scalar=144, sliding_window_size=4096),
    "gemma-3-1b": GEMMA3,
    "gemma-3-270m": GEMMA3 | dict(hidden_size=640, intermediate_size=2048, num_hidden_layers=18, _sliding_window_pattern=6,
                                  layer_types=(["sliding_attention"] * 5 + ["full_attention"]) * 3,
                                  use_bidirectional_attention=False),
    "gemma-3-scaled": GEMMA3 | dict(rope_scaling=dict(factor=8.0, rope_type="linear")),
    "gemma-3-4b": dict(architectures=["Gemma3ForConditionalGeneration"], model_type="gemma3", boi_token_index=255999,
                       mm_tokens_per_image=256, torch_dtype="bfloat16", text_config=dict(
                           hidden_size=2560, intermediate_size=10240, model_type="gemma3_text", num_hidden_layers=34,
                           rope_scaling=dict(factor=8.0, rope_type="linear"), sliding_window=1024),
                       vision_config=dict(hidden_size=1152, image_size=896, intermediate_size=4304, num_hidden_layers=27,
                                          model_type="siglip_vision_model", num_attention_heads=16, patch_size=14)),
    "phi-2": PHI2,
    "phi-1.5": PHI2 | dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_key_value_heads=None,
                           partial_rotary_factor=0.5),
    "phi-3-mini-4k": phi3(3072, 8192, 32, 32, 32, max_position_embeddings=4096, sliding_window=2047),
    "phi-3-mini-128k": phi3(3072, 8192, 32, 32, 32, max_position_embeddings=131072, sliding_window=262144, rope_scaling=dict(
        long_factor=LONG, short_factor=SHORT, type="longrope")),
    "phi-4": phi3(5120, 17920, 40, 40, 10, max_position_embeddings=16384, original_max_position_embeddings=16384,
                  rope_theta=250000, vocab_size=100352, sliding_window=None),
    "phi-4-mini": phi3(3072, 8192, 32, 24, 8, max_position_embeddings=131072, partial_rotary_factor=0.75, sliding_window=262144,
                       tie_word_embeddings=True, vocab_size=200064, rope_scaling=dict(long_factor=LONG, short_factor=SHORT,
                                                                                      type="longrope")),
    "starcoder2-3b": dict(architectures=["Starcoder2ForCausalLM"], model_type="starcoder2", hidden_act="gelu_pytorch_tanh",
                          hidden_size=3072, intermediate_size=12288, max_position_embeddings=16384, mlp_type="default",
                          norm_epsilon=1e-5, norm_type="layer_norm", num_attention_heads=24, num_hidden_layers=30,
                          num_key_value_heads=2, rope_theta=999999.4420358813, sliding_window=4096, use_bias=True,
                          vocab_size=49152, torch_dtype="bfloat16"),
    "pythia-70m": PYTHIA,
    "pythia-scaled": PYTHIA | dict(rope_scaling=dict(type="linear", factor=2.0), rotary_emb_base=50000),
    "opt-125m": OPT,
    "mixtral-8x7b": dict(architectures=["MixtralForCausalLM"], model_type="mixtral", hidden_act="silu", hidden_size=4096,
                         intermediate_size=14336, max_position_embeddings=32768, num_attention_heads=32, num_experts_per_tok=2,
                         num_hidden_layers=32, num_key_value_heads=8, num_local_experts=8, rms_norm_eps=1e-5,
                         rope_theta=1000000.0, router_aux_loss_coef=0.02, sliding_window=None, tie_word_embeddings=False,
                         torch_dtype="bfloat16", vocab_size=32000),
    "qwen1.5-moe-a2.7b": qwen("Qwen2Moe", 2048, 5632, 24, 16, 16, model_type="qwen2_moe", decoder_sparse_step=1,
                              moe_intermediate_size=1408, num_experts=60, num_experts_per_tok=4, norm_topk_prob=False,
                              shared_expert_intermediate_size=5632, max_position_embeddings=8192, max_window_layers=21,
                              tie_word_embeddings=False),
    "qwen3-30b-a3b": qwen("Qwen3Moe", 2048, 6144, 48, 32, 4, model_type="qwen3_moe", head_dim=128, attention_bias=False,
                          decoder_sparse_step=1, mlp_only_layers=[], moe_intermediate_size=768, norm_topk_prob=True,
                          num_experts=128, num_experts_per_tok=8, max_position_embeddings=40960, sliding_window=None,
                          rope_scaling=None, tie_word_embeddings=False),
    "gpt2": GPT2,
    "gpt2-other-names": dict(architectures=["GPT2LMHeadModel"], model_type="gpt2", hidden_size=256, num_hidden_layers=3,
                             num_attention_heads=4, max_position_embeddings=128, n_inner=None, scale_attn_weights=False),
    "gpt-j-6b": dict(architectures=["GPTJForCausalLM"], model_type="gptj", activation_function="gelu_new", n_embd=4096, n_head=16,
                     n_inner=None, n_layer=28, n_positions=2048, rotary=True, rotary_dim=64, tie_word_embeddings=False,
                     vocab_size=50400),
    "falcon-7b": FALCON,
    "falcon-40b": FALCON | dict(hidden_size=8192, new_decoder_architecture=True, num_attention_heads=128, num_kv_heads=8,
                                num_hidden_layers=60),
    "falcon2-11b": FALCON | dict(hidden_size=4096, new_decoder_architecture=True, num_attention_heads=32, num_kv_heads=8,
                                 num_hidden_layers=60, num_ln_in_parallel_attn=1, ff_factor=4, max_position_embeddings=8192,
                                 rope_theta=500042.0),
    "bloom-560m": dict(architectures=["BloomForCausalLM"], model_type="bloom", apply_residual_connection_post_layernorm=False,
                       attention_softmax_in_fp32=True, layer_norm_epsilon=1e-5, masked_softmax_fusion=True, n_embed=1024,
                       n_inner=None, n_layer=24, num_attention_heads=16, pretraining_tp=1, slow_but_exact=False,
                       skip_bias_add=True, vocab_size=250880, offset_alibi=100),
}
# Nothing but the class: its own defaults.
for name in ["Llama", "Mistral", "Qwen2", "Qwen3", "SmolLM3", "Olmo2", "Mixtral", "Qwen2Moe", "Qwen3Moe", "Gemma", "Gemma2", "Gemma3",
             "Phi", "Phi3", "Starcoder2", "GPTNeoX", "OPT", "GPT2", "GPTJ", "Falcon", "Bloom"]:
    kind = getattr(transformers, name + "TextConfig", None) or getattr(transformers, name + "Config")
    tail = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    CONFIGS[name + ", defaults"] = dict(architectures=[name + tail], model_type=kind.model_type)


def config_of(published):
    with tempfile.TemporaryDirectory() as folder:
        json.dump(published, open(os.path.join(folder, "config.json"), "w"))
        config = transformers.AutoConfig.from_pretrained(folder)
        saved = copy.deepcopy(config)
        saved.architectures = published["architectures"]
        saved.save_pretrained(folder)
        return config, json.load(open(os.path.join(folder, "config.json")))


def first(module, *names, default=None):
    return next((getattr(module, n) for n in names if getattr(module, n, None) is not None), default)


def ropes_of(model, config):
    found = [m for _, m in model.named_modules() if any("inv_freq" in n for n, _ in m.named_buffers(recurse=False))]
    if not found:
        return []
    rope = type(found[0])(config)  # on the CPU
    positions = config.max_position_embeddings

    def values(kind):
        prefix = kind + "_" if kind else ""
        out = dict(scale=float(getattr(rope, prefix + "attention_scaling")),
                   inv_freq=getattr(rope, prefix + "inv_freq").tolist())
        name = rope.rope_type[kind] if kind else rope.rope_type
        if name in ("dynamic", "longrope"):
            table = config.rope_parameters
            at = 3 * positions if name == "dynamic" else table["original_max_position_embeddings"] + 1
            rope(torch.zeros(1), torch.arange(at)[None])
            out.update(long_at=at, long_inv_freq=rope.inv_freq.tolist())
        return out

    return [values(k) for k in (["full_attention", "sliding_attention"] if isinstance(rope.rope_type, dict) else [None])]


def expected(config, architecture):
    with torch.device("meta"):
        model = getattr(transformers, architecture)(config)
    tied, config = bool(config.tie_word_embeddings), config.get_text_config()
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == config.num_hidden_layers)
    prefix = next(n for n, m in model.named_modules() if m is blocks)
    head = next(n for n, m in model.named_modules() if m is model.get_output_embeddings())
    weights = {n: list(p.shape) for n, p in model.named_parameters(remove_duplicate=False)
               if (not n.startswith(prefix + ".") or n.startswith(prefix + ".0.")) and not (tied and n == head + ".weight")
               and "vision" not in n and "multi_modal" not in n}
    if architecture == "GPTNeoXForCausalLM":  # files have the old name
        weights = {n.replace("lm_head.", "embed_out."): shape for n, shape in weights.items()}
    experts = first(config, "num_local_experts", "num_experts")
    if experts:  # whose names and shapes in files are others
        weights = {n: shape for n, shape in weights.items() if ".mlp." not in n}
    block = blocks[0]
    attention = first(block, "self_attn", "self_attention", "attention", "attn")
    norm = next(m for m in block.modules() if first(m, "eps", "variance_epsilon") is not None)
    mlp = first(block, "mlp", default=block)
    act = first(first(mlp, "experts", default=mlp), "act", "act_fn", "activation_fn", "activation", "gelu_impl", default=None)
    everywhere = 0 if getattr(config, "layer_types", None) else getattr(config, "sliding_window", None)  # by the model's mask
    windows = [first(first(b, "self_attn", "self_attention", "attention", "attn"), "sliding_window", default=everywhere) or 0
               for b in blocks]
    head_dim = first(attention, "head_dim", "head_size")
    scale = first(attention, "scaling", "inv_norm_factor", default=head_dim ** -0.5)
    if architecture == "GPT2LMHeadModel" and not config.scale_attn_weights:
        scale = 1.0
    return dict(weights=weights, eps=first(norm, "eps", "variance_epsilon"), tied=tied, window=windows, scale=float(scale),
                experts=experts and [experts, config.num_experts_per_tok,
                                     first(config, "moe_intermediate_size", "intermediate_size"),
                                     first(config, "shared_expert_intermediate_size", default=0)],
                act=act(torch.tensor([1.3], dtype=torch.float64)).item(), rope=ropes_of(model, config))


out = []
for name, published in CONFIGS.items():
    config, saved = config_of(published)
    out.append(dict(name=name, configs=[published, saved], expected=expected(config, published["architectures"][0])))
here = os.path.dirname(os.path.abspath(__file__))
path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "data", "configs.json")


def short(x):
    return {k: short(v) for k, v in x.items()} if isinstance(x, dict) else [short(v) for v in x] if isinstance(x, list) else (
        float(f"{x:.9g}") if isinstance(x, float) else x)


with open(path, "w") as f:
    f.write("[\n" + ",\n".join(json.dumps({**e, "expected": short(e["expected"])}, separators=(",", ":")) for e in out) + "\n]\n")
print(f"{len(out)} configurations, {os.path.getsize(path)} bytes")

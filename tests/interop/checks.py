"""checks.py PROGRAM WORK MODEL...: quantizes models into WORK in every format and lets other people's packages read the result.

Integers and scales must be equal exactly. Logits are compared with those of transformers on the format "fake" in float32. It holds
the dequantized weights, and the program's own perplexity of it is compared too, so that its evaluation is part of the chain.
"""
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch

import readers
import tiny
from readers import (Model, grids, llama_logits, read_awq, read_compressed, read_gguf, read_tuned_gguf, transformers_logits,
                     weights_of)

program, work = sys.argv[1], Path(sys.argv[2])
TUNED = "--iters", 20, "--nsamples", 32, "--seqlen", 128, "--batch-size", 4
FALLBACKS = {"q2_k": "Q4_0", "q3_k": "Q4_0", "q4_k": "Q5_0", "q5_k": "Q5_1", "q6_k": "Q8_0"}  # rows of other lengths than 256's
HARD = ["", " ", "   ", "a", " a", "a  b   c ", "\t\tx", "it's IT'S we'RE", "1234567 12", "http://a.b/c?d=e", "Ich heiße Jürgen.",
        "Où est l'été?", "Привет, мир!", "Γειά σου.", "日本語のテキスト", "한국어 안녕", "مرحبا שלום", "नमस्ते", "👍🏽 👩‍👧", "½ Ⅷ ٣٤ …!!!",
        "x\u00a0y", "<0x41> <s", "\u2581\u2581a", "if (x == 10) { y += 2; }", "CamelCase snake_case $100 50% #tag", "éÉ ǅ ʰ ß ﬁ"]
LINES = HARD + [line for line in readers.HELDOUT.split("\n") if line][:300]
for_gptqmodel = []  # last of all: it changes transformers where it is imported


def rounded(bits, group, asym=False):
    return "--bits", bits, "--group-size", group, "--asym" if asym else "--sym", "--iters", 0


def in_llama(model, paths, kind, weights, top1=0.999, kl=1e-6):
    """The rounding of activations, for small batches, is llama.cpp's own: what it costs is shown, not judged."""
    reference, path = transformers_logits(model, paths["fake"], weights), paths["gguf:" + kind]
    logits = llama_logits(model, path)
    model.compare(f"llama.cpp, {kind}", logits, reference, top1, kl)
    agreement, divergence = readers.distance(llama_logits(model, path, 16), reference)
    print(f"      with activations in 8 bits: top-1 {agreement:.4%}, mean KL {divergence:.2e}")
    return logits


def in_half(model, fake, reference, top1, kl):
    """The bounds for a reader that computes in half precision: where that alone moves the logits further, twice as far."""
    agreement, divergence = readers.distance(transformers_logits(model, fake, dtype=torch.float16), reference)
    return min(top1, 1 - 2 * (1 - agreement)), max(kl, 2 * divergence)


def every_format(model):
    texts = [readers.HELDOUT[:20000]]
    w4 = model.quantize("w4", ["auto_round", "gptq", "gptq_v2", "compressed-tensors", "gguf:q4_0", "fake"], *rounded(4, 64))
    grid = grids(w4["gptq"], 4, 64, 1)
    reference = transformers_logits(model, w4["fake"])
    model.same_perplexity("transformers, fake", w4["fake"], reference, 1e-3)
    read_compressed(w4["compressed-tensors"], grid, 4)
    for form, reader in (("compressed-tensors", ""), ("auto_round", " with auto-round")):
        model.compare(f"transformers{reader}, {form}", transformers_logits(model, w4[form]), reference, 0.99, 1e-3)
    model.same_tokens(readers.llama_tokenizer(w4["gguf:q4_0"]), texts)
    logits = in_llama(model, w4, "q4_0", read_gguf(model, w4["gguf:q4_0"], grid))
    model.same_perplexity("llama.cpp, q4_0", w4["fake"], logits, 1e-2)
    for form, zero_offset in (("gptq", 1), ("gptq_v2", 0)):
        for_gptqmodel.append((w4[form], grids(w4[form], 4, 64, zero_offset)))

    w8 = model.quantize("w8", ["gptq", "compressed-tensors", "gguf:q8_0", "fake"], *rounded(8, 64))
    grid = grids(w8["gptq"], 8, 64, 1)
    read_compressed(w8["compressed-tensors"], grid, 8)
    logits = in_llama(model, w8, "q8_0", read_gguf(model, w8["gguf:q8_0"], grid))
    model.same_perplexity("llama.cpp, q8_0", w8["fake"], logits, 1e-2)

    a4 = model.quantize("a4", ["auto_round", "gptq_v2", "awq", "compressed-tensors", "gguf:q4_1", "fake"], *rounded(4, 64, True))
    grid = grids(a4["gptq_v2"], 4, 64, 0)
    read_compressed(a4["compressed-tensors"], grid, 4)
    for_gptqmodel.append((a4["gptq_v2"], grid))
    read_awq(a4["awq"], grid, 64)
    read_awq(a4["auto_round"], grid, 64)
    in_llama(model, a4, "q4_1", read_gguf(model, a4["gguf:q4_1"], grid))

    w2 = model.quantize("w2", ["auto_round", "gptq", "compressed-tensors", "gguf:q2_0", "fake"], *rounded(2, 64))
    reference = transformers_logits(model, w2["fake"])
    grid = grids(w2["gptq"], 2, 64, 1)
    for_gptqmodel.append((w2["gptq"], grid))
    read_compressed(w2["compressed-tensors"], grid, 2)
    in_llama(model, w2, "q2_0", weights_of(grid))  # the gguf package has no such type yet
    model.compare("transformers with auto-round, auto_round at 2 bits", transformers_logits(model, w2["auto_round"]), reference,
                  *in_half(model, w2["fake"], reference, 0.99, 1e-3))

    w3 = model.quantize("w3", ["auto_round", "gptq", "compressed-tensors", "fake"], *rounded(3, 64))
    grid = grids(w3["gptq"], 3, 64, 1)
    for_gptqmodel.append((w3["gptq"], grid))
    read_compressed(w3["compressed-tensors"], grid, 3)


def k_quants(model, kinds):
    for kind in kinds:
        made = model.quantize(kind, ["gguf:" + kind, "fake"], *TUNED)
        in_llama(model, made, kind, read_tuned_gguf(
            model, made, "gguf:" + kind, lambda layer, inputs: FALLBACKS[kind] if inputs % 256 else kind.upper()))


def own_grids(model):
    """Layers with grids of their own, and some left alone."""
    mixed = {"down_proj": {"bits": 8}, "layers.2.self_attn": {"bits": 16}}
    formats = ["auto_round", "gptq", "compressed-tensors", "gguf:q4_0", "fake"]
    m4 = model.quantize("m4", formats, *rounded(4, 64), layers=mixed)
    for_gptqmodel.append((m4["gptq"], grids(m4["gptq"], 4, 64, 1, {"down_proj": 8})))
    reference = transformers_logits(model, m4["fake"])
    for form, reader in (("compressed-tensors", ""), ("auto_round", " with auto-round")):
        model.compare(f"transformers{reader}, mixed {form}", transformers_logits(model, m4[form]), reference, 0.99, 1e-3)
    kind_of = lambda layer, _: "Q8_0" if "down_proj" in layer else "F16" if "layers.2.self_attn" in layer else "Q4_0"
    in_llama(model, m4, "q4_0", read_tuned_gguf(model, m4, "gguf:q4_0", kind_of))
    m4 = model.quantize("ma4", ["auto_round", "fake"], *rounded(4, 64),
                        layers=mixed | {"layers.1.self_attn": {"sym": False, "group_size": 32}})
    model.compare("transformers with auto-round, symmetric and not", transformers_logits(model, m4["auto_round"]),
                  transformers_logits(model, m4["fake"]), 0.99, 1e-3)


def scaled_rope():
    """Llama 3's scaling of the rotary frequencies, an untied head, a tokenizer of single bytes; rows of 64 and 128 inputs."""
    path = work / "models" / "rope"
    shutil.copytree("tests/data/peer/tiny_llama_rope", path)
    (path / "tokenizer.json").write_text(json.dumps(tiny.byte_tokenizer()))
    model = Model(program, path, work, 128, 8)
    q = model.quantize("w4", ["gptq", "gguf:q4_0", "fake"], *rounded(4, 32))
    in_llama(model, q, "q4_0", read_gguf(model, q["gguf:q4_0"], grids(q["gptq"], 4, 32, 1)))
    k_quants(model, ["q3_k", "q4_k", "q6_k"])


def learned(name, family, options, tokenizer, dtype):
    """A tiny checkpoint that knows its windows by heart."""
    path = work / "models" / name
    net = tiny.checkpoint(path, family, options, tokenizer)
    net.config.save_pretrained(path)
    model = Model(program, path, work, 128, 4)
    print(f"      {name} has learned its text: loss {tiny.learn(net, model.windows):.3f}")
    net.to(dtype).save_pretrained(path)
    return model


def family(model):
    for kind, bits, group in (("q8_0", 8, 32), ("q4_0", 4, 32), ("q2_0", 2, 64)):
        q = model.quantize(kind, ["auto_round", "gptq", "compressed-tensors", "gguf:" + kind, "fake"], *rounded(bits, group))
        grid = grids(q["gptq"], bits, group, 1)
        weights = weights_of(grid) if kind == "q2_0" else read_gguf(model, q["gguf:" + kind], grid)
        in_llama(model, q, kind, weights)
        read_compressed(q["compressed-tensors"], grid, bits)
        reference = transformers_logits(model, q["fake"])
        model.same_perplexity(f"transformers, fake of {bits} bits", q["fake"], reference, 1e-3)
        for form, reader in (("compressed-tensors", ""), ("auto_round", " with auto-round")):
            model.compare(f"transformers{reader}, {form}", transformers_logits(model, q[form]), reference,
                          0.98 if bits == 2 else 0.99, 1e-3)  # at 2 bits little of what was learned is left: flat logits
        if not any("gate_up_proj" in layer for layer in grid):  # gptqmodel 7.7 wants Phi-3's joined layers apart
            for_gptqmodel.append((q["gptq"], grid))
    a4 = model.quantize("a4", ["gptq_v2", "awq", "fake"], *rounded(4, 32, asym=True))
    read_awq(a4["awq"], grids(a4["gptq_v2"], 4, 32, 0), 32)


for path in sys.argv[3:]:
    model = Model(program, path, work, 256, 8)
    every_format(model)
    own_grids(model)
    k_quants(model, FALLBACKS)
scaled_rope()
for name, recipe in tiny.FAMILIES.items():
    family(learned(name, *recipe, torch.bfloat16))
for name, recipe in tiny.EXPERTS.items():
    model = learned(name, *recipe, torch.float32)
    for kind, bits in (("q8_0", 8), ("q4_0", 4)):
        q = model.quantize(kind, ["gguf:" + kind, "fake"], *rounded(bits, 32))
        in_llama(model, q, kind, {}, 0.98, 2e-3)  # its experts' products round activations in any case
for tokenizer in ("llama2", "gemma", "gpt2", "digits", "llama3", "qwen2", "qwen3"):
    path = work / "models" / tokenizer
    net = tiny.checkpoint(path, "Llama", dict(num_hidden_layers=1), tokenizer)
    net.to(torch.bfloat16).save_pretrained(path)
    model = Model(program, path, work, 1, 1)
    q = model.quantize("q8_0", ["gguf:q8_0", "fake"], *rounded(8, 32))
    model.same_tokens(readers.llama_tokenizer(q["gguf:q8_0"]), LINES)
for path, grid in for_gptqmodel:
    readers.read_gptqmodel(path, grid)

print("all readers agree" if not readers.failed else f"{readers.failed} checks failed")
sys.exit(readers.failed > 0)

"""readers.py PROGRAM MODEL WORK: quantizes MODEL into WORK in every format and lets other people's packages read the result.

Integers and scales must be equal exactly. Logits are compared with those of transformers on the format "fake" in float32: it holds
the dequantized weights, and the program's own perplexity of it is compared too, so that its evaluation is part of the chain.
"""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

program, model, work = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
WINDOW, WINDOWS = 256, 8
failed = 0


def check(ok, what):
    global failed
    failed += not ok
    print(("ok    " if ok else "FAIL  ") + what, flush=True)


def run(*words, **keywords):
    return subprocess.run([program, *map(str, words)], check=True, capture_output=True, text=True, **keywords).stdout


def quantize(name, bits, group, asym, formats, layers={}):
    own = work / (name + ".json")
    own.write_text(json.dumps(layers))
    run("quantize", model, "-o", work / name, "--bits", bits, "--group-size", group, "--asym" if asym else "--sym", "--iters", 0,
        "--format", ",".join(formats), "--layer-config", own, "--quiet")
    return {f: work / name / f.replace(":", "-") for f in formats}


def tensors(path):
    file = safe_open(path / "model.safetensors", "pt")
    return {name: file.get_tensor(name) for name in file.keys()}


def grids(path, all_bits, group, zero_offset, own={}):
    """Codes, zero points and scales of every layer, from GPTQ's tensors: {layer: (codes [out,in], zero [out,in], scale [out,in])}"""
    t, found = tensors(path), {}
    for name in t:
        if not name.endswith(".qweight"):
            continue
        layer = name[:-len(".qweight")]
        bits = next((bits for part, bits in own.items() if part in layer), all_bits)
        words = lambda x: ((x.numpy().view(np.uint32)[..., None] >> np.arange(0, 32, bits, dtype=np.uint32)) & (2**bits - 1))
        codes = words(t[name]).transpose(1, 0, 2).reshape(t[name].shape[1], -1)
        zeros = words(t[layer + ".qzeros"]).reshape(t[layer + ".qzeros"].shape[0], -1).T + zero_offset
        spread = lambda x: np.repeat(x, group, axis=1)
        found[layer] = codes.astype(np.int64), spread(zeros).astype(np.int64), spread(t[layer + ".scales"].float().numpy().T)
    return found


def token_windows():
    ids = run("tokenize", model, input=Path("data/heldout.txt").read_text()[:40000])
    return np.array(ids.split()[:WINDOW * WINDOWS], dtype=np.int64).reshape(WINDOWS, WINDOW)


def weights_of(grid):
    return {layer: scale * (codes - zero).astype(np.float32) for layer, (codes, zero, scale) in grid.items()}


def transformers_logits(path, weights={}):
    """With weights of layers in float32, where the format "fake" rounds them to the original's type."""
    from transformers import AutoModelForCausalLM
    net = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    for layer, values in weights.items():
        net.get_submodule(layer).weight.data = torch.tensor(values)
    with torch.no_grad():
        return net(torch.tensor(windows)).logits.float().numpy()


def compare(name, logits, reference, top1, kl):
    log = lambda x: torch.log_softmax(torch.tensor(x, dtype=torch.float64), -1)
    p, q = log(reference), log(logits)
    divergence = float((p.exp() * (p - q)).sum(-1).mean())
    agreement = float((logits.argmax(-1) == reference.argmax(-1)).mean())
    check(agreement >= top1 and divergence < kl,
          f"{name}: top-1 {agreement:.4%} of {windows.size}, mean KL {divergence:.2e}")


def perplexity_of(logits):
    log = torch.log_softmax(torch.tensor(logits[:, :-1], dtype=torch.float64), -1)
    return float(torch.exp(-log.gather(-1, torch.tensor(windows[:, 1:, None])).mean()))


def our_perplexity(path):
    ids = work / "ids"
    ids.write_text(" ".join(map(str, windows.reshape(-1))))
    return json.loads(run("eval", path, "--ids", ids, "--seqlen", windows.shape[1], "--json", "--quiet"))["perplexity"]


def same_perplexity(name, path, logits, tolerance):
    ours, theirs = our_perplexity(path), perplexity_of(logits)
    check(abs(ours / theirs - 1) < tolerance, f"{name}: perplexity {theirs:.4f}, ours {ours:.4f}")


def read_compressed(path, grid, bits):
    from compressed_tensors.compressors.pack_quantized import unpack_from_int32
    t, wrong = tensors(path), 0
    for layer, (codes, zero, scale) in grid.items():
        shape = torch.Size(t[layer + ".weight_shape"].tolist())
        unpacked = unpack_from_int32(t[layer + ".weight_packed"], bits, shape).numpy().astype(np.int64)
        wrong += int((unpacked + 2 ** (bits - 1) != codes).sum())
        group = shape[1] // t[layer + ".weight_scale"].shape[1]
        wrong += int((np.repeat(t[layer + ".weight_scale"].float().numpy(), group, axis=1) != scale).sum())
        if layer + ".weight_zero_point" in t:
            packed = t[layer + ".weight_zero_point"]
            zeros = unpack_from_int32(packed, bits, torch.Size([shape[0], packed.shape[1]]), packed_dim=0).numpy().astype(np.int64)
            wrong += int((np.repeat(zeros, group, axis=1) + 2 ** (bits - 1) != zero).sum())
    check(wrong == 0, f"compressed-tensors unpacks {path.parent.name}: {len(grid)} layers, {wrong} integers or scales differ")


def read_awq(path, grid):
    from auto_round.export.export_to_awq.utils import dequantize_gemm
    t, wrong = tensors(path), 0
    for layer, (codes, zero, scale) in grid.items():
        weights = dequantize_gemm(*(t[f"{layer}.{part}"] for part in ("qweight", "qzeros")), t[layer + ".scales"].float(), 4, 64)
        wrong += int((weights.T.numpy() != scale * (codes - zero).astype(np.float32)).sum())
    check(wrong == 0, f"auto-round's reader of AWQ dequantizes {path.name}: {len(grid)} layers, {wrong} weights differ")


def read_gptqmodel(path, grid):
    """Its kernel for CPUs computes in half precision: codes, zero points and scales show in the weights that it makes of them."""
    from gptqmodel import BACKEND, GPTQModel
    net, wrong = GPTQModel.load(str(path), backend=BACKEND.TORCH, device="cpu", dtype=torch.float16).model, 0
    for layer, (codes, zero, scale) in grid.items():
        wrong += int((net.get_submodule(layer).dequantize_weight().T.numpy() != (scale * (codes - zero)).astype(np.float16)).sum())
    packed = sum(hasattr(m, "dequantize_weight") for m in net.modules())
    check(wrong == 0 and packed == len(grid), f"gptqmodel loads {path.parent.name}/{path.name}: {packed} layers, {wrong} weights differ")


NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "self_attn.qkv_proj": "attn_qkv",
         "mlp.gate_up_proj": "ffn_up"}


def gguf_weights(path, layers, head_dim):
    """{layer: weights in float32}, names of the types"""
    import gguf
    file = gguf.GGUFReader(path / "model.gguf")
    found, permuted = {t.name: t for t in file.tensors}, file.fields["general.architecture"].contents() == "llama"
    weights, kinds = {}, set()
    for layer in layers:
        number, part = layer.removeprefix("model.layers.").split(".", 1)
        t = found[f"blk.{number}.{NAMES[part]}.weight"]
        w = gguf.dequantize(t.data, t.tensor_type)
        if permuted and part in ("self_attn.q_proj", "self_attn.k_proj"):
            w = w.reshape(-1, head_dim // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
        weights[layer] = w
        kinds.add(t.tensor_type.name)
    return weights, kinds


def read_gguf(path, grid, head_dim):
    weights, kinds = gguf_weights(path, grid, head_dim)
    wrong = 0
    for layer, (codes, zero, scale) in grid.items():
        if kinds == {"Q4_1"}:
            want = scale * codes.astype(np.float32) + (-zero * scale).astype(np.float16).astype(np.float32)
        else:
            want = scale * (codes - zero).astype(np.float32)
        wrong += int((weights[layer] != want).sum())
    check(wrong == 0, f"gguf dequantizes {path.name}: {len(grid)} layers, {wrong} weights differ")


def same_tokens(net, name, texts):
    wrong, count = [], 0
    for text in texts:
        ids = net.tokenize(text.encode(), add_bos=False, special=False)
        count += len(ids)
        if ids != [int(i) for i in run("tokenize", model, input=text).split()]:
            wrong.append(text)
    check(not wrong, f"llama.cpp tokenizes {name} as we do: {len(texts)} texts, {count} tokens; not {[t[:40] for t in wrong[:3]]}")


def read_kquant(kind, kinds, top1):
    """Tuned; the format "fake" of the same run has the same weights, rounded to the original's type."""
    out = work / f"{model.name}-{kind}"
    run("quantize", model, "-o", out, "--format", f"gguf:{kind},fake", "--iters", 20, "--nsamples", 32, "--seqlen", 128,
        "--batch-size", 4, "--quiet", "--device", "cpu")
    path, fake = out / f"gguf-{kind}", tensors(out / "fake")
    layers = [name.removesuffix(".weight") for name in fake if name.endswith("_proj.weight")]
    weights, found = gguf_weights(path, layers, head_dim)
    wrong = sum(int((torch.tensor(w).to(fake[layer + ".weight"].dtype) != fake[layer + ".weight"]).sum())
                for layer, w in weights.items())
    check(wrong == 0 and found == kinds, f"gguf dequantizes {path.name}: {len(layers)} layers as {found}, {wrong} weights differ")
    # llama.cpp rounds activations to 8 bits, 256 at a time: the same divergence, whatever the bits of the weights.
    compare(f"llama.cpp, {kind} of {model.name}", llama_logits(path), transformers_logits(out / "fake", weights), top1, 1e-3)


def llama_logits(path):
    import llama_cpp
    net = llama_cpp.Llama(str(path / "model.gguf"), n_ctx=WINDOW, n_batch=WINDOW, logits_all=True, verbose=False,
                          type_k=0, type_v=0)  # F32: it is the weights that are looked at, not the cache
    same_tokens(net, path.name, [Path("data/heldout.txt").read_text()[:20000]])
    logits = []
    for window in windows:
        net.reset()
        net.eval(window.tolist())
        logits.append(np.array(net.scores[:len(window)], dtype=np.float32))
    return np.stack(logits)


def in_f32(path):
    """The same file with every tensor in F32, dequantized by the gguf package: llama.cpp then rounds no activations to 8 bits."""
    import gguf
    out, file = path.parent / (path.name + "-f32"), gguf.GGUFReader(path / "model.gguf")
    out.mkdir()
    writer = gguf.GGUFWriter(out / "model.gguf", file.fields["general.architecture"].contents())
    for key, field in file.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, field.contents())
        else:
            writer.add_key_value(key, field.contents(), field.types[0])
    for t in file.tensors:
        writer.add_tensor(t.name, gguf.dequantize(t.data, t.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def byte_model():
    path = work / "rope"
    shutil.copytree("tests/data/peer/tiny_llama_rope", path)
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = dict(zip(plain, map(chr, plain))) | {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in plain)}
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (path / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": by_bytes, "post_processor": None,
        "decoder": by_bytes, "model": {"type": "BPE", "vocab": {letters[b]: b for b in range(256)}, "merges": []}}))
    return path


windows = token_windows()
for_gptqmodel = []  # last of all: it changes transformers where it is imported
head_dim = json.loads((model / "config.json").read_text())["head_dim"]

w4 = quantize("w4", 4, 64, False, ["auto_round", "gptq", "gptq_v2", "compressed-tensors", "gguf:q4_0", "fake"])
grid = grids(w4["gptq"], 4, 64, 1)
reference = transformers_logits(w4["fake"])
same_perplexity("transformers, fake", w4["fake"], reference, 1e-3)
read_compressed(w4["compressed-tensors"], grid, 4)
compare("transformers, compressed-tensors", transformers_logits(w4["compressed-tensors"]), reference, 0.99, 1e-3)
compare("transformers with auto-round, auto_round", transformers_logits(w4["auto_round"]), reference, 0.99, 1e-3)
read_gguf(w4["gguf:q4_0"], grid, head_dim)
logits = llama_logits(w4["gguf:q4_0"])
compare("llama.cpp, q4_0", logits, transformers_logits(w4["fake"], weights_of(grid)), 0.99, 1e-3)
same_perplexity("llama.cpp, q4_0", w4["fake"], logits, 1e-2)
compare("llama.cpp, q4_0 as F32", llama_logits(in_f32(w4["gguf:q4_0"])), transformers_logits(w4["fake"], weights_of(grid)), 0.999, 1e-6)

for form, zero_offset in (("gptq", 1), ("gptq_v2", 0)):
    for_gptqmodel.append((w4[form], grids(w4[form], 4, 64, zero_offset)))

w8 = quantize("w8", 8, 64, False, ["gptq", "compressed-tensors", "gguf:q8_0", "fake"])
grid = grids(w8["gptq"], 8, 64, 1)
read_compressed(w8["compressed-tensors"], grid, 8)
read_gguf(w8["gguf:q8_0"], grid, head_dim)
logits = llama_logits(w8["gguf:q8_0"])
compare("llama.cpp, q8_0", logits, transformers_logits(w8["fake"], weights_of(grid)), 0.99, 1e-3)
same_perplexity("llama.cpp, q8_0", w8["fake"], logits, 1e-2)

a4 = quantize("a4", 4, 64, True, ["auto_round", "gptq_v2", "awq", "compressed-tensors", "gguf:q4_1", "fake"])
grid = grids(a4["gptq_v2"], 4, 64, 0)
read_compressed(a4["compressed-tensors"], grid, 4)
for_gptqmodel.append((a4["gptq_v2"], grid))
read_awq(a4["awq"], grid)
read_awq(a4["auto_round"], grid)
read_gguf(a4["gguf:q4_1"], grid, head_dim)
# A minimum rounded to F16 a group, and llama.cpp's own 8-bit activations: a little less agreement than above, at the same divergence.
compare("llama.cpp, q4_1", llama_logits(a4["gguf:q4_1"]), transformers_logits(a4["fake"], weights_of(grid)), 0.98, 1e-3)

w2 = quantize("w2", 2, 64, False, ["auto_round", "gptq", "compressed-tensors", "gguf:q2_0", "fake"])
reference = transformers_logits(w2["fake"])
grid = grids(w2["gptq"], 2, 64, 1)
for_gptqmodel.append((w2["gptq"], grid))
read_compressed(w2["compressed-tensors"], grid, 2)
compare("llama.cpp, q2_0", llama_logits(w2["gguf:q2_0"]), transformers_logits(w2["fake"], weights_of(grid)), 0.98, 1e-3)
compare("transformers with auto-round, auto_round at 2 bits", transformers_logits(w2["auto_round"]), reference, 0.99, 1e-3)

for kind in ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k"]:
    read_kquant(kind, {kind.upper()}, 0.97)

# Layers with grids of their own, and some left alone.
mixed = {"down_proj": {"bits": 8}, "layers.2.self_attn": {"bits": 16}}
m4 = quantize("m4", 4, 64, False, ["auto_round", "gptq", "compressed-tensors", "gguf:q4_0", "fake"], mixed)
for_gptqmodel.append((m4["gptq"], grids(m4["gptq"], 4, 64, 1, {"down_proj": 8})))
reference = transformers_logits(m4["fake"])
compare("transformers, mixed compressed-tensors", transformers_logits(m4["compressed-tensors"]), reference, 0.99, 1e-3)
compare("transformers with auto-round, mixed auto_round", transformers_logits(m4["auto_round"]), reference, 0.99, 1e-3)
compare("llama.cpp, q4_0 and q8_0 mixed", llama_logits(m4["gguf:q4_0"]), reference, 0.99, 1e-3)
m4 = quantize("ma4", 4, 64, False, ["auto_round", "fake"], mixed | {"layers.1.self_attn": {"sym": False, "group_size": 32}})
compare("transformers with auto-round, symmetric and not", transformers_logits(m4["auto_round"]), transformers_logits(m4["fake"]),
        0.99, 1e-3)

# Llama 3's scaling of the rotary frequencies, an untied head, a tokenizer of single bytes.
model, head_dim, windows = byte_model(), 32, windows[:, :128] % 256
q = quantize("rope-w4", 4, 32, False, ["gptq", "gguf:q4_0", "fake"])
grid = grids(q["gptq"], 4, 32, 1)
read_gguf(q["gguf:q4_0"], grid, head_dim)
reference = transformers_logits(q["fake"], weights_of(grid))
compare("llama.cpp, q4_0, scaled rope", llama_logits(q["gguf:q4_0"]), reference, 0.95, 1e-3)  # random weights: flat logits
for kind, fallback in [("q3_k", "Q4_0"), ("q4_k", "Q5_0"), ("q6_k", "Q8_0")]:  # its rows are no multiples of 256
    read_kquant(kind, {fallback}, 0.95)

# Families, and the tokenizers of SentencePiece and of single bytes.
import llama_cpp
import tiny

HARD = ["", " ", "   ", "a", " a", "a  b   c ", "\t\tx", "it's IT'S we'RE", "1234567 12", "http://a.b/c?d=e", "Ich heiße Jürgen.",
        "Où est l'été?", "Привет, мир!", "Γειά σου.", "日本語のテキスト", "한국어 안녕", "مرحبا שלום", "नमस्ते", "👍🏽 👩‍👧", "½ Ⅷ ٣٤ …!!!",
        "x\u00a0y", "<0x41> <s", "\u2581\u2581a", "if (x == 10) { y += 2; }", "CamelCase snake_case $100 50% #tag", "éÉ ǅ ʰ ß ﬁ"]
lines = HARD + [line for line in Path("data/heldout.txt").read_text().split("\n") if line][:300]
for name, (family, options, tokenizer) in tiny.FAMILIES.items():
    model, head_dim = work / name, 32
    net = tiny.checkpoint(model, family, options, tokenizer)
    net.config.save_pretrained(model)
    windows = np.array(run("tokenize", model, input=Path("data/heldout.txt").read_text()[:8000]).split()[:512], np.int64).reshape(4, 128)
    loss = tiny.learn(net, windows)
    print(f"      {name} has learned its text: loss {loss:.3f}")
    net.to(torch.bfloat16).save_pretrained(model)
    for kind, bits, group in (("q8_0", 8, 32), ("q4_0", 4, 32), ("q2_0", 2, 64)):
        q = quantize(f"{name}-{kind}", bits, group, False, ["gptq", "gguf:" + kind, "fake"])
        grid = grids(q["gptq"], bits, group, 1)
        if kind != "q2_0":  # the package has no such type yet
            read_gguf(q["gguf:" + kind], grid, head_dim)
        compare(f"llama.cpp, {kind}, {name}", llama_logits(q["gguf:" + kind]), transformers_logits(q["fake"], weights_of(grid)),
                0.98 if bits == 2 else 0.99, 1e-3)  # at 2 bits little of what was learned is left: flat logits
    same_perplexity(f"transformers, {name}", q["fake"], transformers_logits(q["fake"]), 1e-3)
for name, (family, options, tokenizer) in tiny.EXPERTS.items():
    model = work / name
    net = tiny.checkpoint(model, family, options, tokenizer)
    net.config.save_pretrained(model)
    windows = np.array(run("tokenize", model, input=Path("data/heldout.txt").read_text()[:8000]).split()[:512], np.int64).reshape(4, 128)
    loss = tiny.learn(net, windows)
    print(f"      {name} has learned its text: loss {loss:.3f}")
    net.float().save_pretrained(model)
    for kind, bits in (("q8_0", 8), ("q4_0", 4)):
        q = quantize(f"{name}-{kind}", bits, 32, False, ["gguf:" + kind, "fake"])
        compare(f"llama.cpp, {kind}, {name}", llama_logits(q["gguf:" + kind]), transformers_logits(q["fake"]), 0.98, 2e-3)
for tokenizer in ("llama2", "gemma", "gpt2", "digits", "llama3", "qwen2", "qwen3"):
    model = work / tokenizer
    net = tiny.checkpoint(model, "Llama", dict(num_hidden_layers=1), tokenizer)
    net.to(torch.bfloat16).save_pretrained(model)
    path = quantize(tokenizer + "-q8", 8, 32, False, ["gguf:q8_0", "fake"])["gguf:q8_0"]
    same_tokens(llama_cpp.Llama(str(path / "model.gguf"), vocab_only=True, verbose=False), tokenizer, lines)

for path, grid in for_gptqmodel:
    read_gptqmodel(path, grid)

print("all readers agree" if not failed else f"{failed} checks failed")
sys.exit(failed > 0)

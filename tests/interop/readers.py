"""What other people's packages make of the program's outputs: integers, scales, weights, logits, token ids."""
import json
import subprocess
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

HELDOUT = Path("data/heldout.txt").read_text()
failed = 0


def check(ok, what):
    global failed
    failed += not ok
    print(("ok    " if ok else "FAIL  ") + what, flush=True)


def distance(logits, reference):
    """Share of the positions with the same most likely token, mean KL divergence"""
    log = lambda x: torch.log_softmax(torch.tensor(x, dtype=torch.float64), -1)
    divergence = np.mean([float((log(p).exp() * (log(p) - log(q))).sum(-1).mean()) for p, q in zip(reference, logits)])
    return float((logits.argmax(-1) == reference.argmax(-1)).mean()), divergence


class Model:
    """A checkpoint, the windows of token ids that it is read on, and what the program makes of both."""

    def __init__(self, program, path, work, length, count):
        self.program, self.path, self.work, self.name = program, Path(path), work, Path(path).name
        config = json.loads((self.path / "config.json").read_text())
        self.head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        ids = self.run("tokenize", self.path, input=HELDOUT[:20 * length * count]).split()[:length * count]
        self.windows = np.array(ids, dtype=np.int64).reshape(count, length)

    def run(self, *words, **keywords):
        return subprocess.run([self.program, *map(str, words)], check=True, capture_output=True, text=True, **keywords).stdout

    def quantize(self, name, formats, *options, layers={}):
        """{format: folder}"""
        out = self.work / self.name / name
        out.parent.mkdir(exist_ok=True)
        own = out.with_suffix(".json")
        own.write_text(json.dumps(layers))
        self.run("quantize", self.path, "-o", out, "--format", ",".join(formats), *options, "--layer-config", own, "--quiet",
                 "--device", "cpu")
        return {f: out / f.replace(":", "-") for f in formats}

    def perplexity(self, path):
        ids = self.work / "ids"
        ids.write_text(" ".join(map(str, self.windows.reshape(-1))))
        report = self.run("eval", path, "--ids", ids, "--seqlen", self.windows.shape[1], "--json", "--quiet")
        return json.loads(report)["perplexity"]

    def compare(self, reader, logits, reference, top1, kl):
        agreement, divergence = distance(logits, reference)
        check(agreement >= top1 and divergence < kl,
              f"{reader} of {self.name}: top-1 {agreement:.4%} of {self.windows.size}, mean KL {divergence:.2e}")

    def same_perplexity(self, reader, path, logits, tolerance):
        log = [torch.log_softmax(torch.tensor(window[:-1], dtype=torch.float64), -1) for window in logits]
        losses = [-p.gather(-1, torch.tensor(ids[1:, None])).mean() for p, ids in zip(log, self.windows)]
        ours, theirs = self.perplexity(path), float(torch.exp(torch.stack(losses).mean()))
        check(abs(ours / theirs - 1) < tolerance, f"{reader} of {self.name}: perplexity {theirs:.4f}, ours {ours:.4f}")

    def same_tokens(self, net, texts):
        wrong, count = [], 0
        for text in texts:
            ids = net.tokenize(text.encode(), add_bos=False, special=False)
            count += len(ids)
            if ids != [int(i) for i in self.run("tokenize", self.path, input=text).split()]:
                wrong.append(text)
        check(not wrong, f"llama.cpp tokenizes {self.name} as we do: {len(texts)} texts, {count} tokens; "
                         f"not {[t[:40] for t in wrong[:3]]}")


def tensors(path):
    file = safe_open(path / "model.safetensors", "pt")
    return {name: file.get_tensor(name) for name in file.keys()}


def numbers(words, bits):
    """The numbers of so many bits that rows of 32-bit words hold, the low bits first; one may begin in a word and end in the next."""
    single = words.numpy().view(np.uint32)[..., None] >> np.arange(32, dtype=np.uint32) & 1
    return single.reshape(len(words), -1, bits) @ (1 << np.arange(bits))


def grids(path, all_bits, group, zero_offset, own={}):
    """Codes, zero points and scales of every layer, from GPTQ's tensors: {layer: (codes, zero, scale)}, each [out,in]"""
    t, found = tensors(path), {}
    for name in t:
        if not name.endswith(".qweight"):
            continue
        layer = name[:-len(".qweight")]
        bits = next((bits for part, bits in own.items() if part in layer), all_bits)
        codes = numbers(t[name].T, bits)
        zeros = numbers(t[layer + ".qzeros"], bits).T + zero_offset
        spread = lambda x: np.repeat(x, group, axis=1)
        found[layer] = codes.astype(np.int64), spread(zeros).astype(np.int64), spread(t[layer + ".scales"].float().numpy().T)
    return found


def weights_of(grid):
    return {layer: scale * (codes - zero).astype(np.float32) for layer, (codes, zero, scale) in grid.items()}


def transformers_logits(model, path, weights={}, dtype=torch.float32):
    """With weights of layers in float32, where the format "fake" rounds them to the original's type."""
    from transformers import AutoModelForCausalLM
    net = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
    for layer, values in weights.items():
        net.get_submodule(layer).weight.data = torch.tensor(values)
    with torch.no_grad():
        return np.stack([net(torch.tensor(window[None])).logits[0].float().numpy() for window in model.windows])


def read_compressed(path, grid, bits):
    """Codes, zero points and scales, and the weights that the package's own decompression makes of them."""
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor, unpack_from_int32
    from compressed_tensors.quantization import QuantizationScheme
    groups = json.loads((path / "config.json").read_text())["quantization_config"]["config_groups"]
    scheme = QuantizationScheme.model_validate(*groups.values())
    t, wrong = tensors(path), 0
    for layer, (codes, zero, scale) in grid.items():
        shape = torch.Size(t[layer + ".weight_shape"].tolist())
        unpacked = unpack_from_int32(t[layer + ".weight_packed"], bits, shape).numpy().astype(np.int64)
        wrong += int((unpacked + 2 ** (bits - 1) != codes).sum())
        group = shape[1] // t[layer + ".weight_scale"].shape[1]
        wrong += int((np.repeat(t[layer + ".weight_scale"].float().numpy(), group, axis=1) != scale).sum())
        if layer + ".weight_zero_point" in t:
            packed = t[layer + ".weight_zero_point"]
            zeros = unpack_from_int32(packed, bits, torch.Size([shape[0], packed.shape[1]]), packed_dim=0)
            zeros = zeros.numpy().astype(np.int64)
            wrong += int((np.repeat(zeros, group, axis=1) + 2 ** (bits - 1) != zero).sum())
        parts = {name.removeprefix(layer + "."): part for name, part in t.items() if name.startswith(layer + ".weight_")}
        parts["weight_scale"] = parts["weight_scale"].float()
        weights = PackedQuantizationCompressor.decompress(parts, scheme)["weight"]
        wrong += int((weights.numpy() != scale * (codes - zero).astype(np.float32)).sum())
    check(wrong == 0, f"compressed-tensors decompresses {title(path)}: {len(grid)} layers, {wrong} integers, scales or weights differ")


def read_awq(path, grid, group):
    from auto_round.export.export_to_awq.utils import dequantize_gemm
    t, wrong = tensors(path), 0
    for layer, (codes, zero, scale) in grid.items():
        weights = dequantize_gemm(t[layer + ".qweight"], t[layer + ".qzeros"], t[layer + ".scales"].float(), 4, group)
        wrong += int((weights.T.numpy() != scale * (codes - zero).astype(np.float32)).sum())
    check(wrong == 0, f"auto-round's reader of AWQ dequantizes {title(path)}: {len(grid)} layers, {wrong} weights differ")


def read_gptqmodel(path, grid):
    """Its kernel for CPUs computes in half precision: codes, zero points and scales show in the weights that it makes of them."""
    from gptqmodel import BACKEND, GPTQModel
    net, wrong = GPTQModel.load(str(path), backend=BACKEND.TORCH, device="cpu", dtype=torch.float16).model, 0
    for layer, (codes, zero, scale) in grid.items():
        weights = net.get_submodule(layer).dequantize_weight().T.numpy()
        wrong += int((weights != (scale * (codes - zero)).astype(np.float16)).sum())
    packed = sum(hasattr(m, "dequantize_weight") for m in net.modules())
    check(wrong == 0 and packed == len(grid), f"gptqmodel loads {title(path)}: {packed} layers, {wrong} weights differ")


def title(path):
    return "/".join(path.parts[-3:])


NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}


def gguf_weights(path, layers, head_dim):
    """{layer: weights in float32}, {layer: name of their type}"""
    import gguf
    file = gguf.GGUFReader(path / "model.gguf")
    found, permuted = {t.name: t for t in file.tensors}, file.fields["general.architecture"].contents() == "llama"
    weights, kinds = {}, {}
    for layer in layers:
        number, part = layer.removeprefix("model.layers.").split(".", 1)
        t = found[f"blk.{number}.{NAMES[part]}.weight"]
        w = gguf.dequantize(t.data, t.tensor_type)
        if permuted and part in ("self_attn.q_proj", "self_attn.k_proj"):
            w = w.reshape(-1, head_dim // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
        weights[layer], kinds[layer] = w, t.tensor_type.name
    return weights, kinds


def read_gguf(model, path, grid):
    """The weights, in float32."""
    weights, kinds = gguf_weights(path, grid, model.head_dim)
    wrong = 0
    for layer, (codes, zero, scale) in grid.items():
        if kinds[layer] == "Q4_1":
            want = scale * codes.astype(np.float32) + (-zero * scale).astype(np.float16).astype(np.float32)
        else:
            want = scale * (codes - zero).astype(np.float32)
        wrong += int((weights[layer] != want).sum())
    check(wrong == 0, f"gguf dequantizes {title(path)}: {len(grid)} layers, {wrong} weights differ")
    return weights


def read_tuned_gguf(model, paths, format, kind_of):
    """The weights, in float32. The format "fake" of the same run has them too, rounded to the original's type, where they are no
    F16, which does not have all the small numbers of BF16, and no Q5_1, whose smallest weight of a block is rounded to F16: these
    may differ by as much. kind_of(layer, its inputs) is the type that is wanted."""
    fake = {name.removesuffix(".weight"): t for name, t in tensors(paths["fake"]).items() if name.endswith("_proj.weight")}
    weights, kinds = gguf_weights(paths[format], fake, model.head_dim)
    packed = {layer: t for layer, t in fake.items() if kinds[layer] != "F16"}
    wrong = 0
    for layer, t in packed.items():
        w = torch.tensor(weights[layer])
        if kinds[layer] == "Q5_1":
            least = w.reshape(-1, 32).abs().max(1, keepdim=True).values.expand(-1, 32).reshape(w.shape) * 2**-10
            wrong += int(((w - t.float()).abs() > least + w.abs() * 2**-8).sum())
        else:
            wrong += int((w.to(t.dtype) != t).sum())
    check(wrong == 0 and all(kinds[layer] == kind_of(layer, t.shape[1]) for layer, t in fake.items()),
          f"gguf dequantizes {title(paths[format])}: {len(fake)} layers as {sorted(set(kinds.values()))}, {wrong} weights differ")
    return weights


def llama_logits(model, path, batch=None):
    """llama.cpp is built with BLAS: products of 32 tokens and more are its business, in F32 on dequantized weights. Those of
    fewer tokens are done by llama.cpp's own kernels, for which it rounds activations to 8 bits."""
    import llama_cpp
    length = model.windows.shape[1]
    batch = batch or length
    net = llama_cpp.Llama(str(path / "model.gguf"), n_ctx=length, n_batch=batch, n_ubatch=batch, logits_all=True, verbose=False,
                          type_k=0, type_v=0)  # F32: it is the weights that are looked at, not the cache
    logits = []
    for window in model.windows:
        net.reset()
        net.eval(window.tolist())
        logits.append(np.array(net.scores[:len(window)], dtype=np.float32))
    return np.stack(logits)


def llama_tokenizer(path):
    import llama_cpp
    return llama_cpp.Llama(str(path / "model.gguf"), vocab_only=True, verbose=False)

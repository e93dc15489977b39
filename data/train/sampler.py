"""Batched sampling from a Llama model with a static key-value cache; on a GPU each decoding step is one CUDA graph.

Prompts are padded on the left, so that all rows write the same cache slot at the same step; a row's position is the
slot less its padding. Graphs are captured per cache length (multiples of SLAB), so short texts read little memory."""
import torch
import torch.nn.functional as F

from llama import rope_tables, rotate

SLAB = 64
PREFILL_TOKENS = 1 << 16


class Sampler:
    def __init__(self, model, batch, length, eos, temperature, min_p):
        c = model.config
        p = next(model.parameters())
        self.model, self.batch, self.eos, self.temperature, self.min_p = model, batch, eos, temperature, min_p
        self.length = -(-length // SLAB) * SLAB
        self.device, self.cuda, self.config = p.device, p.device.type == "cuda", c
        shape = (batch, c["num_key_value_heads"], self.length, c["head_dim"])
        self.cache = [[torch.zeros(shape, dtype=p.dtype, device=p.device) for _ in "kv"] for _ in model.model.layers]
        long = dict(dtype=torch.long, device=p.device)
        self.slot, self.pad = torch.zeros(1, **long), torch.zeros(batch, **long)
        self.out = torch.full((batch, self.length), eos, **long)
        self.done = torch.zeros(batch, dtype=torch.bool, device=p.device)
        self.slots = torch.arange(self.length, device=p.device)
        self.graphs = {}

    def _put(self, x):
        """Samples from the last hidden states x [B, hidden] into slot + 1, among the tokens at least min_p times as
        likely as the likeliest: the argmax of p / exponential noise."""
        z = F.linear(x, self.model.model.embed_tokens.weight).float() / self.temperature
        p = torch.exp(z - z.amax(-1, keepdim=True))
        p = p * (p >= self.min_p)
        token = (p / torch.empty_like(p).exponential_(1.0)).argmax(-1)
        token = torch.where(self.done, self.eos, token)
        self.done |= token == self.eos
        self.out.index_copy_(1, self.slot + 1, token.unsqueeze(1))

    def _step(self, span):
        """Reads the token in `slot`, attends to the first `span` slots, samples the next."""
        m, c = self.model.model, self.config
        b, kv, hd = self.batch, c["num_key_value_heads"], c["head_dim"]
        seen = (self.slots[:span] <= self.slot) & (self.slots[:span] >= self.pad.unsqueeze(1))
        mask = torch.where(seen, 0.0, float("-inf")).to(m.norm.weight.dtype)[:, None, None, :].expand(
            b, kv, c["num_attention_heads"] // kv, span)
        cos, sin = rope_tables((self.slot - self.pad).view(b, 1, 1), hd, c["rope_theta"])
        x = m.embed_tokens(self.out.index_select(1, self.slot))
        for layer, (keys, values) in zip(m.layers, self.cache):
            q, k, v = layer.self_attn.qkv(layer.input_layernorm(x), cos, sin)
            keys.index_copy_(2, self.slot, k)
            values.index_copy_(2, self.slot, v)
            q = q.view(b, kv, -1, hd)                     # the heads that share one key head are its queries
            y = F.scaled_dot_product_attention(q, keys[:, :, :span], values[:, :, :span], attn_mask=mask)
            x = x + layer.self_attn.o_proj(y.reshape(b, 1, -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        self._put(m.norm(x)[:, 0])
        self.slot += 1

    def _graph(self, span):
        if span not in self.graphs:
            saved = [t.clone() for t in (self.slot, self.out, self.done)]
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._step(span)                          # warm-up outside the capture
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step(span)
            self.graphs[span] = graph
            for t, s in zip((self.slot, self.out, self.done), saved):
                t.copy_(s)
        return self.graphs[span]

    def _prefill(self, width):
        m, c = self.model.model, self.config
        heads = c["num_attention_heads"] // c["num_key_value_heads"]
        rows = max(1, PREFILL_TOKENS // width)
        causal = self.slots[:width] <= self.slots[:width].unsqueeze(1)
        last = []
        for i in range(0, self.batch, rows):
            pad = self.pad[i:i + rows].view(-1, 1)
            real = self.slots[:width] >= pad              # padding attends to itself alone, to stay finite
            mask = (causal & real.unsqueeze(1) | torch.eye(width, dtype=torch.bool, device=self.device)).unsqueeze(1)
            cos, sin = rope_tables((self.slots[:width] - pad).clamp(min=0).unsqueeze(1), c["head_dim"], c["rope_theta"])
            x = m.embed_tokens(self.out[i:i + rows, :width])
            for layer, (keys, values) in zip(m.layers, self.cache):
                q, k, v = layer.self_attn.qkv(layer.input_layernorm(x), cos, sin)
                keys[i:i + rows, :, :width] = k
                values[i:i + rows, :, :width] = v
                k, v = (a.repeat_interleave(heads, 1) for a in (k, v))
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
                x = x + layer.self_attn.o_proj(y.transpose(1, 2).flatten(2))
                x = x + layer.mlp(layer.post_attention_layernorm(x))
            last.append(m.norm(x[:, -1]))
        return torch.cat(last)

    @torch.no_grad()
    def __call__(self, prompts, enough=0.97):
        """prompts: `batch` lists of ids. Returns per row the new ids and whether the end token came; stops when the
        cache is full or the share `enough` of the rows has ended."""
        width = max(map(len, prompts))
        assert len(prompts) == self.batch and width < self.length
        rows = [[self.eos] * (width - len(p)) + p for p in prompts]
        self.out.fill_(self.eos)
        self.out[:, :width] = torch.tensor(rows, device=self.device)
        self.pad.copy_(torch.tensor([width - len(p) for p in prompts], device=self.device))
        self.done.zero_()
        self.slot.fill_(width - 1)
        self._put(self._prefill(width))
        self.slot += 1
        for at in range(width, self.length - 1):
            if at % 16 == 0 and self.done.float().mean().item() >= enough:
                break
            span = -(-(at + 1) // SLAB) * SLAB
            if self.cuda:
                self._graph(span).replay()
            else:
                self._step(span)
        out, done = self.out[:, width:self.slot.item() + 1].cpu().tolist(), self.done.cpu().tolist()
        return [(ids[:ids.index(self.eos)] if end else ids, end) for ids, end in zip(out, done)]

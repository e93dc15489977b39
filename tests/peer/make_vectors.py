#!/usr/bin/env python3
"""Writes qdq.safetensors: rounding and its gradients as auto-round 0.16.1 computes them in eager mode on the CPU.

usage: make_vectors.py [OUT]        (default: tests/data/peer/qdq.safetensors)

Per case NAME, groups counted row by row, G = groups in all:
  NAME.params     I32 [6]       sym, bits, group_size, out, in, 1 if the weight is bf16
  NAME.w          [out, in]     BF16 or F32
  NAME.v, .g      F32 [out, in] rounding offset V; dL/dw_hat (representable in the weight's type)
  NAME.min_scale, .max_scale    F32 [G]
  NAME.w_hat      [out, in]     in the weight's type
  NAME.q, .zp     I16           integers [out, in] and zero points [G] (sym: 2^(bits-1) everywhere)
  NAME.scale      F16 [G]
  NAME.dv, .dmin, .dmax         F32, autograd's gradients of sum(g * w_hat); absent where the scale overflowed

The peer rounds the gradient that reaches a scale to fp16, so its sign is only meaningful away from zero: g is drawn
again until every gradient of min_scale and max_scale is either exactly zero or well above what that rounding can do.
The closed form of the gradients is checked against autograd's on the way.

torch is pinned to 2.13: from 2.14 on clamp's gradient is zero at its bounds, which changes the method (the outermost
codes, at 2 bits two of four, would stop learning)."""
import os
import sys

import torch
from auto_round.data_type.int import quant_tensor_asym, quant_tensor_sym
from auto_round.data_type.utils import reshape_pad_tensor_by_group_size as grouped
from auto_round.data_type.utils import revert_tensor_by_pad as ungrouped
from safetensors.torch import save_file

THRESH = torch.tensor(1e-5, dtype=torch.float16).item()  # 168 * 2^-24: what the peer's threshold is in fp16
out = {}


def peer(w, v, lo, hi, sym, bits, group):
    """Forward exactly as WrapperLinear does: ranges taken once from the weight, in its own type."""
    t, shape, pad = grouped(w, group)
    wmin, wmax = torch.clamp(t.min(1)[0], max=0), torch.clamp(t.max(1)[0], min=0)
    vg = grouped(v, group)[0]
    f = quant_tensor_sym if sym else quant_tensor_asym
    w_hat, s, z = f(w, bits, group, vg, lo, hi, torch.float16, wmin, wmax, 1e-5)
    with torch.no_grad():  # the integers, by the same operations
        r = torch.round(t / s + vg)
        m = 2 ** (bits - 1)
        q = torch.clamp(r, -m, m - 1) if sym else torch.clamp(r + z, 0, 2**bits - 1)
        free = (r >= -m) & (r <= m - 1) if sym else (r + z >= 0) & (r + z <= 2**bits - 1)
    return dict(w_hat=w_hat, s=s, z=z, q=q, free=free, t=t, wmin=wmin, wmax=wmax, shape=shape, pad=pad)


def closed_form(f, g, lo, hi, sym, bits, group):
    """Gradients in double; beside those of the range factors the magnitude of the sums that meet in fp16."""
    sums = lambda *terms: sum(x.sum(1).abs() for x in terms)
    d = lambda x: x.detach().double()
    gg, t, q, m, s = d(grouped(g, group)[0]), d(f["t"]), d(f["q"]), d(f["free"]), d(f["s"])
    wmin, wmax, z = d(f["wmin"]), d(f["wmax"]), d(f["z"]) if not sym else 0.0
    dv = gg * s * m
    if sym:
        big = 2.0 ** (bits - 1)
        a, b = -(f["wmin"] * lo.detach()), f["wmax"] * hi.detach()
        value = (2 * (b < a).int() - 1) * torch.max(a, b) / big
        raised = value.half().abs() < THRESH
        terms = gg * (q - m * t / s)
        mag = sums(gg * q, gg * m * t / s)
        cmin = torch.where(b < a, -wmin, torch.where(b == a, 0.5 * wmin, 0)) / big
        cmax = torch.where(b > a, -wmax, torch.where(b == a, -0.5 * wmax, 0)) / big
        keep = (~raised).double()
        return dv, [(keep * terms.sum(1) * c, keep * mag * c.abs()) for c in (cmin, cmax)]
    big = 2.0**bits - 1
    mn = d(f["wmin"] * lo.detach()).unsqueeze(1)
    raised = ((f["wmax"] * hi.detach() - f["wmin"] * lo.detach()) / big).half() < THRESH
    terms = gg * ((q - z) - m * t / s - (1 - m) * mn / s)
    mag = sums(gg * (q - z), gg * m * t / s, gg * (1 - m) * mn / s)
    keep = (~raised).double()
    zterm = wmin * (gg * (1 - m)).sum(1)
    dmin = (-keep * terms.sum(1) * wmin / big + zterm, keep * mag * wmin.abs() / big + zterm.abs())
    dmax = (keep * terms.sum(1) * wmax / big, keep * mag * wmax.abs() / big)
    return dv, [dmin, dmax]


def case(name, w, v, lo, hi, sym, bits, group, grads=True):
    gen = torch.Generator().manual_seed(len(out))
    v, lo, hi = (x.clone().float().requires_grad_() for x in (v, lo, hi))
    f = peer(w, v, lo, hi, sym, bits, group)
    groups = f["s"].numel()
    assert lo.numel() == hi.numel() == groups
    if grads:
        g = torch.randn(w.shape, generator=gen).to(w.dtype)
        for _ in range(300):
            dv, sides = closed_form(f, g, lo, hi, sym, bits, group)
            weak = torch.zeros(groups, dtype=torch.bool)
            for x, mag in sides:
                weak |= (mag > 0) & (x.abs() < 0.003 * mag)
            if not weak.any():
                break
            fresh, _, _ = grouped(torch.randn(w.shape, generator=gen).to(w.dtype), group)
            mixed = torch.where(weak.unsqueeze(1), fresh, grouped(g, group)[0])
            g = ungrouped(mixed, f["shape"], f["pad"])
        assert not weak.any(), f"{name}: no robust gradient for groups {weak.nonzero().flatten().tolist()}"
        (f["w_hat"] * g).sum().backward() if w.dtype == torch.float32 else f["w_hat"].backward(g)
        assert torch.equal(grouped(v.grad, group)[0].double(), dv.float().double()), name
        for p, (x, mag) in zip((lo, hi), sides):
            assert torch.equal(torch.sign(p.grad), torch.sign(x.float())), (name, p.grad, x)
            assert ((p.grad.double() - x).abs() <= 1e-3 * mag + 1e-30).all(), (name, p.grad, x)
        out.update({f"{name}.g": g.float(), f"{name}.dv": v.grad, f"{name}.dmin": lo.grad, f"{name}.dmax": hi.grad})
    z = f["z"].detach().reshape(-1) if not sym else torch.full((groups,), f["z"])
    out.update({
        f"{name}.params": torch.tensor([sym, bits, group, *w.shape, w.dtype == torch.bfloat16], dtype=torch.int32),
        f"{name}.w": w, f"{name}.v": v.detach(), f"{name}.min_scale": lo.detach(), f"{name}.max_scale": hi.detach(),
        f"{name}.w_hat": f["w_hat"].detach(), f"{name}.q": ungrouped(f["q"], f["shape"], f["pad"]).to(torch.int16),
        f"{name}.scale": f["s"].detach().reshape(-1), f"{name}.zp": z.to(torch.int16)})


def regular(sym, bits, dtype, gen):
    """Row 0 as the tuning starts (V = 0, factors 1); row 1 somewhere on its way."""
    for group, cols in ((32, 64), (32, 80), (64, 128), (64, 80), (128, 256), (128, 200), (128, 80), (-1, 96)):
        w = (torch.randn(2, cols, generator=gen) * 0.05 + 0.01).to(dtype)
        per_row = 1 if group == -1 or cols < group else -(-cols // group)
        v = torch.rand(2, cols, generator=gen) - 0.5
        v[0] = 0
        lo, hi = (torch.rand(2, per_row, generator=gen) * 0.5 + 0.5 for _ in range(2))
        lo[0] = hi[0] = 1
        case(f"{'sym' if sym else 'asym'}.{bits}.{group}.{cols}.{str(dtype)[6:]}", w, v, lo.flatten(), hi.flatten(),
             sym, bits, group)


def edges(sym, bits, dtype, gen):
    """One group of 32 a row, each a corner of its own."""
    div = 2 ** (bits - 1) if sym else 2**bits - 1  # the scale is range / div
    base = lambda: torch.randn(32, generator=gen) * 0.05
    rows = []
    shift = 0.8 if bits < 4 else 3.7  # enough that a lone value leaves its code, and its scale gets a gradient

    def row(w, v=None, lo=1.0, hi=1.0):
        rows.append((w, torch.rand(32, generator=gen) - 0.5 if v is None else torch.as_tensor(v).expand(32), lo, hi))

    row(torch.zeros(32))
    row(-base().abs())                                    # nothing positive
    row(base().abs())                                     # nothing negative
    x = base().clamp(-0.1, 0.1); x[3], x[9] = 0.125, -0.125
    row(x)                                                # a tie: the negative branch, half the gradient to each side
    x = base().clamp(-0.1, 0.1); x[3], x[9] = 0.25, -0.125
    row(x, lo=1.0, hi=0.5)                                # a tie that the factors make
    for sign in (1, -1):
        x = torch.zeros(32); x[5] = sign * 0.3
        row(x, v=shift)                                   # one single value
    for units in (167, 168, 169):                         # around the smallest scale allowed
        x = torch.rand(32, generator=gen) * units * div * 2.0**-25; x[0] = units * div * 2.0**-24
        row(x)
        row(-x)
    row(base() * 1e-6)
    row(base() * 1e-18)
    x = torch.rand(32, generator=gen) * 5e4 * div; x[7] = 6e4 * div
    row(x)                                                # nearly the largest scale
    row(base(), v=3.0)                                    # saturated
    row(base(), v=-3.0)
    x = (torch.randint(-2 * div, 2 * div, (32,), generator=gen) + 0.5).clamp(-div + 0.5, div - 0.5) * 0.0625
    x[0] = -div * 0.0625
    row(x, v=0.0)                                         # halves go to the even neighbour
    row(x, v=0.5)                                         # on a whole number, also at and past the bounds
    row(base(), lo=0.0)
    row(base(), hi=0.0)
    row(base(), lo=0.0, hi=0.0)
    row(base().abs() * 0 + 0.2, v=torch.rand(32, generator=gen) * 2 - 1)
    w, v = (torch.stack([r[i] for r in rows]) for i in (0, 1))
    lo, hi = (torch.tensor([r[i] for r in rows]) for i in (2, 3))
    kind = "sym" if sym else "asym"
    case(f"{kind}.{bits}.edges.{str(dtype)[6:]}", w.to(dtype), v, lo, hi, sym, bits, 32)
    one = torch.ones(4)
    case(f"{kind}.{bits}.tail.{str(dtype)[6:]}", (torch.randn(2, 33, generator=gen) * 0.1).to(dtype),
         torch.full((2, 33), shift), one, one, sym, bits, 32)          # a group of one value and 31 of padding
    case(f"{kind}.{bits}.column.{str(dtype)[6:]}", torch.tensor([[0.3], [-0.2], [0.0], [1.1]]).to(dtype),
         torch.full((4, 1), shift), one, one, sym, bits, -1)           # rows of one value
    w = base().repeat(2, 1); w[0, 4], w[1, 4] = 70000.0 * div, -70000.0 * div
    case(f"{kind}.{bits}.overflow.{str(dtype)[6:]}", w.to(dtype), torch.zeros(2, 32), one[:2], one[:2], sym, bits, 32,
         grads=False)                                                # the scale does not fit fp16: inf, w_hat is NaN


here = os.path.dirname(os.path.abspath(__file__))
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(42)
for sym in (True, False):
    for bits in (2, 3, 4, 8):
        for dtype in (torch.bfloat16, torch.float32):
            regular(sym, bits, dtype, generator)
            edges(sym, bits, dtype, generator)
path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "..", "data", "peer", "qdq.safetensors")
save_file({k: t.contiguous() for k, t in out.items()}, path)
print(f"{len(out)} tensors, {os.path.getsize(path)} bytes")

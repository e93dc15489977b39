// The ops of the CUDA backend at the sizes of a Llama-3-8B block, 8 x 2048 tokens: milliseconds, and of the bytes to be moved or
// the operations to be done, the rate. JSON lines; the device's own copy and a square product first, for comparison.
#include <cstdio>

#include "gpu.h"

using namespace signround;

namespace {

constexpr i64 kTokens = 2048, kBatch = 8, kRows = kTokens * kBatch, kHidden = 4096, kFfn = 14336, kKv = 1024;

// amount: bytes or operations of one run.
void time(const GpuBench& bench, const std::string& name, const char* unit, double amount, const std::function<void()>& op) {
  const double seconds = bench.seconds(op), rate = amount / seconds / (*unit == 'T' ? 1e12 : 1e9);
  std::printf("{\"op\": \"%s\", \"ms\": %.4f, \"%s\": %.1f}\n", name.c_str(), seconds * 1e3, unit, rate);
  std::fflush(stdout);
}

}  // namespace

int main() {
  const std::unique_ptr<Backend> backend = make_backend("cuda", Precision::bf16);
  Backend& b = *backend;
  GpuBench bench(b);
  const DType half = DType::bf16;
  std::printf("{\"device\": \"%s\"}\n", b.name().c_str());
  const Tensor x = bench.make(half, kRows, kHidden), y = bench.make(half, kRows, kHidden), z = bench.make(half, kRows, kHidden);
  const Tensor f = bench.make(half, kRows, kFfn), g = bench.make(half, kRows, kFfn), u = bench.make(half, kRows, kFfn);
  const Tensor df = bench.make(half, kRows, kFfn), du = bench.make(half, kRows, kFfn), kv = bench.make(half, kRows, kKv);
  const double row_bytes = 2.0 * kRows * kHidden, ffn_bytes = 2.0 * kRows * kFfn;
  time(bench, "copy", "GB/s", 2 * ffn_bytes, [&] { b.copy(f, g); });

  struct Linear {
    const char* name;
    Tensor in, out;
  };
  for (const Linear& l : {Linear{"4096x4096", x, y}, {"1024x4096", x, kv}, {"14336x4096", x, f}, {"4096x14336", f, y}}) {
    const Tensor w = bench.make(half, l.out.cols(), l.in.cols()), dw = bench.make(DType::f32, l.out.cols(), l.in.cols());
    const Tensor dw_half = view(dw.data, half, l.out.cols(), l.in.cols());
    const double operations = 2.0 * kRows * static_cast<double>(w.size());
    const std::string name = l.name;
    time(bench, name + " forward", "TFLOP/s", operations, [&] { b.linear(l.out, l.in, w, {}, {}); });
    time(bench, name + " dx", "TFLOP/s", operations, [&] { b.linear_bwd_x(l.in, Acc::set, l.out, w); });
    time(bench, name + " dw f32", "TFLOP/s", operations, [&] { b.linear_bwd_w(dw, Acc::set, l.out, l.in); });
    time(bench, name + " dw bf16", "TFLOP/s", operations, [&] { b.linear_bwd_w(dw_half, Acc::set, l.out, l.in); });
  }

  const QuantSpec spec{.bits = 4, .group = 128, .symmetric = true};
  const i64 groups = spec.groups(kHidden);
  QdqTensors q;
  q.w = bench.make(half, kFfn, kHidden), q.v = bench.make(DType::f32, kFfn, kHidden);
  for (Tensor* t : {&q.wmin, &q.wmax, &q.lo, &q.hi}) *t = bench.make(DType::f32, kFfn, groups);
  const Tensor wq = bench.make(half, kFfn, kHidden), dwq = bench.make(DType::f32, kFfn, kHidden);
  const Tensor codes = bench.make(DType::u8, kFfn, kHidden), scale = bench.make(DType::f16, kFfn, groups);
  const Tensor zero = bench.make(DType::u8, kFfn, groups);
  TuningState state{};
  state.order = view(bench.make(DType::i32, 1, kBatch).data, DType::i32, kBatch);
  state.lr = state.minmax_lr = state.loss = view(bench.make(DType::f32, 1, 1).data, DType::f32, 1);
  state.best = view(bench.make(DType::f32, 1, 1).data, DType::f32, 1);
  state.counters = view(bench.make(DType::i32, 1, 4).data, DType::i32, 4);
  state.accumulate = i64{1} << 30;  // the first step never ends
  b.fill(state.order, 0), b.fill(state.counters, 0), b.fill(state.lr, 1e-3f), b.fill(q.lo, 1), b.fill(q.hi, 1);
  const double weights = static_cast<double>(q.w.size());
  b.group_range(q.wmin, q.wmax, q.w, spec);
  time(bench, "group_range", "GB/s", 2 * weights, [&] { b.group_range(q.wmin, q.wmax, q.w, spec); });
  time(bench, "qdq", "GB/s", 8 * weights, [&] { b.qdq(wq, q, spec); });
  const QdqStep step{wq, q, dwq, spec};
  time(bench, "qdq_step dw f32", "GB/s", 16 * weights, [&] { b.qdq_step({&step, 1}, state); });
  QdqStep half_step = step;
  half_step.dwq = view(dwq.data, half, kFfn, kHidden);
  time(bench, "qdq_step dw bf16", "GB/s", 14 * weights, [&] { b.qdq_step({&half_step, 1}, state); });
  std::vector<QdqStep> small;  // the weights of SmolLM2-135M's block
  double small_weights = 0;
  for (const auto& [out, in] : {std::pair<i64, i64>{576, 576}, {192, 576}, {192, 576}, {576, 576}, {1536, 576}, {1536, 576},
                                {576, 1536}}) {
    QdqStep& s = small.emplace_back(QdqStep{bench.make(half, out, in), {}, bench.make(half, out, in), {.bits = 4, .group = 64}});
    s.q.w = bench.make(half, out, in), s.q.v = bench.make(DType::f32, out, in);
    for (Tensor* t : {&s.q.wmin, &s.q.wmax, &s.q.lo, &s.q.hi}) *t = bench.make(DType::f32, out, s.spec.groups(in));
    b.fill(s.q.lo, 1), b.fill(s.q.hi, 1), b.group_range(s.q.wmin, s.q.wmax, s.q.w, s.spec);
    small_weights += static_cast<double>(s.q.w.size());
  }
  time(bench, "qdq_step of seven small, at once", "GB/s", 14 * small_weights, [&] { b.qdq_step(small, state); });
  time(bench, "qdq_step of seven small, one by one", "GB/s", 14 * small_weights, [&] {
    for (const QdqStep& s : small) b.qdq_step({&s, 1}, state);
  });
  const Tensor costs = bench.make(DType::f32, 1, kHidden);
  b.fill(costs, 1);
  time(bench, "search_factors", "GB/s", 0, [&] { b.search_factors(q, costs, spec); });
  time(bench, "qdq_codes", "GB/s", 7 * weights, [&] { b.qdq_codes({codes, scale, zero, {}, {}}, q, spec); });
  for (const auto& [name, two_levels] : {std::pair{"q4_k", QuantSpec{4, 32, false, 6}}, {"q2_k", QuantSpec{2, 16, false, 4}}}) {
    QdqTensors k = q;
    const double ranges = 16 * weights / static_cast<double>(two_levels.group);  // wmin, wmax, lo, hi
    for (Tensor* t : {&k.wmin, &k.wmax, &k.lo, &k.hi}) *t = bench.make(DType::f32, kFfn, two_levels.groups(kHidden));
    b.fill(k.lo, 1), b.fill(k.hi, 1), b.group_range(k.wmin, k.wmax, k.w, two_levels);
    time(bench, cat("qdq ", name), "GB/s", 8 * weights + ranges, [&] { b.qdq(wq, k, two_levels); });
    const QdqStep k_step{wq, k, half_step.dwq, two_levels};
    time(bench, cat("qdq_step ", name, " dw bf16"), "GB/s", 14 * weights + 1.5 * ranges,
               [&] { b.qdq_step({&k_step, 1}, state); });
  }
  time(bench, "keep_if_best, no", "GB/s", 0, [&] { b.keep_if_best(dwq, q.v, state); });

  const Tensor norm = bench.make(half, 1, kHidden), r = bench.make(DType::f32, kRows, 1);
  const Tensor table = bench.make(DType::f32, kTokens, 128);
  const RopeShape rope{.tokens = kTokens, .heads = 32, .head_dim = 128, .rotary_dim = 128};
  time(bench, "rms", "GB/s", 2 * row_bytes, [&] { b.rms(y, r, x, norm, 1e-5f, 0); });
  time(bench, "rms_bwd add", "GB/s", 4 * row_bytes, [&] { b.rms_bwd(z, Acc::add, y, x, norm, r, 0); });
  time(bench, "rope", "GB/s", 2 * row_bytes, [&] { b.rope(y, x, table, rope); });
  time(bench, "glu", "GB/s", 3 * ffn_bytes, [&] { b.glu(f, g, u, Activation::silu); });
  time(bench, "glu_bwd", "GB/s", 5 * ffn_bytes, [&] { b.glu_bwd(df, du, Acc::set, Acc::set, f, g, u, Activation::silu); });
  time(bench, "add", "GB/s", 3 * row_bytes, [&] { b.add(z, x, y); });
  time(bench, "add_bwd add", "GB/s", 3 * row_bytes, [&] { b.add_bwd(z, Acc::add, y); });
  time(bench, "gather", "GB/s", 2 * row_bytes, [&] { b.gather(y, x, kTokens, state); });
  time(bench, "mse", "GB/s", 3 * row_bytes, [&] { b.mse(z, x, {y, true}, kTokens, true, state); });

  // A layer of 128 experts from 2048 to 768 columns, of which a token has 8, all alike busy.
  constexpr i64 kExperts = 128, kActive = 8, kIn = 2048, kOut = 768, kChoices = kRows * kActive;
  const Tensor order = bench.make(DType::i32, 3 * kRows, kActive), seen = bench.make(DType::i32, 1, kExperts);
  const Tensor bounds = view(bench.make(DType::i32, 1, kExperts + 1).data, DType::i32, kExperts + 1);
  const Tensor logits = bench.make(half, kRows, kExperts), chosen = bench.make(half, kRows, kActive);
  const Tensor token = bench.make(half, kRows, kIn), rows = bench.make(half, kChoices, kIn);
  const Tensor out = bench.make(half, kChoices, kOut);
  const Tensor experts = bench.make(half, kExperts * kOut, kIn), dexperts = bench.make(half, kExperts * kOut, kIn);
  const double choice_bytes = 2.0 * kChoices * kIn, expert_flops = 2.0 * kChoices * kIn * kOut;
  time(bench, "route", "GB/s", 0, [&] { b.route(chosen, order, bounds, view(seen.data, DType::i32, kExperts), logits, true); });
  time(bench, "dispatch", "GB/s", 2 * choice_bytes, [&] { b.dispatch(rows, token, order); });
  time(bench, "combine", "GB/s", choice_bytes, [&] { b.combine(token, rows, chosen, order); });
  std::vector<i32> even;
  for (i64 e = 0; e <= kExperts; ++e) even.push_back(static_cast<i32>(e * kChoices / kExperts));
  b.upload(bounds, even.data());
  time(bench, "expert_linear", "TFLOP/s", expert_flops, [&] { b.expert_linear(out, rows, experts, bounds); });
  time(bench, "expert_linear dx", "TFLOP/s", expert_flops,
             [&] { b.expert_linear_bwd_x(rows, Acc::set, out, experts, bounds); });
  time(bench, "expert_linear dw", "TFLOP/s", expert_flops,
             [&] { b.expert_linear_bwd_w(dexperts, Acc::set, out, rows, bounds); });
}

// Runs one op on any backend from the same numbers: inputs are made from a seed, every tensor lies between canaries, results
// are poison until they are written, and are read back as double.
#pragma once
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <list>
#include <set>

#include "ops/cpu/cpu_backend.h"
#include "ops/cpu/select.h"
#include "ops/devices.h"
#include "testing.h"

namespace signround {

using SIGNROUND_ISA::CpuBackend;

inline constexpr Precision kPrecisions[] = {Precision::f32, Precision::bf16};

// Whether there is no GPU here; then the test case counts as skipped.
inline bool absent() {
  const std::string why = why_no_gpu();
  if (!why.empty()) skip(why);
  return !why.empty();
}

// Whether the GPU cannot multiply in fp8; then the test case counts as skipped. Any other failure is thrown on.
inline bool no_fp8() {
  try {
    make_backend("cuda", Precision::fp8);
  } catch (const Error& e) {
    if (e.kind != ErrorKind::bad_input) throw;
    skip(e.what());
    return true;
  }
  return false;
}

class Lab {
 public:
  Backend& backend;

  // type: what activations are rounded to, whatever the backend computes with.
  Lab(Backend& backend, DType type) : backend(backend), type_(type) {}

  Tensor in(i64 rows, i64 cols, double low = -1, double high = 1) {
    return random(rows, cols, backend.activation_type(), type_, low, high);
  }
  // A tensor of the type `stored` on every backend, of numbers that `rounded` holds too.
  Tensor weight(i64 rows, i64 cols, DType stored, DType rounded = DType::f64, double low = -1, double high = 1) {
    return random(rows, cols, stored, rounded, low, high);
  }
  Tensor learned(i64 rows, i64 cols, double low, double high) { return random(rows, cols, DType::f32, DType::f32, low, high); }
  Tensor integers(const std::vector<i32>& x) {
    const Tensor t = view(raw(1, static_cast<i64>(x.size()), DType::i32).data, DType::i32, static_cast<i64>(x.size()));
    backend.upload(t, x.data());
    return t;
  }
  Tensor values(const std::vector<float>& x) {
    const Tensor t = view(raw(1, static_cast<i64>(x.size()), DType::f32).data, DType::f32, static_cast<i64>(x.size()));
    backend.upload(t, x.data());
    return t;
  }

  // Results: poison, or, where an op adds, random numbers.
  Tensor out(i64 rows, i64 cols) { return result(raw(rows, cols, backend.activation_type()), true); }
  Tensor statistic(i64 rows, i64 cols) { return result(scratch(rows, cols), false); }
  Tensor gradient(i64 rows, i64 cols, Acc acc) {
    return result(acc == Acc::add ? in(rows, cols) : raw(rows, cols, backend.activation_type()), true);
  }
  Tensor weight_gradient(i64 rows, i64 cols, Acc acc) {
    return result(acc == Acc::add ? random(rows, cols, wide(), DType::f32, -1, 1) : scratch(rows, cols), false);
  }
  Tensor scratch(i64 rows, i64 cols) { return raw(rows, cols, wide()); }

  // Poisoned memory between two canaries.
  Tensor raw(i64 rows, i64 cols, DType dtype) {
    const Tensor inside = view(nullptr, dtype, rows, cols);
    const i64 bytes = inside.bytes(), whole = aligned(bytes) + 2 * kAlignment;
    Piece& piece = pieces_.emplace_back(Piece{Buffer(backend, whole, "test"), bytes});
    const std::vector<unsigned char> poison(static_cast<size_t>(whole), kPoison);  // NaN in every float type
    backend.upload(view(piece.memory.data(), DType::u8, whole), poison.data());
    return view(static_cast<char*>(piece.memory.data()) + kAlignment, dtype, rows, cols);
  }

  std::vector<double> read(Tensor t) const {
    const auto as = [&]<class T>(T) {
      std::vector<T> x(static_cast<size_t>(t.size()));
      backend.download(x.data(), t);
      return converted<double>(x);
    };
    switch (t.dtype) {
      case DType::f64: return as(0.0);
      case DType::f32: return as(0.0f);
      case DType::f16: return as(f16{});
      default: return as(bf16{});
    }
  }

  // The results in the order in which they were asked for; of a float backend activations as if they had been stored in this
  // lab's type.
  std::vector<std::vector<double>> results() const {
    std::vector<std::vector<double>> all;
    for (const Result& r : results_) {
      all.push_back(read(r.tensor));
      if (r.activation && r.tensor.dtype == DType::f32) round(all.back(), type_);
    }
    return all;
  }

  i64 bytes() const {
    i64 sum = 0;
    for (const Piece& p : pieces_) sum += p.bytes;
    return sum;
  }

  // Nothing was written before the first or after the last element of any tensor.
  bool canaries_live() const {
    for (const Piece& p : pieces_) {
      std::vector<unsigned char> x(static_cast<size_t>(p.memory.bytes()));
      backend.download(x.data(), view(p.memory.data(), DType::u8, p.memory.bytes()));
      for (i64 i = 0; i < p.memory.bytes(); ++i)
        if ((i < kAlignment || i >= kAlignment + p.bytes) && x[static_cast<size_t>(i)] != kPoison) return false;
    }
    return true;
  }

 private:
  static constexpr unsigned char kPoison = 0xFF;
  struct Piece {
    Buffer memory;
    i64 bytes;
  };
  struct Result {
    Tensor tensor;
    bool activation;
  };

  // Of statistics and weight gradients.
  DType wide() const { return backend.activation_type() == DType::f64 ? DType::f64 : DType::f32; }

  static void round(std::vector<double>& x, DType type) {
    if (type == DType::f32) x = converted<double>(converted<float>(x));
    if (type == DType::bf16) x = converted<double>(converted<bf16>(x));
    if (type == DType::f16) x = converted<double>(converted<f16>(x));
  }

  Tensor random(i64 rows, i64 cols, DType stored, DType rounded, double low, double high) {
    std::vector<double> x = random_.values(rows * cols, low, high);
    round(x, rounded);
    const Tensor t = raw(rows, cols, stored);
    const auto put = [&](const auto& values) { backend.upload(t, values.data()); };
    if (stored == DType::f64) put(x);
    else if (stored == DType::f32) put(converted<float>(x));
    else if (stored == DType::f16) put(converted<f16>(x));
    else put(converted<bf16>(x));
    return t;
  }

  Tensor result(Tensor t, bool activation) {
    results_.push_back({t, activation});
    return t;
  }

  DType type_;
  Random random_;
  std::list<Piece> pieces_;
  std::vector<Result> results_;
};

// Attention on host tensors of float as it is done plainly with bf16 factors: sums are float, and what enters a second product
// (p, ds) is rounded to bf16 first.
inline void plain_attention(Tensor o, Tensor dq, Tensor dk, Tensor dv, Acc acc, Tensor dout, Tensor q, Tensor k, Tensor v,
                            const AttentionShape& s) {
  const i64 d = s.head_dim, ldq = s.heads * d, ldk = s.kv_heads * d;
  const auto at = [&](Tensor t, i64 row, i64 ld, i64 head) { return t.as<float>() + row * ld + head * d; };
  const auto product = [&](const float* a, const float* b) {
    float sum = 0;
    for (i64 c = 0; c < d; ++c) sum += a[c] * b[c];
    return sum;
  };
  const auto narrow = [](float x) { return static_cast<float>(bf16(x)); };
  const auto add_to = [&](float* to, float factor, const float* x) {
    for (i64 c = 0; c < d; ++c) to[c] += factor * x[c];
  };
  for (Tensor t : {o, dq, dk, dv})
    if (acc == Acc::set || t.data == o.data) std::fill_n(t.as<float>(), t.size(), 0.0f);
  for (i64 n = 0; n < s.batch * s.tokens; ++n)
    for (i64 h = 0; h < s.heads; ++h) {
      const i64 first = n / s.tokens * s.tokens, i = n - first, kv = h * s.kv_heads / s.heads;
      const i64 begin = s.window > 0 ? std::max<i64>(0, i - s.window + 1) : 0, end = s.causal ? i + 1 : s.tokens;
      const float *qi = at(q, n, ldq, h), *doi = at(dout, n, ldq, h);
      float *oi = at(o, n, ldq, h), top = -INFINITY, sum = 0, delta = 0;
      const float slope = static_cast<float>(alibi_slope(h, s.heads));
      std::vector<float> score(static_cast<size_t>(s.tokens)), p(score.size());
      for (i64 j = begin; j < end; ++j) {
        const float raw = product(qi, at(k, first + j, ldk, kv));
        const float x = s.scale * (s.falcon_alibi ? raw + falcon_bias(slope, j) : raw);
        score[j] = s.softcap > 0 ? s.softcap * std::tanh(x / s.softcap) : x;
        if (s.alibi && !s.falcon_alibi) score[j] -= slope * static_cast<float>(i - j);
        top = std::max(top, score[j]);
      }
      for (i64 j = begin; j < end; ++j) sum += p[j] = std::exp(score[j] - top);
      for (i64 j = begin; j < end; ++j) add_to(oi, narrow(p[j] / sum), at(v, first + j, ldk, kv));
      for (i64 c = 0; c < d; ++c) delta += doi[c] * narrow(oi[c]);
      for (i64 j = begin; j < end; ++j) {
        const float x = score[j] / s.softcap, bent = s.softcap > 0 ? 1 - x * x : 1;
        const float ds = narrow(p[j] / sum * (product(doi, at(v, first + j, ldk, kv)) - delta) * bent);
        add_to(at(dv, first + j, ldk, kv), narrow(p[j] / sum), doi);
        add_to(at(dq, n, ldq, h), s.scale * ds, at(k, first + j, ldk, kv));
        add_to(at(dk, first + j, ldk, kv), s.scale * ds, qi);
      }
    }
}

// ---- an op on the GPU against double on the CPU

inline double total(const std::vector<double>& x) {
  double sum = 0;
  for (double v : x) sum += std::abs(v);
  return sum;
}

// Of the gradient's size, the share that has the wrong sign: the optimiser sees nothing else.
inline double wrong_signs(const std::vector<double>& got, const std::vector<double>& want) {
  double wrong = 0;
  for (size_t i = 0; i < got.size(); ++i)
    if (got[i] * want[i] < 0) wrong += std::abs(want[i]);
  return want.empty() ? 0 : wrong / (total(want) + 1e-300);
}

// One backend a precision for all comparisons. Never destroyed: at the end of a process the driver may be gone before it.
inline Backend& shared_gpu(Precision precision) {
  static Backend* backends[2] = {};
  Backend*& backend = backends[precision == Precision::bf16];
  if (!backend) backend = make_backend("cuda", precision).release();
  return *backend;
}

// With SIGNROUND_SMALL set, for tools that slow kernels down a hundredfold: of each name only the first case, and none of more
// than 4 MB of tensors in float.
inline bool left_out(const std::string& name, const std::function<void(Lab&)>& op) {
  static std::set<std::string> seen;
  if (!std::getenv("SIGNROUND_SMALL")) return false;
  if (!seen.insert(name).second) return true;
  CpuBackend<float> backend(Precision::f32, "float");
  Lab lab(backend, DType::f32);
  op(lab);
  return lab.bytes() > i64{4} << 20;
}

// `plain` writes the op down naively in float, if the CPU's float kernels are not the plain version.
inline void compare(const std::string& name, const std::function<void(Lab&)>& op, const std::function<void(Lab&)>& plain = {}) {
  if (left_out(name, op)) return;
  CpuBackend<double> exact_backend(Precision::f32, "double");
  CpuBackend<float> float_backend(Precision::f32, "float");
  for (Precision precision : kPrecisions) {
    Backend& gpu = shared_gpu(precision);
    const DType type = gpu.activation_type();
    Lab exact(exact_backend, type), rounded(float_backend, type), first(gpu, type), second(gpu, type);
    op(exact), op(first), op(second);
    (plain && precision == Precision::bf16 ? plain : op)(rounded);
    const auto want = exact.results(), near = rounded.results(), got = first.results(), again = second.results();
    REQUIRE(got.size() == want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(name);
      CAPTURE(i);
      CAPTURE(name_of(type));
      // Tensor cores cut the last bits of a sum's terms off, so an f32 result of bf16 factors is that much worse than an f32 sum,
      // and what would cancel to 0 leaves as much: measured up to 8.5e-7 and 1.5e-6.
      const double left_over = precision == Precision::bf16 ? 0x1p-19 : 0x1p-23;
      const double error = distance(got[i], want[i]), allowed = 2 * distance(near[i], want[i]) + left_over;
      CHECK(error <= allowed);
      CHECK(wrong_signs(got[i], want[i]) < 1e-3);
      CHECK(got[i] == again[i]);
    }
    CHECK(first.canaries_live());
  }
}

}  // namespace signround

// The CUDA backend: every op against double on the CPU, with no more than twice the error of a plain version in the same
// precision; integers and learned parameters against the CPU's, to the bit.
#include <doctest/doctest.h>

#include <limits>

#include "cuda_lab.h"
#include "op_cases.h"

using namespace signround;

namespace {

struct Extent {
  i64 rows, cols;
};

}  // namespace

TEST_CASE("cuda: norm, rope, mlp") {
  if (absent()) return;
  for (const Extent& e : {Extent{3, 17}, {5, 64}, {173, 4096}, {1, 1}})
    for (DType weights : {DType::f32, DType::f16, DType::bf16})
      for (Acc acc : {Acc::set, Acc::add})
        compare(cat("rms ", e.rows, "x", e.cols, " ", name_of(weights)), [&](Lab& lab) {
          const Tensor x = lab.in(e.rows, e.cols), w = lab.weight(1, e.cols, weights), dy = lab.in(e.rows, e.cols);
          const Tensor y = lab.out(e.rows, e.cols), r = lab.statistic(e.rows, 1), dx = lab.gradient(e.rows, e.cols, acc);
          lab.backend.rms(y, r, x, w, 1e-2f, 1);
          lab.backend.rms_bwd(dx, acc, dy, x, w, r, 1);
        });
  for (const Extent& e : {Extent{3, 17}, {173, 4096}})
    for (DType weights : {DType::f32, DType::f16, DType::bf16})
      for (Acc acc : {Acc::set, Acc::add})
        compare(cat("layer_norm ", e.rows, "x", e.cols, " ", name_of(weights)), [&](Lab& lab) {
          const Tensor x = lab.in(e.rows, e.cols, 0, 3), w = lab.weight(1, e.cols, weights), b = lab.weight(1, e.cols, weights);
          const Tensor dy = lab.in(e.rows, e.cols), y = lab.out(e.rows, e.cols), stat = lab.statistic(e.rows, 2);
          lab.backend.layer_norm(y, stat, x, w, b, 1e-2f);
          lab.backend.layer_norm_bwd(lab.gradient(e.rows, e.cols, acc), acc, dy, x, w, stat);
        });
  for (const RopeShape& s : {RopeShape{.tokens = 3, .heads = 2, .head_dim = 6, .rotary_dim = 6},
                             {.tokens = 7, .heads = 3, .head_dim = 64, .rotary_dim = 64},
                             {.tokens = 5, .heads = 2, .head_dim = 128, .rotary_dim = 32},
                             {.tokens = 5, .heads = 3, .head_dim = 6, .rotary_dim = 4, .interleaved = true},
                             {.tokens = 5, .heads = 3, .head_dim = 96, .rotary_dim = 64, .interleaved = true}})
    for (Acc acc : {Acc::set, Acc::add})
      compare(cat("rope ", s.head_dim, " ", s.rotary_dim, " ", s.interleaved), [&](Lab& lab) {
        const i64 rows = 2 * s.tokens, cols = s.heads * s.head_dim;
        const Tensor x = lab.in(rows, cols), table = lab.weight(s.tokens, s.rotary_dim, DType::f32), dy = lab.in(rows, cols);
        const Tensor y = lab.out(rows, cols), dx = lab.gradient(rows, cols, acc);
        lab.backend.rope(y, x, table, s);
        lab.backend.rope_bwd(dx, acc, dy, table, s);
      });
  for (const Extent& e : {Extent{3, 19}, {131, 408}})
    for (Acc acc : {Acc::set, Acc::add}) {
      for (Activation act : kActivations)
        compare(cat("act ", e.rows, "x", e.cols), [&](Lab& lab) {
          const Tensor x = lab.in(e.rows, e.cols, -6, 6), dy = lab.in(e.rows, e.cols), y = lab.out(e.rows, e.cols);
          lab.backend.act(y, x, act);
          lab.backend.act_bwd(lab.gradient(e.rows, e.cols, acc), acc, dy, x, act);
        });
      compare(cat("slice ", e.rows, "x", e.cols), [&](Lab& lab) {
        const ColumnSlice some{.first = 3, .width = e.cols, .period = e.cols + 5};
        const Tensor x = lab.in(e.rows, 2 * some.period), dy = lab.in(e.rows, 2 * e.cols), y = lab.out(e.rows, 2 * e.cols);
        lab.backend.slice(y, x, some);
        lab.backend.slice_bwd(lab.gradient(e.rows, 2 * some.period, acc), acc, dy, some);
      });
      for (Activation act : kActivations)
        compare(cat("glu ", e.rows, "x", e.cols), [&](Lab& lab) {
          const Tensor g = lab.in(e.rows, e.cols, -6, 6), u = lab.in(e.rows, e.cols), dy = lab.in(e.rows, e.cols);
          const Tensor y = lab.out(e.rows, e.cols);
          const Tensor dg = lab.gradient(e.rows, e.cols, acc), du = lab.gradient(e.rows, e.cols, acc);
          lab.backend.glu(y, g, u, act);
          lab.backend.glu_bwd(dg, du, acc, acc, dy, g, u, act);
        });
      compare(cat("add ", e.rows, "x", e.cols), [&](Lab& lab) {
        const Tensor a = lab.in(e.rows, e.cols), b = lab.in(e.rows, e.cols), y = lab.out(e.rows, e.cols);
        const Tensor da = lab.gradient(e.rows, e.cols, acc);
        lab.backend.add(y, a, b);
        lab.backend.add_bwd(da, acc, a);
      });
      compare(cat("softcap ", e.rows, "x", e.cols), [&](Lab& lab) {
        const Tensor x = lab.in(e.rows, e.cols, -6, 6), dy = lab.in(e.rows, e.cols), y = lab.out(e.rows, e.cols);
        const Tensor dx = lab.gradient(e.rows, e.cols, acc), given = lab.in(e.rows, e.cols, -2, 2);
        lab.backend.softcap(y, x, 2);
        lab.backend.softcap_bwd(dx, acc, dy, given, 2);
      });
    }
}

TEST_CASE("cuda: linear") {
  if (absent()) return;
  const i64 shapes[][3] = {{5, 7, 3}, {1, 33, 18}, {19, 1, 5}, {131, 579, 203}, {256, 512, 128}, {1024, 576, 1536}};
  for (const auto& shape : shapes)
    for (DType weights : {DType::f32, DType::f16, DType::bf16})
      for (Acc acc : {Acc::set, Acc::add})
        compare(cat("linear ", shape[0], "x", shape[1], "x", shape[2], " ", name_of(weights)), [&](Lab& lab) {
          const i64 rows = shape[0], in = shape[1], out = shape[2];
          // What the weight is converted to is part of the precision: it starts as a number that bf16 holds.
          const Tensor x = lab.in(rows, in), w = lab.weight(out, in, weights, DType::bf16);
          const Tensor b = lab.weight(1, out, weights, DType::bf16);
          const Tensor dy = lab.in(rows, out), y = lab.out(rows, out), z = lab.out(rows, out);
          const Tensor dx = lab.gradient(rows, in, acc), dw = lab.weight_gradient(out, in, acc), sum = lab.out(rows, out);
          lab.backend.linear(y, x, w, b, {});
          lab.backend.linear(z, x, w, {}, {});
          lab.backend.linear(sum, x, w, b, dy);
          lab.backend.linear_bwd_x(dx, acc, dy, w);
          lab.backend.linear_bwd_w(dw, acc, dy, x);
        });
}

TEST_CASE("cuda: embedding and losses") {
  if (absent()) return;
  const std::vector<i32> ids = {0, 3, 1, 3, 2, 3, 0}, targets = {4, -1, 0, 36, 7, -1, 4};
  for (Precision precision : kPrecisions) {
    const std::unique_ptr<Backend> gpu = make_backend("cuda", precision);
    Lab lab(*gpu, gpu->activation_type());
    const Tensor y = lab.integers(ids);
    std::vector<i32> got(ids.size());
    gpu->positions(y, 7, 2);
    gpu->download(got.data(), y);
    CHECK(got == std::vector<i32>{2, 3, 4, 5, 6, 7, 8});
  }
  for (i64 cols : {5, 64})
    compare(cat("embed ", cols), [&](Lab& lab) {
      const Tensor table = lab.weight(4, cols, DType::bf16), dy = lab.in(7, cols), y = lab.out(7, cols);
      const Tensor dtable = lab.gradient(4, cols, Acc::add);
      lab.backend.embed(y, lab.integers(ids), table, 2.5f);
      lab.backend.embed_bwd(dtable, dy, lab.integers(ids), 1.5f);
    });
  for (i64 vocabulary : {37, 5000})
    compare(cat("cross_entropy ", vocabulary), [&](Lab& lab) {
      const Tensor logits = lab.in(7, vocabulary, -9, 9), nll = lab.statistic(7, 1), d = lab.out(7, vocabulary);
      lab.backend.cross_entropy(nll, logits, lab.integers(targets));
      lab.backend.cross_entropy_bwd(d, logits, lab.integers(targets));
    });
  for (bool skip_last : {false, true})
    for (const Extent& e : {Extent{5, 7}, {512, 264}, {1, 3}})
      compare(cat("mse ", e.rows, "x", e.cols), [&](Lab& lab) {
        const i64 rows = 3 * e.rows, cols = e.cols;  // three samples
        const Tensor y = lab.in(rows, cols), target = lab.in(rows, cols), dy = lab.out(rows, cols), loss = lab.statistic(1, 2);
        TuningState state{};
        lab.backend.fill(loss, 0);
        state.loss = view(loss.data, loss.dtype, 2), state.best = lab.scratch(1, 1);
        state.counters = lab.integers({1, 0, 0, 0});
        lab.backend.mse(dy, y, {target, true}, e.rows, skip_last, state);
      });
}

TEST_CASE("cuda: ids from outside are checked") {
  if (absent()) return;
  const std::unique_ptr<Backend> gpu = make_backend("cuda", Precision::bf16);
  for (i32 wrong : {-1, 4}) {
    Lab lab(*gpu, DType::bf16);
    const Tensor table = lab.weight(4, 8, DType::bf16), y = lab.out(2, 8);
    gpu->embed(y, lab.integers({0, wrong}), table, 1);
    std::string message;
    try {
      gpu->synchronize();
    } catch (const Error& e) {
      CHECK(e.kind == ErrorKind::bad_input);
      message = e.message;
    }
    CHECK(message == cat("token id ", wrong, " at position 1 is outside the embedding table"));
    gpu->synchronize();  // reported once
  }
}

TEST_CASE("cuda: memory") {
  if (absent()) return;
  const std::unique_ptr<Backend> gpu = make_backend("cuda", Precision::bf16);
  Random random;
  const i64 n = (i64{37} << 20) / 4 + 3;  // more than the staging buffers hold at a time
  std::vector<float> x(static_cast<size_t>(n)), back(x.size());
  for (float& v : x) v = static_cast<float>(random.uniform());
  const Buffer a(*gpu, 4 * n, "test"), b(*gpu, 4 * n, "test");
  const Tensor wide = view(a.data(), DType::f32, n), narrow = view(b.data(), DType::bf16, n);
  const Tensor half = view(b.data(), DType::f16, n);
  gpu->upload(wide, x.data());
  gpu->download(back.data(), wide);
  CHECK(back == x);
  const auto through = [&]<class T>(Tensor t, T) {
    std::vector<T> got(x.size());
    gpu->copy(t, wide);
    gpu->download(got.data(), t);
    CHECK(converted<float>(got) == converted<float>(converted<T>(x)));
  };
  through(narrow, bf16{});
  through(half, f16{});
  gpu->fill(wide, 1.5f);
  gpu->download(back.data(), wide);
  CHECK(back == std::vector<float>(x.size(), 1.5f));
  CHECK(gpu->free_bytes() <= gpu->total_bytes());
  const i64 much = gpu->total_bytes() * 4;
  std::string message;
  try {
    const Buffer far_too_large(*gpu, much, "a far too large thing");
  } catch (const Error& e) {
    CHECK(e.kind == ErrorKind::out_of_memory);
    message = e.message;
  }
  CHECK(message.find(cat("a far too large thing needs ", much, " bytes")) != message.npos);
}

namespace {

// All that qdq and three steps make of random weights, as bytes; after each step wq must be what qdq makes of it.
template <class W>
std::vector<std::byte> quantize_bytes(Backend& b, W, i64 rows, i64 cols, const QuantSpec& spec, DType gradient, bool wild,
                                      bool searched) {
  Lab lab(b, DType::f32);
  const i64 groups = spec.groups(cols);
  const double size = wild ? 1e-4 : 0.06;  // wild: many scales are held at their bound
  QdqTensors q;
  q.w = lab.weight(rows, cols, dtype_of<W>, dtype_of<W>, -size, 1.2 * size);
  q.v = lab.learned(rows, cols, -0.6, 0.6);
  q.lo = lab.learned(rows, groups, wild ? 0 : 0.5, 1), q.hi = lab.learned(rows, groups, wild ? 0 : 0.5, 1);
  q.wmin = lab.raw(rows, groups, DType::f32), q.wmax = lab.raw(rows, groups, DType::f32);
  const Tensor wq = lab.raw(rows, cols, dtype_of<W>), codes = lab.raw(rows, cols, DType::u8);
  GridTensors grid{codes, lab.raw(rows, spec.scales(cols), DType::f16), lab.raw(rows, groups, DType::u8), {}, {}};
  if (spec.two_levels()) grid.factor = lab.raw(rows, groups, DType::i8);
  if (spec.two_levels() && !spec.symmetric) grid.offset = lab.raw(rows, spec.scales(cols), DType::f16);
  const Tensor dwq = lab.weight(rows, cols, gradient, DType::bf16);
  TuningState state{};
  state.lr = lab.values({0, 0.0137f}), state.minmax_lr = lab.values({0, 0.0071f});
  state.counters = lab.integers({0, 1, 0, 0});
  b.group_range(q.wmin, q.wmax, q.w, spec);
  if (searched) b.search_factors(q, lab.learned(1, cols, 0, 3), spec);
  std::vector<std::byte> all;
  const auto append = [&](Tensor t) {
    if (!t) return;
    all.resize(all.size() + static_cast<size_t>(t.bytes()));
    b.download(all.data() + all.size() - t.bytes(), t);
  };
  for (int round = 0; round < 3; ++round) {
    const QdqStep one{wq, q, dwq, spec, searched ? 2.0f : 1.0f};
    b.qdq_step({&one, 1}, state);
    std::vector<std::byte> stepped(static_cast<size_t>(wq.bytes())), again = stepped;
    b.download(stepped.data(), wq);
    b.qdq(wq, q, spec);
    b.download(again.data(), wq);
    CHECK(stepped == again);
    append(wq);
  }
  b.qdq_codes(grid, q, spec);
  for (Tensor t : {q.wmin, q.wmax, q.v, q.lo, q.hi, codes, grid.scale, grid.zero, grid.factor, grid.offset}) append(t);
  CHECK(lab.canaries_live());
  return all;
}

}  // namespace

TEST_CASE("cuda: integers, scales and learned parameters are the CPU's, to the bit") {
  if (absent()) return;
  const std::unique_ptr<Backend> gpu = make_backend("cuda", Precision::bf16), cpu = make_cpu_backend(Precision::f32);
  const auto both = [&]<class W>(W w, i64 rows, i64 cols, const QuantSpec& spec) {
    for (bool wild : {false, true}) {
      CAPTURE(name_of(dtype_of<W>));
      CAPTURE(cols);
      CAPTURE(spec.bits);
      CAPTURE(spec.group);
      CAPTURE(spec.symmetric);
      CAPTURE(wild);
      for (bool searched : {false, true}) {
        if (searched && spec.two_levels()) continue;
        CAPTURE(searched);
        const std::vector<std::byte> want = quantize_bytes(*cpu, w, rows, cols, spec, DType::f32, wild, searched);
        CHECK(quantize_bytes(*gpu, w, rows, cols, spec, DType::f32, wild, searched) == want);
        CHECK(quantize_bytes(*gpu, w, rows, cols, spec, DType::bf16, wild, searched) == want);
      }
    }
  };
  for (int bits : {2, 3, 4, 8})
    for (bool symmetric : {true, false}) {
      both(bf16{}, 37, 256, {bits, 64, symmetric});
      both(bf16{}, 21, 200, {bits, 128, symmetric});
      both(f16{}, 33, 97, {bits, 32, symmetric});
      both(0.0f, 9, 291, {bits, -1, symmetric});
      both(bf16{}, 5, 1024, {bits, -1, symmetric});
    }
  for (const QuantSpec& spec : {QuantSpec{2, 16, false, 4}, QuantSpec{3, 16, true, 6}, QuantSpec{4, 32, false, 6},
                                QuantSpec{5, 32, false, 6}, QuantSpec{6, 16, true, 8}}) {
    both(bf16{}, 37, 512, spec);
    both(f16{}, 5, 256, spec);
    both(0.0f, 3, 768, spec);
  }
}

TEST_CASE("cuda: sums of the squares of columns") {
  if (absent()) return;
  for (const Extent& e : {Extent{1, 1}, {3, 17}, {33, 64}, {1000, 97}, {16384, 576}})
    compare(cat("column_squares ", e.rows, "x", e.cols), [&](Lab& lab) {
      const Tensor h = lab.weight_gradient(1, e.cols, Acc::add), x = lab.in(e.rows, e.cols);
      lab.backend.column_squares(h, x);
    });
}

TEST_CASE("cuda: the loop's own steps") {
  if (absent()) return;
  for (Precision precision : kPrecisions) {
    const std::unique_ptr<Backend> gpu = make_backend("cuda", precision);
    Lab lab(*gpu, gpu->activation_type());
    const i64 tokens = 3;
    for (i64 cols : {5, 16}) {
      const Tensor cache = lab.in(4 * tokens, cols), y = lab.out(2 * tokens, cols);
      TuningState state{};
      state.order = lab.integers({2, 0, 1, 3}), state.counters = lab.integers({1, 0, 0, 0});
      gpu->gather(y, cache, tokens, state);
      CHECK(lab.read(y.slice(0, tokens)) == lab.read(cache.slice(tokens, tokens)));
      CHECK(lab.read(y.slice(tokens, tokens)) == lab.read(cache.slice(3 * tokens, tokens)));
      // The same targets gathered, picked by the order, and in turn.
      const Tensor made = lab.in(2 * tokens, cols), want = lab.out(2 * tokens, cols), got = lab.out(2 * tokens, cols);
      state.loss = lab.values({0, 0}), state.best = lab.values({1e30f});
      for (const Targets& targets : {Targets{cache}, Targets{cache, true}}) {
        state.counters = lab.integers({1, 0, 0, 0});
        gpu->mse(got, made, targets, tokens, true, state);
        state.counters = lab.integers({1, 0, 0, 0});
        gpu->mse(want, made, {targets.in_turn ? cache.slice(2 * tokens, 2 * tokens) : y, true}, tokens, true, state);
        CHECK(lab.read(got) == lab.read(want));
      }
    }
    const Tensor y = lab.in(1, 1), zero = lab.in(1, 1), dy = lab.out(1, 1);
    gpu->fill(zero, 0);
    for (i32 accumulate : {1, 2}) {
      TuningState state{};
      state.loss = lab.values({0, 0, 0, 0, 0}), state.best = lab.values({1e30f});
      state.counters = lab.integers({0, 0, 0, 0}), state.accumulate = accumulate;
      const auto measure = [&](float error) {
        gpu->fill(y, error);
        gpu->mse(dy, y, {zero, true}, 1, false, state);
      };
      const Tensor now = lab.values({0, 0, 0}), kept = lab.values({-1, -1, -1});
      const float errors[] = {2, 1, 1, std::numeric_limits<float>::quiet_NaN(), 0.5f};
      const i32 best_steps[] = {0, 1, 1, 1, 4};
      for (i32 step = 0; step < 5; ++step) {
        gpu->fill(now, static_cast<float>(step));
        if (accumulate == 2) measure(0.5f);
        measure(errors[step]);
        gpu->keep_if_best(kept, now, state);
        CHECK(lab.read(kept) == std::vector<double>(3, best_steps[step]));
        Counters got;
        gpu->download(&got, state.counters);
        CHECK(got.micro == accumulate * (step + 1));
        CHECK(got.step == step);
        CHECK(got.best_step == best_steps[step]);
        CHECK(got.is_best == (best_steps[step] == step));
      }
      CHECK(lab.read(state.best)[0] == (accumulate == 1 ? 0.25 : 0.5));
    }
    CHECK(lab.canaries_live());
  }
}

TEST_CASE("cuda: an error inside of a recorded run leaves the stream usable") {
  if (absent()) return;
  const std::unique_ptr<Backend> gpu = make_backend("cuda", Precision::bf16);
  Lab lab(*gpu, DType::bf16);
  const Tensor x = lab.values({1, 2, 3});
  int runs = 0;  // the second is recorded
  const auto fails_later = [&] {
    if (++runs > 1) gpu->fill(x, 7), fail(ErrorKind::interrupted, "stop");
  };
  CHECK_THROWS_AS(gpu->repeat(3, fails_later, {}), Error);
  CHECK(lab.read(x) == std::vector<double>{1, 2, 3});
  i64 reported = 0;
  gpu->repeat(5, [&] { gpu->fill(x, 7); }, [&](i64 n) { reported = n; });
  CHECK(reported == 5);
  CHECK(lab.read(x) == std::vector<double>{7, 7, 7});
}

// Attention on the GPU against double on the CPU, as test_cuda.cpp has it. In several cases, for tools that take minutes for
// each: they can be run side by side.
#include <doctest/doctest.h>

#include "cuda_lab.h"

using namespace signround;

namespace {

void compare_attention(const std::vector<AttentionShape>& shapes) {
  for (const AttentionShape& s : shapes)
    for (Acc acc : {Acc::set, Acc::add}) {
      const i64 rows = s.batch * s.tokens, qc = s.heads * s.head_dim, kc = s.kv_heads * s.head_dim;
      struct Tensors {
        Tensor q, k, v, dout, o, dq, dk, dv;
      };
      const auto tensors = [&](Lab& lab) {
        return Tensors{lab.in(rows, qc, -2, 2), lab.in(rows, kc, -2, 2), lab.in(rows, kc), lab.in(rows, qc), lab.out(rows, qc),
                       lab.gradient(rows, qc, acc), lab.gradient(rows, kc, acc), lab.gradient(rows, kc, acc)};
      };
      compare(cat("attention ", s.tokens, " d ", s.head_dim, " window ", s.window, " cap ", s.softcap, s.causal ? " causal" : "",
                  s.falcon_alibi ? " Falcon's ALiBi" : s.alibi ? " ALiBi" : ""),
              [&](Lab& lab) {
                const Tensors t = tensors(lab);
                const Tensor lse = lab.scratch(rows, s.heads), delta = lab.scratch(rows, s.heads);
                lab.backend.attention(t.o, lse, t.q, t.k, t.v, s);
                lab.backend.attention_bwd(t.dq, t.dk, t.dv, acc, acc, acc, delta, t.dout, t.q, t.k, t.v, t.o, lse, s);
              },
              [&](Lab& lab) {
                const Tensors t = tensors(lab);
                plain_attention(t.o, t.dq, t.dk, t.dv, acc, t.dout, t.q, t.k, t.v, s);
              });
    }
}

constexpr AttentionShape kAttention{.batch = 2, .tokens = 77, .heads = 4, .kv_heads = 2, .head_dim = 64, .scale = 0.125f};

}  // namespace

TEST_CASE("cuda: attention of 64 columns") {
  if (absent()) return;
  std::vector<AttentionShape> shapes(6, kAttention);
  shapes[1].causal = false;
  shapes[2].window = 19;
  shapes[3].tokens = 1, shapes[3].kv_heads = 4;
  // Several tiles of each kind, and more of them than a GPU has multiprocessors.
  shapes[4].tokens = 517, shapes[4].batch = 1;
  shapes[5].tokens = 130, shapes[5].batch = 10, shapes[5].heads = 8, shapes[5].kv_heads = 8;
  compare_attention(shapes);
}

TEST_CASE("cuda: attention of 128 columns") {
  if (absent()) return;
  std::vector<AttentionShape> shapes(4, kAttention);
  for (AttentionShape& s : shapes) s.head_dim = 128;
  shapes[0].tokens = 300, shapes[0].batch = 1;
  shapes[1].tokens = 517, shapes[1].batch = 1, shapes[1].window = 150;
  shapes[2].tokens = 130, shapes[2].batch = 10, shapes[2].heads = 8, shapes[2].kv_heads = 4;
  shapes[3].tokens = 333, shapes[3].causal = false;
  compare_attention(shapes);
}

TEST_CASE("cuda: attention with a softcap") {
  if (absent()) return;
  std::vector<AttentionShape> shapes(2, kAttention);
  shapes[0].softcap = 2;
  shapes[1].head_dim = 96, shapes[1].window = 40, shapes[1].softcap = 3, shapes[1].kv_heads = 1;
  compare_attention(shapes);
}

TEST_CASE("cuda: attention of other widths") {
  if (absent()) return;
  std::vector<AttentionShape> shapes(3, kAttention);
  shapes[0].head_dim = 80, shapes[0].tokens = 128;
  shapes[1].head_dim = 4, shapes[2].head_dim = 42, shapes[2].window = 30;  // no tiles for tensor cores
  compare_attention(shapes);
}

namespace {

void compare_alibi(bool falcon) {
  std::vector<AttentionShape> shapes;
  for (AttentionShape s : {AttentionShape{.tokens = 131, .heads = 6, .kv_heads = 6, .head_dim = 64, .scale = 0.125f},
                           {.tokens = 77, .heads = 8, .kv_heads = 2, .head_dim = 80, .scale = 0.11f},
                           {.tokens = 300, .heads = 3, .kv_heads = 1, .head_dim = 128, .scale = 0.09f},
                           {.tokens = 65, .heads = 2, .kv_heads = 2, .head_dim = 256, .scale = 0.0625f}}) {
    s.batch = s.tokens < 100 ? 2 : 1, s.alibi = true, s.falcon_alibi = falcon;
    shapes.push_back(s);
  }
  compare_attention(shapes);
}

}  // namespace

TEST_CASE("cuda: attention with ALiBi") {
  if (absent()) return;
  compare_alibi(false);
}

TEST_CASE("cuda: attention with Falcon's ALiBi") {
  if (absent()) return;
  compare_alibi(true);
}

// Every op of the instruction set with every option, as data: shapes, how to call it, and its formula written naively in double.
#pragma once
#include <array>
#include <functional>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "testing.h"

namespace signround {

using Values = std::vector<std::vector<double>>;
using Shape = std::array<i64, 2>;

using In = const Tensor*;

struct OpCase {
  std::string name;
  std::vector<Shape> in;
  size_t learned;           // of the inputs the first so many have a gradient
  Shape out;
  std::vector<Shape> kept;  // statistics and scratch, filled by forward or backward
  std::function<void(Backend&, In x, Tensor y, In kept)> forward;
  std::function<void(Backend&, In dx, Acc, Tensor dy, In x, Tensor y, In kept)> backward;
  std::function<std::vector<double>(const Values& x)> naive;
  std::vector<Acc> accs = {Acc::set, Acc::add};  // what the backward offers
  bool unit_dy = false;                          // the backward is that of the sum of the outputs
};

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

inline OpCase rms_case(i64 rows, i64 cols, float plus) {
  return {cat("rms ", rows, "x", cols, " plus ", plus), {{rows, cols}, {1, cols}}, 1, {rows, cols}, {{rows, 1}},
          [=](Backend& b, In x, Tensor y, In k) { b.rms(y, k[0], x[0], x[1], 1e-2f, plus); },
          [=](Backend& b, In d, Acc acc, Tensor dy, In x, Tensor, In k) { b.rms_bwd(d[0], acc, dy, x[0], x[1], k[0], plus); },
          [=](const Values& x) {
            std::vector<double> y;
            for (i64 n = 0; n < rows; ++n) {
              double squares = 0;
              for (i64 i = 0; i < cols; ++i) squares += x[0][n * cols + i] * x[0][n * cols + i];
              const double r = 1 / std::sqrt(squares / static_cast<double>(cols) + 1e-2f);
              for (i64 i = 0; i < cols; ++i) y.push_back(x[0][n * cols + i] * (x[1][i] + plus) * r);
            }
            return y;
          }};
}

inline OpCase layer_norm_case(i64 rows, i64 cols, bool bias) {
  OpCase c{cat("layer_norm ", rows, "x", cols, bias ? " with bias" : ""), {{rows, cols}, {1, cols}}, 1, {rows, cols}, {{rows, 2}},
           [=](Backend& b, In x, Tensor y, In k) { b.layer_norm(y, k[0], x[0], x[1], bias ? x[2] : Tensor{}, 1e-2f); },
           [=](Backend& b, In d, Acc acc, Tensor dy, In x, Tensor, In k) { b.layer_norm_bwd(d[0], acc, dy, x[0], x[1], k[0]); },
           [=](const Values& x) {
             std::vector<double> y;
             for (i64 n = 0; n < rows; ++n) {
               double mean = 0, variance = 0;
               for (i64 i = 0; i < cols; ++i) mean += x[0][n * cols + i] / static_cast<double>(cols);
               for (i64 i = 0; i < cols; ++i) variance += std::pow(x[0][n * cols + i] - mean, 2) / static_cast<double>(cols);
               for (i64 i = 0; i < cols; ++i)
                 y.push_back((x[0][n * cols + i] - mean) / std::sqrt(variance + 1e-2f) * x[1][i] + (bias ? x[2][i] : 0));
             }
             return y;
           }};
  if (bias) c.in.push_back({1, cols});
  return c;
}

inline OpCase linear_case(i64 rows, i64 in, i64 out, bool bias, bool residual = false) {
  OpCase c{cat("linear ", rows, "x", in, "x", out, bias ? " with bias" : "", residual ? " onto a residual" : ""),
           {{rows, in}, {out, in}}, 2, {rows, out}, {},
           [=](Backend& b, In x, Tensor y, In) {
             b.linear(y, x[0], x[1], bias ? x[2] : Tensor{}, residual ? x[bias ? 3 : 2] : Tensor{});
           },
           [](Backend& b, In d, Acc acc, Tensor dy, In x, Tensor, In) {
             b.linear_bwd_x(d[0], acc, dy, x[1]);
             b.linear_bwd_w(d[1], acc, dy, x[0]);
           },
           [=](const Values& x) {
             std::vector<double> y;
             for (i64 n = 0; n < rows; ++n)
               for (i64 o = 0; o < out; ++o) {
                 y.push_back((bias ? x[2][o] : 0) + (residual ? x.back()[n * out + o] : 0));
                 for (i64 i = 0; i < in; ++i) y.back() += x[0][n * in + i] * x[1][o * in + i];
               }
             return y;
           }};
  if (bias) c.in.push_back({1, out});
  if (residual) c.in.push_back({rows, out});
  return c;
}

// The table [T, rotary] of some angles: it belongs to the case, whatever the backend.
inline OpCase rope_case(i64 batch, const RopeShape& s) {
  const i64 rows = batch * s.tokens, cols = s.heads * s.head_dim, pairs = s.rotary_dim / 2;
  const auto angle = [](i64 t, i64 k) { return static_cast<double>(t) * 0.7 / static_cast<double>(k + 1) + 0.1; };
  std::vector<float> table;
  for (i64 t = 0; t < s.tokens; ++t)
    for (i64 k = 0; k < 2 * pairs; ++k)
      table.push_back(static_cast<float>(k < pairs ? std::cos(angle(t, k)) : std::sin(angle(t, k - pairs))));
  return {cat("rope ", rows, "x", cols, " rotary ", s.rotary_dim, s.interleaved ? " interleaved" : ""), {{rows, cols}}, 1,
          {rows, cols}, {},
          [=](Backend& b, In x, Tensor y, In) mutable { b.rope(y, x[0], tensor(table, s.tokens, 2 * pairs), s); },
          [=](Backend& b, In d, Acc acc, Tensor dy, In, Tensor, In) mutable {
            b.rope_bwd(d[0], acc, dy, tensor(table, s.tokens, 2 * pairs), s);
          },
          [=](const Values& x) {
            std::vector<double> y = x[0];
            for (i64 n = 0; n < rows; ++n)
              for (i64 h = 0; h < s.heads; ++h)
                for (i64 k = 0; k < pairs; ++k) {
                  const size_t at = n * cols + h * s.head_dim, i = at + (s.interleaved ? 2 * k : k),
                               j = s.interleaved ? i + 1 : i + pairs;
                  const double c = table[n % s.tokens * 2 * pairs + k], w = table[n % s.tokens * 2 * pairs + pairs + k];
                  y[i] = x[0][i] * c - x[0][j] * w;
                  y[j] = x[0][j] * c + x[0][i] * w;
                }
            return y;
          }};
}

inline OpCase attention_case(std::string_view what, const AttentionShape& s) {
  const i64 rows = s.batch * s.tokens, qc = s.heads * s.head_dim, kc = s.kv_heads * s.head_dim;
  return {cat("attention ", s.batch, "x", s.tokens, " ", what), {{rows, qc}, {rows, kc}, {rows, kc}}, 3, {rows, qc},
          {{rows, s.heads}, {rows, s.heads}},
          [=](Backend& b, In x, Tensor y, In k) { b.attention(y, k[0], x[0], x[1], x[2], s); },
          [=](Backend& b, In d, Acc acc, Tensor dy, In x, Tensor y, In k) {
            b.attention_bwd(d[0], d[1], d[2], acc, acc, acc, k[1], dy, x[0], x[1], x[2], y, k[0], s);
          },
          [=](const Values& x) {
            std::vector<double> o(rows * qc, 0.0);
            for (i64 n = 0; n < rows; ++n)
              for (i64 h = 0; h < s.heads; ++h) {
                const i64 first = n / s.tokens * s.tokens, i = n - first, kv = h * s.kv_heads / s.heads * s.head_dim;
                std::vector<double> p(s.tokens, 0.0);
                double sum = 0;
                for (i64 j = 0; j < s.tokens; ++j) {
                  if ((s.causal && j > i) || (s.window > 0 && j <= i - s.window)) continue;
                  double score = 0;
                  for (i64 c = 0; c < s.head_dim; ++c)
                    score += x[0][n * qc + h * s.head_dim + c] * x[1][(first + j) * kc + kv + c];
                  if (s.falcon_alibi) score += falcon_bias(static_cast<float>(alibi_slope(h, s.heads)), j);
                  score *= s.scale;
                  if (s.alibi && !s.falcon_alibi) score -= alibi_slope(h, s.heads) * static_cast<double>(i - j);
                  sum += p[j] = std::exp(s.softcap > 0 ? s.softcap * std::tanh(score / s.softcap) : score);
                }
                for (i64 j = 0; j < s.tokens; ++j)
                  for (i64 c = 0; c < s.head_dim; ++c)
                    o[n * qc + h * s.head_dim + c] += p[j] / sum * x[2][(first + j) * kc + kv + c];
              }
            return o;
          }};
}

inline double activated(double x, Activation act) {
  switch (act) {
    case Activation::silu: return x * sigmoid(x);
    case Activation::gelu_tanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Activation::gelu: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::relu: return std::max(x, 0.0);
  }
  return 0;
}

inline constexpr Activation kActivations[] = {Activation::silu, Activation::gelu_tanh, Activation::gelu, Activation::relu};

inline OpCase act_case(i64 rows, i64 cols, Activation act) {
  return {cat("act ", static_cast<int>(act), " ", rows, "x", cols), {{rows, cols}}, 1, {rows, cols}, {},
          [=](Backend& b, In x, Tensor y, In) { b.act(y, x[0], act); },
          [=](Backend& b, In d, Acc acc, Tensor dy, In x, Tensor, In) { b.act_bwd(d[0], acc, dy, x[0], act); },
          [=](const Values& x) {
            std::vector<double> y = x[0];
            for (double& v : y) v = activated(v, act);
            return y;
          }};
}

inline OpCase slice_case(i64 rows, i64 periods, const ColumnSlice& s) {
  return {cat("slice ", rows, " rows, ", periods, " x ", s.first, "+", s.width, " of ", s.period),
          {{rows, periods * s.period}}, 1, {rows, periods * s.width}, {},
          [=](Backend& b, In x, Tensor y, In) { b.slice(y, x[0], s); },
          [=](Backend& b, In d, Acc acc, Tensor dy, In, Tensor, In) { b.slice_bwd(d[0], acc, dy, s); },
          [=](const Values& x) {
            std::vector<double> y;
            for (i64 p = 0; p < rows * periods; ++p)
              for (i64 j = 0; j < s.width; ++j) y.push_back(x[0][p * s.period + s.first + j]);
            return y;
          }};
}

inline OpCase glu_case(i64 rows, i64 cols, Activation act) {
  return {cat("glu ", static_cast<int>(act), " ", rows, "x", cols), {{rows, cols}, {rows, cols}}, 2,
          {rows, cols}, {},
          [=](Backend& b, In x, Tensor y, In) { b.glu(y, x[0], x[1], act); },
          [=](Backend& b, In d, Acc acc, Tensor dy, In x, Tensor, In) {
            b.glu_bwd(d[0], d[1], acc, acc, dy, x[0], x[1], act);
          },
          [=](const Values& x) {
            std::vector<double> y = x[0];
            for (size_t i = 0; i < y.size(); ++i) y[i] = activated(x[0][i], act) * x[1][i];
            return y;
          }};
}

inline OpCase add_case(i64 rows, i64 cols) {
  return {cat("add ", rows, "x", cols), {{rows, cols}, {rows, cols}}, 2, {rows, cols}, {},
          [](Backend& b, In x, Tensor y, In) { b.add(y, x[0], x[1]); },
          [](Backend& b, In d, Acc acc, Tensor dy, In, Tensor, In) {
            b.add_bwd(d[0], acc, dy);
            b.add_bwd(d[1], acc, dy);
          },
          [](const Values& x) {
            std::vector<double> y = x[0];
            for (size_t i = 0; i < y.size(); ++i) y[i] += x[1][i];
            return y;
          }};
}

inline OpCase softcap_case(i64 rows, i64 cols, float cap) {
  return {cat("softcap ", rows, "x", cols), {{rows, cols}}, 1, {rows, cols}, {},
          [=](Backend& b, In x, Tensor y, In) { b.softcap(y, x[0], cap); },
          [=](Backend& b, In d, Acc acc, Tensor dy, In, Tensor y, In) { b.softcap_bwd(d[0], acc, dy, y, cap); },
          [=](const Values& x) {
            std::vector<double> y = x[0];
            for (double& v : y) v = cap * std::tanh(v / cap);
            return y;
          }};
}

inline OpCase embed_case(i64 rows, i64 cols, i64 vocabulary, float scale) {
  std::vector<i32> ids;
  for (i64 n = 0; n < rows; ++n) ids.push_back(static_cast<i32>(n * n % vocabulary));  // some twice, some never
  return {cat("embed ", rows, "x", cols), {{vocabulary, cols}}, 1, {rows, cols}, {},
          [=](Backend& b, In x, Tensor y, In) mutable { b.embed(y, tensor(ids), x[0], scale); },
          [=](Backend& b, In d, Acc, Tensor dy, In, Tensor, In) mutable {
            b.embed_bwd(d[0], dy, tensor(ids), scale);
          },
          [=](const Values& x) {
            std::vector<double> y;
            for (i32 id : ids)
              for (i64 i = 0; i < cols; ++i) y.push_back(scale * x[0][id * cols + i]);
            return y;
          },
          {Acc::add}};
}

inline OpCase cross_entropy_case(i64 rows, i64 vocabulary) {
  std::vector<i32> target;
  for (i64 n = 0; n < rows; ++n) target.push_back(n % 3 == 2 ? -1 : static_cast<i32>(n * 7 % vocabulary));
  return {cat("cross_entropy ", rows, "x", vocabulary), {{rows, vocabulary}}, 1, {rows, 1}, {},
          [=](Backend& b, In x, Tensor y, In) mutable { b.cross_entropy(y, x[0], tensor(target)); },
          [=](Backend& b, In d, Acc, Tensor, In x, Tensor, In) mutable { b.cross_entropy_bwd(d[0], x[0], tensor(target)); },
          [=](const Values& x) {
            std::vector<double> nll;
            for (i64 n = 0; n < rows; ++n) {
              double sum = 0;
              for (i64 i = 0; i < vocabulary; ++i) sum += std::exp(x[0][n * vocabulary + i]);
              nll.push_back(target[n] < 0 ? 0 : std::log(sum) - x[0][n * vocabulary + target[n]]);
            }
            return nll;
          },
          {Acc::set}, true};
}

}  // namespace signround

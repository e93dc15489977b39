// The ops of a mixture of experts as cases of tests/op_cases.h. A case's integers belong to it, whatever the backend.
#pragma once
#include <memory>
#include <numeric>

#include "op_cases.h"

namespace signround {

inline OpCase sigmoid_gate_case(i64 rows, i64 cols) {
  return {cat("sigmoid_gate ", rows, "x", cols), {{rows, cols}, {rows, 1}}, 2, {rows, cols}, {},
          [](Backend& b, In x, Tensor y, In) { b.sigmoid_gate(y, x[0], x[1]); },
          [](Backend& b, In d, Acc acc, Tensor dy, In x, Tensor, In) {
            b.sigmoid_gate_bwd(d[0], d[1], acc, acc, dy, x[0], x[1]);
          },
          [=](const Values& x) {
            std::vector<double> y = x[0];
            for (size_t i = 0; i < y.size(); ++i) y[i] *= sigmoid(x[1][i / static_cast<size_t>(cols)]);
            return y;
          }};
}

// The k largest of each row, the largest first.
inline std::vector<i64> largest(const std::vector<double>& z, i64 experts, i64 n, i64 k) {
  std::vector<i64> order(static_cast<size_t>(experts));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](i64 a, i64 b) { return z[n * experts + a] > z[n * experts + b]; });
  order.resize(static_cast<size_t>(k));
  return order;
}

inline OpCase route_case(i64 rows, i64 experts, i64 active, bool normalized) {
  const auto integers = std::make_shared<std::vector<i32>>(static_cast<size_t>(3 * rows * active + 2 * experts + 1));
  const auto order = [=] { return view(integers->data(), DType::i32, 3 * rows, active); };
  const auto bounds = [=] { return view(integers->data() + 3 * rows * active, DType::i32, experts + 1); };
  const auto seen = [=] { return view(integers->data() + 3 * rows * active + experts + 1, DType::i32, experts); };
  return {cat("route ", rows, "x", experts, " k ", active, normalized ? " normalized" : ""), {{rows, experts}}, 1,
          {rows, active}, {},
          [=](Backend& b, In x, Tensor y, In) { b.route(y, order(), bounds(), seen(), x[0], normalized); },
          [=](Backend& b, In d, Acc acc, Tensor dy, In x, Tensor y, In) {
            b.route_bwd(d[0], acc, dy, x[0], y, order(), normalized);
          },
          [=](const Values& x) {
            std::vector<double> y;
            for (i64 n = 0; n < rows; ++n) {
              double all = 0, chosen = 0;
              const std::vector<i64> best = largest(x[0], experts, n, active);
              for (i64 e = 0; e < experts; ++e) all += std::exp(x[0][n * experts + e]);
              for (i64 e : best) chosen += std::exp(x[0][n * experts + e]);
              for (i64 e : best) y.push_back(std::exp(x[0][n * experts + e]) / (normalized ? chosen : all));
            }
            return y;
          }};
}

// Some order of rows: expert of each choice, row of each choice, choice of each row.
inline std::vector<i32> some_order(i64 choices) {
  std::vector<i32> order(static_cast<size_t>(3 * choices), 0);
  for (i64 c = 0; c < choices; ++c) {
    const i64 row = (c * 7 + 3) % choices;  // choices is no multiple of 7
    order[choices + c] = static_cast<i32>(row);
    order[2 * choices + row] = static_cast<i32>(c);
  }
  return order;
}

inline OpCase dispatch_case(i64 rows, i64 active, i64 cols) {
  std::vector<i32> order = some_order(rows * active);
  return {cat("dispatch ", rows, "x", cols, " k ", active), {{rows, cols}}, 1, {rows * active, cols}, {},
          [=](Backend& b, In x, Tensor y, In) mutable { b.dispatch(y, x[0], tensor(order, 3 * rows, active)); },
          [=](Backend& b, In d, Acc acc, Tensor dy, In, Tensor, In) mutable {
            b.dispatch_bwd(d[0], acc, dy, tensor(order, 3 * rows, active));
          },
          [=](const Values& x) {
            std::vector<double> y;
            for (i64 row = 0; row < rows * active; ++row)
              for (i64 i = 0; i < cols; ++i) y.push_back(x[0][order[2 * rows * active + row] / active * cols + i]);
            return y;
          }};
}

inline OpCase combine_case(i64 rows, i64 active, i64 cols) {
  std::vector<i32> order = some_order(rows * active);
  return {cat("combine ", rows, "x", cols, " k ", active), {{rows * active, cols}, {rows, active}}, 2, {rows, cols}, {},
          [=](Backend& b, In x, Tensor y, In) mutable { b.combine(y, x[0], x[1], tensor(order, 3 * rows, active)); },
          [=](Backend& b, In d, Acc acc, Tensor dy, In x, Tensor, In) mutable {
            b.combine_bwd(d[0], d[1], acc, acc, dy, x[0], x[1], tensor(order, 3 * rows, active));
          },
          [=](const Values& x) {
            std::vector<double> y(static_cast<size_t>(rows * cols), 0.0);
            for (i64 c = 0; c < rows * active; ++c)
              for (i64 i = 0; i < cols; ++i)
                y[c / active * cols + i] += x[1][c] * x[0][order[rows * active + c] * cols + i];
            return y;
          }};
}

inline OpCase expert_linear_case(std::vector<i32> bounds, i64 in, i64 out) {
  const i64 rows = bounds.back(), experts = static_cast<i64>(bounds.size()) - 1;
  return {cat("expert_linear ", experts, " experts, ", rows, "x", in, "x", out), {{rows, in}, {experts * out, in}}, 2,
          {rows, out}, {},
          [=](Backend& b, In x, Tensor y, In) mutable { b.expert_linear(y, x[0], x[1], tensor(bounds)); },
          [=](Backend& b, In d, Acc acc, Tensor dy, In x, Tensor, In) mutable {
            b.expert_linear_bwd_x(d[0], acc, dy, x[1], tensor(bounds));
            b.expert_linear_bwd_w(d[1], acc, dy, x[0], tensor(bounds));
          },
          [=](const Values& x) {
            std::vector<double> y;
            for (i64 e = 0; e < experts; ++e)
              for (i64 n = bounds[e]; n < bounds[e + 1]; ++n)
                for (i64 o = e * out; o < (e + 1) * out; ++o) {
                  y.push_back(0);
                  for (i64 i = 0; i < in; ++i) y.back() += x[0][n * in + i] * x[1][o * in + i];
                }
            return y;
          }};
}

}  // namespace signround

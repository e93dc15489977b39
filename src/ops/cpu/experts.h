// Mixture of experts: the choice, the way to the experts and back. Formulas and the layout of `order`: ops/ops.h.
#pragma once
#include <algorithm>

#include "ops/cpu/mlp.h"

namespace signround::SIGNROUND_ISA {

// y[n] = sigmoid(g[n]) x[n]
template <class T>
void sigmoid_gate(T* y, const T* x, const T* g, i64 rows, i64 cols) {
  for_rows(rows, cols, [&](i64 n) {
    const T s = sigmoid_(g[n]);
    for (i64 i = n * cols; i < (n + 1) * cols; ++i) y[i] = s * x[i];
  });
}

// dx = s dy,   dg = s (1 - s) (dy . x)
template <class T>
void sigmoid_gate_bwd(T* dx, T* dg, Acc acc_x, Acc acc_g, const T* dy, const T* x, const T* g, i64 rows, i64 cols) {
  for_rows(rows, cols, [&](i64 n) {
    const T s = sigmoid_(g[n]);
    const T along = lane_sum<T>(cols, [&](i64 i) { return dy[n * cols + i] * x[n * cols + i]; });
    accumulate(dx, acc_x, n * cols, (n + 1) * cols, [&](i64 i) { return s * dy[i]; });
    accumulate(dg, acc_g, n, n + 1, [&](i64) { return s * (T(1) - s) * along; });
  });
}

// The three parts of `order`.
struct Order {
  const i32 *expert, *row, *choice;
  Order(const i32* order, i64 choices) : expert(order), row(order + choices), choice(order + 2 * choices) {}
};

// exp(z[e] - the largest) over what the weights are shares of: their sum is the softmax's denominator.
template <class T>
T denominator(const T* z, const i32* chosen, i64 experts, i64 active, bool normalized) {
  const T top = z[chosen[0]];
  return normalized ? lane_sum<T>(active, [&](i64 j) { return exp_(z[chosen[j]] - top); })
                    : lane_sum<T>(experts, [&](i64 e) { return exp_(z[e] - top); });
}

// The experts of each choice, and their weights.
template <class T>
void choose(T* weights, i32* expert, const T* z, i64 rows, i64 experts, i64 active, bool normalized) {
  for_rows(rows, experts * active, [&](i64 n) {
    const T* zn = z + n * experts;
    i32* chosen = expert + n * active;
    for (i64 j = 0; j < active; ++j) {
      i32 best = -1;
      for (i32 e = 0; e < experts; ++e) {
        const bool taken = std::find(chosen, chosen + j, e) != chosen + j;
        if (!taken && (best < 0 || zn[e] > zn[best])) best = e;
      }
      chosen[j] = best;
    }
    const T sum = denominator(zn, chosen, experts, active, normalized);
    for (i64 j = 0; j < active; ++j) weights[n * active + j] = exp_(zn[chosen[j]] - zn[chosen[0]]) / sum;
  });
}

// Sorts by counting: what remains of `order`, and bounds. One thread: it takes as long as reading the choices twice.
inline void sort_choices(i32* order, i32* bounds, i32* seen, i64 choices, i64 experts) {
  i32 *expert = order, *row = order + choices, *choice = row + choices;
  std::fill(bounds, bounds + experts + 1, 0);
  for (i64 c = 0; c < choices; ++c) ++bounds[expert[c] + 1];
  for (i64 e = 0; e < experts; ++e) {
    seen[e] = static_cast<i32>(static_cast<u32>(seen[e]) + static_cast<u32>(bounds[e + 1]));
    bounds[e + 1] += bounds[e];
  }
  for (i64 c = 0; c < choices; ++c) {  // bounds[e] moves to the end of its rows, where bounds[e + 1] began
    row[c] = bounds[expert[c]]++;
    choice[row[c]] = static_cast<i32>(c);
  }
  std::copy_backward(bounds, bounds + experts, bounds + experts + 1);
  bounds[0] = 0;
}

template <class T>
void route_bwd(T* dz, Acc acc, const T* dweights, const T* z, const T* weights, const i32* expert, i64 rows, i64 experts,
               i64 active, bool normalized) {
  for_rows(rows, experts * active, [&](i64 n) {
    const T *zn = z + n * experts, *w = weights + n * active, *dw = dweights + n * active;
    const i32* chosen = expert + n * active;
    T* dzn = dz + n * experts;
    const T t = lane_sum<T>(active, [&](i64 j) { return w[j] * dw[j]; });
    const T sum = denominator(zn, chosen, experts, active, normalized), top = zn[chosen[0]];
    accumulate(dzn, acc, 0, experts, [&](i64 e) { return normalized ? T(0) : T(0) - exp_(zn[e] - top) / sum * t; });
    for (i64 j = 0; j < active; ++j) dzn[chosen[j]] += w[j] * (normalized ? dw[j] - t : dw[j]);
  });
}

// y[row of c] = x[c / k]
template <class T>
void dispatch(T* y, const T* x, const i32* order, i64 rows, i64 active, i64 cols) {
  const Order o(order, rows * active);
  for_rows(rows * active, cols, [&](i64 row) { std::copy_n(x + o.choice[row] / active * cols, cols, y + row * cols); });
}

// dx[n] = sum_j dy[row of (n,j)]
template <class T>
void dispatch_bwd(T* dx, Acc acc, const T* dy, const i32* order, i64 rows, i64 active, i64 cols) {
  const Order o(order, rows * active);
  for_rows(rows, cols * active, [&](i64 n) {
    for (i64 j = 0; j < active; ++j) {
      const T* from = dy + o.row[n * active + j] * cols;
      accumulate(dx + n * cols, j == 0 ? acc : Acc::add, 0, cols, [&](i64 i) { return from[i]; });
    }
  });
}

// y[n] = sum_j weights[n,j] x[row of (n,j)]
template <class T>
void combine(T* y, const T* x, const T* weights, const i32* order, i64 rows, i64 active, i64 cols) {
  const Order o(order, rows * active);
  for_rows(rows, cols * active, [&](i64 n) {
    for (i64 j = 0; j < active; ++j) {
      const T* from = x + o.row[n * active + j] * cols;
      const T w = weights[n * active + j];
      accumulate(y + n * cols, j == 0 ? Acc::set : Acc::add, 0, cols, [&](i64 i) { return w * from[i]; });
    }
  });
}

// dx[row of c] = weights[c] dy[c / k],   dweights[c] = dy[c / k] . x[row of c]
template <class T>
void combine_bwd(T* dx, T* dweights, Acc acc_x, Acc acc_weights, const T* dy, const T* x, const T* weights, const i32* order,
                 i64 rows, i64 active, i64 cols) {
  const Order o(order, rows * active);
  for_rows(rows * active, cols, [&](i64 c) {
    const T* dyn = dy + c / active * cols;
    const i64 row = o.row[c] * cols;
    accumulate(dx == nullptr ? nullptr : dx + row, acc_x, 0, cols, [&](i64 i) { return weights[c] * dyn[i]; });
    accumulate(dweights, acc_weights, c, c + 1,
               [&](i64) { return lane_sum<T>(cols, [&](i64 i) { return dyn[i] * x[row + i]; }); });
  });
}

}  // namespace signround::SIGNROUND_ISA

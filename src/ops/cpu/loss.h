// Squared error, for tuning a block; next-token cross-entropy, for perplexity and for tuning the last one.
#pragma once
#include <type_traits>

#include "ops/cpu/loop.h"
#include "ops/cpu/math.h"

namespace signround::SIGNROUND_ISA {

// Sums that decide something are double; the tests' Dual stays what it is.
template <class T>
using Wide = std::conditional_t<std::is_floating_point_v<T>, double, T>;

// Returns mean((y - target)^2) over the tokens that count.   dy = 2 (y - target), 0 where a token does not count: with skip_last
// the last of each `tokens` rows. dy may be y.
template <class T>
T mse(T* dy, const T* y, const TargetRows<T>& target, i64 rows, i64 cols, i64 tokens, bool skip_last) {
  constexpr i64 kParts = 256;
  const i64 part = (rows + kParts - 1) / kParts;
  Wide<T> sums[kParts] = {};
  parallel_ranges(rows, part, [&](i64 first, i64 last) {
    Wide<T> sum = 0;
    for (i64 row = first; row < last; ++row) {
      T* d = dy + row * cols;
      const T *a = y + row * cols, *b = target[row];
      if (skip_last && row % tokens == tokens - 1) {
        for (i64 i = 0; i < cols; ++i) d[i] = T(0);
        continue;
      }
      sum += static_cast<Wide<T>>(lane_sum<T>(cols, [&](i64 i) { return (a[i] - b[i]) * (a[i] - b[i]); }));
      for (i64 i = 0; i < cols; ++i) d[i] = T(2) * (a[i] - b[i]);
    }
    sums[first / part] = sum;
  });
  Wide<T> sum = 0;
  for (const Wide<T>& s : sums) sum += s;
  const i64 counted = skip_last ? rows - rows / tokens : rows;
  return counted > 0 ? static_cast<T>(sum / Wide<T>(static_cast<double>(counted * cols))) : T(0);
}

// log(sum(exp(x))), and its largest term apart, so that nothing overflows.
template <class T>
inline T log_sum_exp(const T* x, i64 n) {
  using std::log;
  const T top = lane_max(n, x[0], [&](i64 i) { return x[i]; });
  return top + log(lane_sum<T>(n, [&](i64 i) { return exp_(x[i] - top); }));
}

inline void check_targets(const i32* target, i64 rows, i64 vocabulary) {
  for (i64 n = 0; n < rows; ++n)
    check(target[n] < vocabulary, ErrorKind::bad_input, "token id ", target[n], " at position ", n, " is outside the ",
          vocabulary, " logits");
}

// nll[n] = logsumexp(logits[n]) - logits[n, target[n]];  0 where target < 0
template <class T>
void cross_entropy(T* nll, const T* logits, const i32* target, i64 rows, i64 vocabulary) {
  check_targets(target, rows, vocabulary);
  for_rows(rows, vocabulary, [&](i64 n) {
    const T* x = logits + n * vocabulary;
    nll[n] = target[n] < 0 ? T(0) : log_sum_exp(x, vocabulary) - x[target[n]];
  });
}

// dlogits = softmax(logits) - onehot(target).   dlogits may be logits.
template <class T>
void cross_entropy_bwd(T* dlogits, const T* logits, const i32* target, i64 rows, i64 vocabulary) {
  check_targets(target, rows, vocabulary);
  for_rows(rows, vocabulary, [&](i64 n) {
    T* d = dlogits + n * vocabulary;
    const T* x = logits + n * vocabulary;
    if (target[n] < 0) {
      for (i64 i = 0; i < vocabulary; ++i) d[i] = T(0);
      return;
    }
    const T lse = log_sum_exp(x, vocabulary);
    for (i64 i = 0; i < vocabulary; ++i) d[i] = exp_(x[i] - lse);
    d[target[n]] -= T(1);
  });
}

}  // namespace signround::SIGNROUND_ISA

// Attention in tiles that stay in the caches, after FlashAttention (Dao 2022, 2023): no T x T matrix is ever held.
//   s = scale * q k^T  (softcapped, masked),   p = exp(s - lse),   lse = log sum exp s,   o = p v
//   delta = rowsum(do o o),   dp = do v^T,   ds = p o (dp - delta) (o 1 - (s / cap)^2 if capped)
//   dq = scale * ds k,   dk = scale * ds^T q,   dv = p^T do
//
// A tile of scores is written by the micro-kernel as rows of W columns, which is just how it reads the right factor of a product. So
// the forward computes s^T [keys, W queries], ready for o^T = v^T p^T, with the softmax running down the columns, a query to a vector
// lane; the backward computes s [queries, W keys], ready for dv^T = do^T p and dk^T = q^T ds, and only ds is packed again, for dq.
// Tiles that the mask empties are not computed.
#pragma once
#include "ops/cpu/lanes.h"
#include "ops/cpu/math.h"
#include "ops/cpu/matmul.h"

namespace signround::SIGNROUND_ISA {

// Key j is visible to query i iff low(i) <= j < high(i); both grow with i.
struct Visibility {
  i64 tokens, window;
  bool causal;
  explicit Visibility(const AttentionShape& s) : tokens(s.tokens), window(s.window), causal(s.causal) {}
  i64 low(i64 i) const { return window > 0 ? larger(0, i - window + 1) : 0; }
  i64 high(i64 i) const { return causal ? smaller(i + 1, tokens) : tokens; }
  // Every key in [j, j + nj) is visible to every query in [i, i + ni).
  bool all(i64 i, i64 ni, i64 j, i64 nj) const { return low(i + ni - 1) <= j && j + nj <= high(i); }
};

// Hands out aligned pieces of one block of memory; with no block it only adds up what is needed.
struct Carver {
  char* base;
  i64 used = 0;
  template <class T>
  T* take(i64 n) {
    T* p = reinterpret_cast<T*>(base + used);
    used += divide_up(n * static_cast<i64>(sizeof(T)), 64) * 64;
    return p;
  }
};

// The final score, and the factor that the softcap puts into its derivative.
template <bool capped, class T>
[[gnu::always_inline]] inline T score(T s, T scale, T cap) {
  if constexpr (capped) return cap * tanh_(s * scale / cap);
  else return s * scale;
}

// to[i][j] (=|+=) from[j][i] * factor[i], i < rows (of to), j < cols, from in rows of `width`.
template <class A, class T>
void write_transposed(T* to, i64 stride, Acc acc, const T* from, i64 width, i64 rows, i64 cols, const T* factor) {
  constexpr int L = A::lanes;
  for (i64 j = 0; j < cols; j += L)
    for (i64 i = 0; i < rows; i += L) {
      const i64 nj = smaller(L, cols - j), ni = smaller(L, rows - i);
      typename A::Words v[L];
      for (int x = 0; x < L; ++x) v[x] = x < nj ? A::load(from + (j + x) * width + i) : A::none();
      A::transpose(v);
      for (int y = 0; y < L; ++y) {
        if (y >= ni) continue;
        T* out = to + (i + y) * stride + j;
        const typename A::Words f = A::broadcast(factor + i + y);
        if (nj == L) {
          A::write(out, A::multiply_add(v[y], f, acc == Acc::set ? A::zero() : A::read(out)));
        } else {
          T some[L];
          A::write(some, A::multiply_add(v[y], f, A::zero()));
          for (int x = 0; x < nj; ++x) out[x] = acc == Acc::set ? some[x] : out[x] + some[x];
        }
      }
    }
}

// One step of the softmax over a tile s^T [keys][W] -> p^T: the running maximum m and sum l of W queries take the tile in, and what
// was summed before has to be multiplied by `old`.
template <bool capped, class A, class T>
void softmax_tile(T* s, i64 keys, i64 first_key, i64 first_query, const Visibility& visible, T scale, T cap, T* m, T* l, T* old) {
  constexpr int W = A::right;
  const T never = T(-HUGE_VALF);
  T top[W];
  for (int i = 0; i < W; ++i) top[i] = m[i];
  if (visible.all(first_query, W, first_key, keys)) {
    for (i64 j = 0; j < keys; ++j)
      for (int i = 0; i < W; ++i) {
        const T x = score<capped>(s[j * W + i], scale, cap);
        s[j * W + i] = x;
        top[i] = top[i] < x ? x : top[i];
      }
  } else {
    for (i64 j = 0; j < keys; ++j) {
      // The queries that see this key are lanes from .. to - 1.
      const i64 key = first_key + j;
      const int from = visible.causal ? static_cast<int>(larger(0, smaller(W, key - first_query))) : 0;
      const int to = visible.window > 0 ? static_cast<int>(larger(0, smaller(W, key + visible.window - first_query))) : W;
      for (int i = 0; i < W; ++i) {
        const T x = i >= from && i < to ? score<capped>(s[j * W + i], scale, cap) : never;
        s[j * W + i] = x;
        top[i] = top[i] < x ? x : top[i];
      }
    }
  }
  T sum[W];
  for (int i = 0; i < W; ++i) {
    old[i] = m[i] == never ? T(0) : exp_(m[i] - top[i]);
    m[i] = top[i];
    top[i] = top[i] == never ? T(0) : top[i];
    sum[i] = l[i] * old[i];
  }
  for (i64 j = 0; j < keys; ++j)
    for (int i = 0; i < W; ++i) {
      const T p = exp_(s[j * W + i] - top[i]);
      s[j * W + i] = p;
      sum[i] += p;
    }
  for (int i = 0; i < W; ++i) l[i] = sum[i];
}

// o [B*T, H*d] and lse [B*T, H] from q [B*T, H*d], k and v [B*T, K*d].
template <class T>
void attention(T* o, T* lse, const T* q, const T* k, const T* v, const AttentionShape& shape) {
  using A = Arithmetic<T, Precision::f32>;
  constexpr i64 W = A::right, kQueries = 128 / W * W, kKeys = 7 * A::rows;
  const i64 tokens = shape.tokens, d = shape.head_dim, ldq = shape.heads * d, ldk = shape.kv_heads * d;
  const i64 group = shape.heads / shape.kv_heads, blocks = divide_up(tokens, kQueries);
  const Visibility visible(shape);
  const T scale(shape.scale), cap(shape.softcap);

  // A task: a block of queries of all heads that share a KV head; the last blocks, which see most keys, come first.
  parallel_for(blocks * shape.batch * shape.kv_heads, [&](i64 task) {
    const i64 q0 = (blocks - 1 - task / (shape.batch * shape.kv_heads)) * kQueries, queries = smaller(kQueries, tokens - q0);
    const i64 pair = task % (shape.batch * shape.kv_heads), row0 = pair / shape.kv_heads * tokens, kv = pair % shape.kv_heads;
    const i64 panels = divide_up(queries, W), states = group * panels;  // a state: W queries of one head
    T *qs = nullptr, *os = nullptr, *ms = nullptr, *ls = nullptr, *kp = nullptr, *vp = nullptr, *s = nullptr;
    const auto carve = [&](void* base) {
      Carver c{static_cast<char*>(base)};
      qs = c.take<T>(states * d * W), os = c.take<T>(states * d * W), ms = c.take<T>(states * W), ls = c.take<T>(states * W);
      kp = c.take<T>(left_words<A>(kKeys, d)), vp = c.take<T>(left_words<A>(d, kKeys)), s = c.take<T>(kKeys * W);
      return c.used;
    };
    carve(scratch(Scratch::attention, carve(nullptr)));

    for (i64 state = 0; state < states; ++state) {
      const i64 i = q0 + state % panels * W, head = kv * group + state / panels;
      pack_panel<A, W>(qs + state * d * W, row_major(q + (row0 + i) * ldq + head * d, ldq), smaller(W, tokens - i), d);
    }
    for (i64 i = 0; i < states * d * W; ++i) os[i] = T(0);
    for (i64 i = 0; i < states * W; ++i) ms[i] = T(-HUGE_VALF), ls[i] = T(0);

    const i64 begin = visible.low(q0), end = visible.high(q0 + queries - 1);
    for (i64 k0 = begin; k0 < end; k0 += kKeys) {
      const i64 keys = smaller(kKeys, end - k0), at = (row0 + k0) * ldk + kv * d;
      const Panels<A> kt = pack_left<A>(kp, row_major(k + at, ldk), keys, d);
      const Panels<A> vt = pack_left<A>(vp, transposed(row_major(v + at, ldk)), d, keys);
      for (i64 state = 0; state < states; ++state) {
        const i64 i = q0 + state % panels * W, seen = smaller(keys, visible.high(i + W - 1) - k0);
        if (seen <= 0 || k0 + keys <= visible.low(i)) continue;
        T* ot = os + state * d * W;
        T old[W];
        multiply_panels<A>(s, W, kt, {qs + state * d * W, W, 0}, seen, W, d, static_cast<const T*>(nullptr), 0);
        if (shape.softcap > 0) softmax_tile<true, A>(s, seen, k0, i, visible, scale, cap, ms + state * W, ls + state * W, old);
        else softmax_tile<false, A>(s, seen, k0, i, visible, scale, cap, ms + state * W, ls + state * W, old);
        for (i64 x = 0; x < d; ++x)
          for (i64 y = 0; y < W; ++y) ot[x * W + y] *= old[y];
        multiply_panels<A>(ot, W, vt, {s, W, 0}, d, W, seen, static_cast<const T*>(ot), W);
      }
    }
    for (i64 state = 0; state < states; ++state) {
      const i64 i = q0 + state % panels * W, head = kv * group + state / panels, n = smaller(W, tokens - i);
      T inverse[W];
      for (i64 y = 0; y < n; ++y) {
        inverse[y] = T(1) / ls[state * W + y];
        lse[(row0 + i + y) * shape.heads + head] = ms[state * W + y] + log_(ls[state * W + y]);
      }
      write_transposed<A>(o + (row0 + i) * ldq + head * d, ldq, Acc::set, os + state * d * W, W, n, d, inverse);
    }
  });
}

// Scores s and products dp = do v^T of one query with W keys, of which those from .. to - 1 are visible -> p and scale * ds.
template <bool capped, int W, class T>
[[gnu::always_inline]] inline void gradient_row(T* s, T* dp, int from, int to, T scale, T cap, T lse, T delta) {
  for (int j = 0; j < W; ++j) {
    const bool sees = j >= from && j < to;
    const T x = score<capped>(s[j], scale, cap), p = sees ? exp_(x - lse) : T(0);
    T ds = p * (dp[j] - delta) * scale;
    if constexpr (capped) ds *= T(1) - x / cap * (x / cap);
    s[j] = p;
    dp[j] = ds;
  }
}

// Gradients dq [B*T, H*d], dk and dv [B*T, K*d], each set or added to, none for null; delta [B*T, H] is written on the way.
template <class T>
void attention_bwd(T* dq, T* dk, T* dv, Acc acc_q, Acc acc_k, Acc acc_v, T* delta, const T* dout, const T* q, const T* k, const T* v,
                   const T* o, const T* lse, const AttentionShape& shape) {
  using A = Arithmetic<T, Precision::f32>;
  constexpr i64 W = A::right, kQueries = 8 * A::rows, kPanels = 4, kKeys = kPanels * W;
  const i64 tokens = shape.tokens, d = shape.head_dim, ldq = shape.heads * d, ldk = shape.kv_heads * d;
  const i64 group = shape.heads / shape.kv_heads, panels = divide_up(tokens, W), blocks = divide_up(panels, kPanels);
  const i64 q_block = divide_up(divide_up(tokens, divide_up(tokens, kQueries)), A::rows) * A::rows;
  const Visibility visible(shape);
  const T scale(shape.scale), cap(shape.softcap);
  const T* none = nullptr;

  // A task: a KV head of a sequence with all its query heads, one after the other, so that sums over queries have one order.
  parallel_for(shape.batch * shape.kv_heads, [&](i64 task) {
    const i64 row0 = task / shape.kv_heads * tokens, kv = task % shape.kv_heads;
    T *kt = nullptr, *vt = nullptr, *kr = nullptr, *dkt = nullptr, *dvt = nullptr, *s = nullptr, *ds = nullptr, *packed = nullptr;
    T *qp = nullptr, *op = nullptr, *qtp = nullptr, *otp = nullptr;
    const i64 kr_words = right_words<A>(d, kKeys);
    const auto carve = [&](void* base) {
      Carver c{static_cast<char*>(base)};
      kt = c.take<T>(panels * d * W), vt = c.take<T>(panels * d * W), kr = c.take<T>(blocks * kr_words);
      dkt = c.take<T>(panels * d * W), dvt = c.take<T>(panels * d * W);
      s = c.take<T>(kPanels * q_block * W), ds = c.take<T>(kPanels * q_block * W), packed = c.take<T>(kKeys * A::left);
      qp = c.take<T>(left_words<A>(q_block, d)), op = c.take<T>(left_words<A>(q_block, d));
      qtp = c.take<T>(left_words<A>(d, q_block)), otp = c.take<T>(left_words<A>(d, q_block));
      return c.used;
    };
    carve(scratch(Scratch::attention, carve(nullptr)));

    const Factor<T> keys = row_major(k + row0 * ldk + kv * d, ldk), values = row_major(v + row0 * ldk + kv * d, ldk);
    pack_right<A>(kt, transposed(keys), tokens, d);
    pack_right<A>(vt, transposed(values), tokens, d);
    for (i64 b = 0; b < blocks; ++b) pack_right<A>(kr + b * kr_words, keys.at(b * kKeys, 0), d, smaller(kKeys, tokens - b * kKeys));
    for (i64 i = 0; i < panels * d * W; ++i) dkt[i] = dvt[i] = T(0);

    for (i64 head = kv * group; head < (kv + 1) * group; ++head)
      for (i64 q0 = 0; q0 < tokens; q0 += q_block) {
        const i64 n = smaller(q_block, tokens - q0), at = (row0 + q0) * ldq + head * d;
        T* row_delta = delta + (row0 + q0) * shape.heads + head;
        const T* row_lse = lse + (row0 + q0) * shape.heads + head;
        for (i64 i = 0; i < n; ++i)
          row_delta[i * shape.heads] = lane_sum<T>(d, [&](i64 x) { return dout[at + i * ldq + x] * o[at + i * ldq + x]; });
        const Panels<A> ql = pack_left<A>(qp, row_major(q + at, ldq), n, d), ol = pack_left<A>(op, row_major(dout + at, ldq), n, d);
        const Panels<A> qt = pack_left<A>(qtp, transposed(row_major(q + at, ldq)), d, n);
        const Panels<A> ot = pack_left<A>(otp, transposed(row_major(dout + at, ldq)), d, n);
        const i64 rows = ql.lanes;
        bool begun[kQueries] = {};  // whether dq of a panel of rows has been set

        for (i64 b = visible.low(q0) / kKeys; b * kKeys < visible.high(q0 + n - 1); ++b) {
          i64 from[kPanels], to[kPanels];  // the queries, in whole panels of rows, that see something of a panel of keys
          for (i64 p = 0; p < kPanels; ++p) {
            const i64 k0 = b * kKeys + p * W, tile = p * q_block * W, panel = b * kPanels + p;
            from[p] = visible.causal ? larger(0, k0 - q0) / rows * rows : 0;
            to[p] = visible.window > 0 ? smaller(n, divide_up(larger(0, k0 + W - 1 + visible.window - q0), rows) * rows) : n;
            if (k0 >= tokens) to[p] = 0;
            const i64 r = from[p], m = to[p] - r;
            if (m <= 0) continue;
            multiply_panels<A>(s + tile + r * W, W, {ql.data + r / rows * ql.words, rows, ql.words}, {kt + panel * d * W, W, 0}, m, W,
                               d, none, 0);
            multiply_panels<A>(ds + tile + r * W, W, {ol.data + r / rows * ol.words, rows, ol.words}, {vt + panel * d * W, W, 0}, m,
                               W, d, none, 0);
            for (i64 i = r; i < to[p]; ++i) {
              const int first = static_cast<int>(smaller(W, larger(0, visible.low(q0 + i) - k0)));
              const int last = static_cast<int>(larger(0, smaller(W, visible.high(q0 + i) - k0)));
              T *x = s + tile + i * W, *y = ds + tile + i * W;
              const T l = row_lse[i * shape.heads], dl = row_delta[i * shape.heads];
              if (shape.softcap > 0) gradient_row<true, W>(x, y, first, last, scale, cap, l, dl);
              else gradient_row<false, W>(x, y, first, last, scale, cap, l, dl);
            }
            T *dvp = dvt + panel * d * W, *dkp = dkt + panel * d * W;
            if (dv != nullptr)
              multiply_panels<A>(dvp, W, {ot.data + r * A::left, ot.lanes, ot.words}, {s + tile + r * W, W, 0}, d, W, m,
                                 static_cast<const T*>(dvp), W);
            if (dk != nullptr)
              multiply_panels<A>(dkp, W, {qt.data + r * A::left, qt.lanes, qt.words}, {ds + tile + r * W, W, 0}, d, W, m,
                                 static_cast<const T*>(dkp), W);
          }
          if (dq == nullptr) continue;
          const i64 key_words = panel_words<A>(smaller(kKeys, tokens - b * kKeys), A::right);
          for (i64 r = 0; r < n; r += rows) {
            i64 first = 0, last = kPanels;
            while (first < kPanels && !(from[first] <= r && r < to[first])) ++first;
            while (last > first && !(from[last - 1] <= r && r < to[last - 1])) --last;
            if (first == last) continue;
            const i64 m = smaller(rows, n - r), used = smaller(last * W, tokens - b * kKeys) - first * W;
            for (i64 p = first; p < last; ++p)
              pack_panel<A, A::left>(packed + (p - first) * W * A::left, row_major<T>(ds + (p * q_block + r) * W, W), m, W);
            T* out = dq + at + r * ldq;
            const bool add = acc_q == Acc::add || begun[r / rows];
            multiply_panels<A>(out, ldq, {packed, rows, 0}, {kr + b * kr_words + first * W * A::right, W, key_words}, m, d, used,
                               add ? static_cast<const T*>(out) : none, ldq);
            begun[r / rows] = true;
          }
        }
      }
    T one[W];
    for (i64 i = 0; i < W; ++i) one[i] = T(1);
    for (i64 p = 0; p < panels; ++p) {
      const i64 at = (row0 + p * W) * ldk + kv * d, n = smaller(W, tokens - p * W);
      if (dk != nullptr) write_transposed<A>(dk + at, ldk, acc_k, dkt + p * d * W, W, n, d, one);
      if (dv != nullptr) write_transposed<A>(dv + at, ldk, acc_v, dvt + p * d * W, W, n, d, one);
    }
  });
}

}  // namespace signround::SIGNROUND_ISA

// Attention in tiles that stay in the caches, after FlashAttention (Dao 2022, 2023): no T x T matrix is ever held.
//   s = scale * q k^T  (softcapped, or with ALiBi: ops/types.h; masked),   p = exp(s - lse),   lse = log sum exp s,   o = p v
//   delta = rowsum(do o o),   dp = do v^T,   ds = p o (dp - delta) (o 1 - (s / cap)^2 if capped)
//   dq = scale * ds k,   dk = scale * ds^T q,   dv = p^T do
//
// A tile of scores is written by the micro-kernel as rows of W columns, which is just how it reads the right factor of a
// product. So the forward computes s^T [keys, W queries], ready for o^T = v^T p^T, with the softmax running down the columns, a
// query to a vector lane; the backward computes s [queries, W keys], ready for dv^T = do^T p and dk^T = q^T ds, and only ds is
// packed again, for dq. Tiles that the mask empties are not computed.
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

// What becomes of a score, with one number of the head: it is scaled; the softcap's limit; ALiBi's slope.
enum class Bend { none, softcap, alibi, falcon_alibi };

// The final score of a query for a key, both by their positions.
template <Bend bend, class T>
[[gnu::always_inline]] inline T score(T s, T scale, T number, i64 query, i64 key) {
  if constexpr (bend == Bend::softcap) return number * tanh_(s * scale / number);
  else if constexpr (bend == Bend::alibi) return s * scale - number * cast<T>(static_cast<int>(query - key));
  else if constexpr (bend == Bend::falcon_alibi) return (s + T(falcon_bias(static_cast<float>(number), key))) * scale;
  else return s * scale;
}

// f(constant, number) for the bend of a head.
template <class T, class F>
[[gnu::always_inline]] inline void with_bend(const AttentionShape& shape, i64 head, F f) {
  if (shape.softcap > 0) f(std::integral_constant<Bend, Bend::softcap>{}, T(shape.softcap));
  else if (shape.falcon_alibi) f(std::integral_constant<Bend, Bend::falcon_alibi>{}, T(alibi_slope(head, shape.heads)));
  else if (shape.alibi) f(std::integral_constant<Bend, Bend::alibi>{}, T(alibi_slope(head, shape.heads)));
  else f(std::integral_constant<Bend, Bend::none>{}, T(0));
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

// One step of the softmax over a tile s^T [keys][W] -> p^T: the running maximum m and sum l of W queries take the tile in, and
// what was summed before has to be multiplied by `old`.
template <Bend bend, class A, class T>
void softmax_tile(T* s, i64 keys, i64 first_key, i64 first_query, const Visibility& visible, T scale, T number, T* m, T* l,
                  T* old) {
  constexpr int W = A::right;
  const T never = T(-HUGE_VALF);
  T top[W];
  for (int i = 0; i < W; ++i) top[i] = m[i];
  if (visible.all(first_query, W, first_key, keys)) {
    for (i64 j = 0; j < keys; ++j)
      for (int i = 0; i < W; ++i) {
        const T x = score<bend>(s[j * W + i], scale, number, first_query + i, first_key + j);
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
        const T x = i >= from && i < to ? score<bend>(s[j * W + i], scale, number, first_query + i, key) : never;
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
  const T scale(shape.scale);

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
        multiply_panels<A>(s, W, kt, {qs + state * d * W, W}, seen, W, d);
        with_bend<T>(shape, kv * group + state / panels, [&](auto bend, T number) {
          softmax_tile<bend(), A>(s, seen, k0, i, visible, scale, number, ms + state * W, ls + state * W, old);
        });
        for (i64 x = 0; x < d; ++x)
          for (i64 y = 0; y < W; ++y) ot[x * W + y] *= old[y];
        multiply_panels<A>(ot, W, vt, {s, W}, d, W, seen, ot, W);
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

// Scores s and products dp = do v^T of one query with the W keys from `key` on, of which from .. to - 1 are visible -> p and
// scale * ds.
template <Bend bend, int W, class T>
[[gnu::always_inline]] inline void gradient_row(T* s, T* dp, int from, int to, T scale, T number, i64 query, i64 key, T lse,
                                                T delta) {
  for (int j = 0; j < W; ++j) {
    const bool sees = j >= from && j < to;
    const T x = score<bend>(s[j], scale, number, query, key + j), p = sees ? exp_(x - lse) : T(0);
    T ds = p * (dp[j] - delta) * scale;
    if constexpr (bend == Bend::softcap) ds *= T(1) - x / number * (x / number);
    s[j] = p;
    dp[j] = ds;
  }
}

// The working memory of the backward of one KV head. Keys come in panels of W, kPanels of them in a block; queries in blocks of
// q_block. Tiles of scores are [kPanels][q_block][W].
template <class A, class T>
struct BackwardMemory {
  static constexpr i64 W = A::right, kQueries = 8 * A::rows, kPanels = 4, kKeys = kPanels * W;
  T *kt, *vt, *k;                    // right factors: k^T and v^T [d, T], k [kKeys, d] for each block
  T *dkt, *dvt;                      // dk^T and dv^T, [d][W] for each panel
  T *q, *dout, *qt, *doutt;          // left factors: q and do [q_block, d] and transposed
  T *p, *ds, *ds_rows;               // tiles; ds as a left factor: one panel of rows, kKeys columns
  i64 panels, blocks, k_words, bytes;

  BackwardMemory(void* base, i64 tokens, i64 d, i64 q_block)
      : panels(divide_up(tokens, W)), blocks(divide_up(tokens, kKeys)), k_words(right_words<A>(d, kKeys)) {
    Carver c{static_cast<char*>(base)};
    for (T** t : {&kt, &vt, &dkt, &dvt}) *t = c.take<T>(panels * d * W);
    for (T** t : {&q, &dout}) *t = c.take<T>(left_words<A>(q_block, d));
    for (T** t : {&qt, &doutt}) *t = c.take<T>(left_words<A>(d, q_block));
    for (T** t : {&p, &ds}) *t = c.take<T>(kPanels * q_block * W);
    k = c.take<T>(blocks * k_words), ds_rows = c.take<T>(kKeys * A::left);
    bytes = c.used;
  }
};

// Gradients dq [B*T, H*d], dk and dv [B*T, K*d], each set or added to, none for null; delta [B*T, H] is written on the way.
template <class T>
void attention_bwd(T* dq, T* dk, T* dv, Acc acc_q, Acc acc_k, Acc acc_v, T* delta, const T* dout, const T* q, const T* k,
                   const T* v, const T* o, const T* lse, const AttentionShape& shape) {
  using A = Arithmetic<T, Precision::f32>;
  using Memory = BackwardMemory<A, T>;
  constexpr i64 W = A::right, kPanels = Memory::kPanels, kKeys = Memory::kKeys;
  const i64 tokens = shape.tokens, d = shape.head_dim, heads = shape.heads, ldq = heads * d, ldk = shape.kv_heads * d;
  const i64 group = heads / shape.kv_heads;
  const i64 q_block = divide_up(divide_up(tokens, divide_up(tokens, Memory::kQueries)), A::rows) * A::rows;
  const Visibility visible(shape);
  const T scale(shape.scale);

  // A task: a KV head of a sequence with all its query heads, one after the other, so that sums over queries have one order.
  parallel_for(shape.batch * shape.kv_heads, [&](i64 task) {
    const i64 row0 = task / shape.kv_heads * tokens, kv = task % shape.kv_heads;
    const Memory at(scratch(Scratch::attention, Memory(nullptr, tokens, d, q_block).bytes), tokens, d, q_block);
    const Factor<T> keys = row_major(k + row0 * ldk + kv * d, ldk), values = row_major(v + row0 * ldk + kv * d, ldk);
    pack_right<A>(at.kt, transposed(keys), tokens, d);
    pack_right<A>(at.vt, transposed(values), tokens, d);
    for (i64 b = 0, j = 0; b < at.blocks; ++b, j += kKeys)
      pack_right<A>(at.k + b * at.k_words, keys.at(j, 0), d, smaller(kKeys, tokens - j));
    for (i64 i = 0; i < at.panels * d * W; ++i) at.dkt[i] = at.dvt[i] = T(0);

    for (i64 head = kv * group; head < (kv + 1) * group; ++head)
      for (i64 q0 = 0; q0 < tokens; q0 += q_block) {
        const i64 n = smaller(q_block, tokens - q0), first = (row0 + q0) * ldq + head * d;
        const Factor<T> queries = row_major(q + first, ldq), douts = row_major(dout + first, ldq);
        const Panels<A> ql = pack_left<A>(at.q, queries, n, d), qt = pack_left<A>(at.qt, transposed(queries), d, n);
        const Panels<A> ol = pack_left<A>(at.dout, douts, n, d), ot = pack_left<A>(at.doutt, transposed(douts), d, n);
        const T* row_lse = lse + (row0 + q0) * heads + head;
        T* row_delta = delta + (row0 + q0) * heads + head;
        for (i64 i = 0; i < n; ++i)
          row_delta[i * heads] = lane_sum<T>(d, [&](i64 x) { return dout[first + i * ldq + x] * o[first + i * ldq + x]; });

        // Queries are taken in whole panels of `rows`. Those that see something of a panel of keys are from .. to - 1.
        const i64 rows = ql.lanes;
        bool begun[Memory::kQueries] = {};  // whether dq of a panel of rows has been set
        for (i64 b = visible.low(q0) / kKeys; b * kKeys < visible.high(q0 + n - 1); ++b) {
          i64 from[kPanels], to[kPanels];
          for (i64 x = 0; x < kPanels; ++x) {
            const i64 panel = b * kPanels + x, k0 = panel * W;
            from[x] = visible.causal ? larger(0, k0 - q0) / rows * rows : 0;
            to[x] = visible.window > 0 ? smaller(n, divide_up(larger(0, k0 + W - 1 + visible.window - q0), rows) * rows) : n;
            if (k0 >= tokens) to[x] = 0;
            const i64 m = to[x] - from[x];
            if (m <= 0) continue;
            T *p = at.p + (x * q_block + from[x]) * W, *ds = at.ds + (x * q_block + from[x]) * W;
            multiply_panels<A>(p, W, ql.from(from[x]), {at.kt + panel * d * W, W}, m, W, d);
            multiply_panels<A>(ds, W, ol.from(from[x]), {at.vt + panel * d * W, W}, m, W, d);
            for (i64 i = 0; i < m; ++i) {
              const i64 row = from[x] + i;
              const int low = static_cast<int>(smaller(W, larger(0, visible.low(q0 + row) - k0)));
              const int high = static_cast<int>(larger(0, smaller(W, visible.high(q0 + row) - k0)));
              const T l = row_lse[row * heads], dl = row_delta[row * heads];
              with_bend<T>(shape, head, [&](auto bend, T number) {
                gradient_row<bend(), W>(p + i * W, ds + i * W, low, high, scale, number, q0 + row, k0, l, dl);
              });
            }
            T *dvt = at.dvt + panel * d * W, *dkt = at.dkt + panel * d * W;
            const i64 skip = from[x] * A::left;  // steps of the left factors, which run over queries
            if (dv != nullptr) multiply_panels<A>(dvt, W, {ot.data + skip, ot.lanes, ot.words}, {p, W}, d, W, m, dvt, W);
            if (dk != nullptr) multiply_panels<A>(dkt, W, {qt.data + skip, qt.lanes, qt.words}, {ds, W}, d, W, m, dkt, W);
          }
          for (i64 r = 0; r < n && dq != nullptr; r += rows) {
            const auto sees = [&](i64 x) { return from[x] <= r && r < to[x]; };
            i64 low = 0, high = kPanels;
            while (low < high && !sees(low)) ++low;
            while (low < high && !sees(high - 1)) --high;
            if (low == high) continue;
            const i64 m = smaller(rows, n - r), block_keys = smaller(kKeys, tokens - b * kKeys);
            for (i64 x = low; x < high; ++x)
              pack_panel<A, A::left>(at.ds_rows + (x - low) * W * A::left, row_major<T>(at.ds + (x * q_block + r) * W, W), m, W);
            T* out = dq + first + r * ldq;
            const bool add = acc_q == Acc::add || begun[r / rows];
            multiply_panels<A>(out, ldq, {at.ds_rows, rows}, {at.k + b * at.k_words + low * W * W, W, block_keys * W}, m, d,
                               smaller(high * W, block_keys) - low * W, add ? out : nullptr, ldq);
            begun[r / rows] = true;
          }
        }
      }
    T one[W];
    for (i64 i = 0; i < W; ++i) one[i] = T(1);
    for (i64 p = 0; p < at.panels; ++p) {
      const i64 first = (row0 + p * W) * ldk + kv * d, n = smaller(W, tokens - p * W);
      if (dk != nullptr) write_transposed<A>(dk + first, ldk, acc_k, at.dkt + p * d * W, W, n, d, one);
      if (dv != nullptr) write_transposed<A>(dv + first, ldk, acc_v, at.dvt + p * d * W, W, n, d, one);
    }
  });
}

}  // namespace signround::SIGNROUND_ISA

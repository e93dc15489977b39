// The ladder of attention, causal, 8 x 32 heads x 2048 x 128: scores through memory, tiles in float, tiles on tensor cores, and
// what the backend takes on this card. Operations are counted for the visible half only: 4 d for a pair of query and key forward,
// 10 d backward.
#include "ladder.cuh"

using namespace signround;
using namespace signround::cuda;

namespace {

constexpr int kHead = 128, kHeads = 32, kTokens = 2048, kBatch = 8;
constexpr i64 kRow = i64{kHeads} * kHead;  // elements between two tokens

struct Tensors {
  const bfloat *q, *k, *v, *dout;
  bfloat *o, *dq, *dk, *dv;
  float *lse, *delta, *s, *ds;  // [N,H], [N,H]; of the naive version, one sequence: [H,T,T] scores, then p; ds
  float scale;
};

// ---- 0: a thread a score, a row, an element. One sequence.

__device__ float naive_product(const bfloat* a, const bfloat* b) {
  float sum = 0;
  for (int c = 0; c < kHead; ++c) sum += widened(a[c]) * widened(b[c]);
  return sum;
}
__device__ const bfloat* at(const bfloat* x, i64 token, i64 head) { return x + token * kRow + head * kHead; }

__global__ void naive_scores(Tensors t) {
  const i64 j = global_thread() % kTokens, i = global_thread() / kTokens % kTokens, h = global_thread() / kTokens / kTokens;
  if (j <= i) t.s[global_thread()] = t.scale * naive_product(at(t.q, i, h), at(t.k, j, h));
}
__global__ void naive_softmax(Tensors t) {  // a thread a row
  const i64 i = global_thread() % kTokens, h = global_thread() / kTokens;
  float* s = t.s + global_thread() * kTokens;
  float top = -INFINITY, sum = 0;
  for (i64 j = 0; j <= i; ++j) top = fmaxf(top, s[j]);
  for (i64 j = 0; j <= i; ++j) sum += expf(s[j] - top);
  for (i64 j = 0; j <= i; ++j) s[j] = expf(s[j] - top) / sum;
  t.lse[i * kHeads + h] = top + logf(sum);
}
__global__ void naive_output(Tensors t) {  // a thread an element
  const i64 c = global_thread() % kHead, h = global_thread() / kHead % kHeads, i = global_thread() / kRow;
  float sum = 0;
  for (i64 j = 0; j <= i; ++j) sum += t.s[(h * kTokens + i) * kTokens + j] * widened(at(t.v, j, h)[c]);
  t.o[global_thread()] = narrowed<bfloat>(sum);
}
__global__ void naive_delta(Tensors t) {
  const i64 h = global_thread() % kHeads, i = global_thread() / kHeads;
  t.delta[global_thread()] = naive_product(at(t.dout, i, h), at(t.o, i, h));
}
__global__ void naive_score_gradients(Tensors t) {
  const i64 j = global_thread() % kTokens, i = global_thread() / kTokens % kTokens, h = global_thread() / kTokens / kTokens;
  if (j > i) return;
  const float p = expf(t.scale * naive_product(at(t.q, i, h), at(t.k, j, h)) - t.lse[i * kHeads + h]);
  t.s[global_thread()] = p;
  t.ds[global_thread()] = p * (naive_product(at(t.dout, i, h), at(t.v, j, h)) - t.delta[i * kHeads + h]);
}
__global__ void naive_gradients(Tensors t) {  // a thread an element of dq, dk, dv
  const i64 c = global_thread() % kHead, h = global_thread() / kHead % kHeads, n = global_thread() / kRow;
  const float *p = t.s + h * kTokens * kTokens, *ds = t.ds + h * kTokens * kTokens;
  float dq = 0, dk = 0, dv = 0;
  for (i64 j = 0; j <= n; ++j) dq += ds[n * kTokens + j] * widened(at(t.k, j, h)[c]);
  for (i64 i = n; i < kTokens; ++i) {
    dk += ds[i * kTokens + n] * widened(at(t.q, i, h)[c]);
    dv += p[i * kTokens + n] * widened(at(t.dout, i, h)[c]);
  }
  t.dq[global_thread()] = narrowed<bfloat>(t.scale * dq);
  t.dk[global_thread()] = narrowed<bfloat>(t.scale * dk);
  t.dv[global_thread()] = narrowed<bfloat>(dv);
}

// ---- 1: tiles in shared memory, float arithmetic. A block has kOwn rows of its own and walks over tiles of kOther; of 16 x 16
// threads each has 4 rows and kOther/16 columns of scores, 4 rows and 8 columns of what is summed up.

constexpr int kOwn = 64, kOther = 32, kSide = 16, kMine = kOwn / kSide, kPart = kOther / kSide;
constexpr int kPitch = kHead + 4, kScorePitch = kOther + 4;  // floats; no two rows begin in the same bank

__device__ int tx() { return static_cast<int>(threadIdx.x) % kSide; }
__device__ int ty() { return static_cast<int>(threadIdx.x) / kSide; }

__device__ void load_tile(float* tile, const bfloat* x, i64 first, i64 head, int rows) {
  for (int i = static_cast<int>(threadIdx.x); i < rows * kHead; i += kSide * kSide)
    tile[i / kHead * kPitch + i % kHead] = widened(at(x, first + i / kHead, head)[i % kHead]);
}
__device__ float4 four(const float* p) { return *reinterpret_cast<const float4*>(p); }

// out[r][c] = a[4 ty + r] . b[tx + 16 c]
__device__ void score_tile(float (&out)[kMine][kPart], const float* a, const float* b) {
  for (int r = 0; r < kMine; ++r)
    for (int c = 0; c < kPart; ++c) out[r][c] = 0;
#pragma unroll 4
  for (int i = 0; i < kHead; i += 4) {
    float4 left[kMine], right[kPart];
#pragma unroll
    for (int r = 0; r < kMine; ++r) left[r] = four(a + (kMine * ty() + r) * kPitch + i);
#pragma unroll
    for (int c = 0; c < kPart; ++c) right[c] = four(b + (tx() + kSide * c) * kPitch + i);
#pragma unroll
    for (int r = 0; r < kMine; ++r)
#pragma unroll
      for (int c = 0; c < kPart; ++c)
        out[r][c] += left[r].x * right[c].x + left[r].y * right[c].y + left[r].z * right[c].z + left[r].w * right[c].w;
  }
}
// sum[r][.] += p[4 ty + r] x, with columns 4 tx .. 4 tx + 3 and those 64 further on
__device__ void add_weighted(float (&sum)[kMine][8], const float* p, const float* x) {
#pragma unroll 4
  for (int j = 0; j < kOther; ++j) {
    const float4 low = four(x + j * kPitch + 4 * tx()), high = four(x + j * kPitch + 4 * tx() + kHead / 2);
    const float column[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int r = 0; r < kMine; ++r) {
      const float weight = p[(kMine * ty() + r) * kScorePitch + j];
#pragma unroll
      for (int c = 0; c < 8; ++c) sum[r][c] += weight * column[c];
    }
  }
}
__device__ void store_rows(bfloat* x, i64 first, i64 head, const float (&sum)[kMine][8], const float (&factor)[kMine]) {
  for (int r = 0; r < kMine; ++r)
    for (int c = 0; c < 8; ++c)
      x[(first + kMine * ty() + r) * kRow + head * kHead + 4 * tx() + c % 4 + c / 4 * (kHead / 2)] =
          narrowed<bfloat>(sum[r][c] * factor[r]);
}

template <class Reduce>
__device__ float over_row(float x, Reduce reduce) {  // of the 16 threads that share rows
#pragma unroll
  for (int step = kSide / 2; step > 0; step /= 2) x = reduce(x, __shfl_xor_sync(~0u, x, step));
  return x;
}

__global__ void __launch_bounds__(kSide* kSide) tiled_forward(Tensors t) {
  extern __shared__ float4 shared[];
  float *q = reinterpret_cast<float*>(shared), *k = q + kOwn * kPitch, *v = k + kOther * kPitch, *p = v + kOther * kPitch;
  const i64 i0 = i64{kOwn} * blockIdx.x, h = blockIdx.y, first = i64{kTokens} * blockIdx.z;
  load_tile(q, t.q, first + i0, h, kOwn);
  float sum[kMine][8] = {}, top[kMine], total[kMine] = {};
  for (float& x : top) x = -INFINITY;
  for (i64 j0 = 0; j0 < i0 + kOwn; j0 += kOther) {
    __syncthreads();  // who still reads the tiles before
    load_tile(k, t.k, first + j0, h, kOther);
    load_tile(v, t.v, first + j0, h, kOther);
    __syncthreads();
    float s[kMine][kPart];
    score_tile(s, q, k);
    for (int r = 0; r < kMine; ++r) {
      float most = top[r], row = 0;
      for (int c = 0; c < kPart; ++c) {
        const bool visible = j0 + tx() + kSide * c <= i0 + kMine * ty() + r;
        s[r][c] = visible ? s[r][c] * t.scale : -INFINITY;
        most = fmaxf(most, s[r][c]);
      }
      most = over_row(most, [](float a, float b) { return fmaxf(a, b); });
      const float shrink = __expf(top[r] - most);  // the first tile has a visible key for every row: most is finite
      top[r] = most;
      for (int c = 0; c < kPart; ++c) {
        const float e = __expf(s[r][c] - most);
        p[(kMine * ty() + r) * kScorePitch + tx() + kSide * c] = e;
        row += e;
      }
      total[r] = total[r] * shrink + over_row(row, [](float a, float b) { return a + b; });
      for (float& x : sum[r]) x *= shrink;
    }
    __syncthreads();
    add_weighted(sum, p, v);
  }
  float inverse[kMine];
  for (int r = 0; r < kMine; ++r) inverse[r] = 1 / total[r];
  store_rows(t.o, first + i0, h, sum, inverse);
  for (int r = 0; r < kMine; ++r)
    if (tx() == 0) t.lse[(first + i0 + kMine * ty() + r) * kHeads + h] = top[r] + __logf(total[r]);
}

__global__ void tiled_delta(Tensors t) {  // a warp a head of a token
  const i64 h = global_warp() % kHeads, n = global_warp() / kHeads;
  float sum = 0;
  for (int c = lane(); c < kHead; c += kWarp) sum += widened(at(t.dout, n, h)[c]) * widened(at(t.o, n, h)[c]);
  sum = warp_sum(sum);
  if (lane() == 0) t.delta[n * kHeads + h] = sum;
}

// Keys and values of its own, walking over queries: scores are transposed, [key][query].
__global__ void __launch_bounds__(kSide* kSide) tiled_key_gradients(Tensors t) {
  extern __shared__ float4 shared[];
  float *k = reinterpret_cast<float*>(shared), *v = k + kOwn * kPitch, *q = v + kOwn * kPitch, *dout = q + kOther * kPitch;
  float *p = dout + kOther * kPitch, *ds = p + kOwn * kScorePitch;
  const i64 j0 = i64{kOwn} * blockIdx.x, h = blockIdx.y, first = i64{kTokens} * blockIdx.z;
  load_tile(k, t.k, first + j0, h, kOwn);
  load_tile(v, t.v, first + j0, h, kOwn);
  float dk[kMine][8] = {}, dv[kMine][8] = {};
  for (i64 i0 = j0; i0 < kTokens; i0 += kOther) {
    __syncthreads();
    load_tile(q, t.q, first + i0, h, kOther);
    load_tile(dout, t.dout, first + i0, h, kOther);
    __syncthreads();
    float s[kMine][kPart], dp[kMine][kPart];
    score_tile(s, k, q);
    score_tile(dp, v, dout);
    for (int c = 0; c < kPart; ++c) {
      const i64 i = i0 + tx() + kSide * c;
      const float lse = t.lse[(first + i) * kHeads + h], delta = t.delta[(first + i) * kHeads + h];
      for (int r = 0; r < kMine; ++r) {
        const int row = kMine * ty() + r;
        const float x = j0 + row <= i ? __expf(t.scale * s[r][c] - lse) : 0;
        p[row * kScorePitch + tx() + kSide * c] = x;
        ds[row * kScorePitch + tx() + kSide * c] = x * (dp[r][c] - delta);
      }
    }
    __syncthreads();
    add_weighted(dv, p, dout);
    add_weighted(dk, ds, q);
  }
  const float ones[kMine] = {1, 1, 1, 1}, scales[kMine] = {t.scale, t.scale, t.scale, t.scale};
  store_rows(t.dv, first + j0, h, dv, ones);
  store_rows(t.dk, first + j0, h, dk, scales);
}

__global__ void __launch_bounds__(kSide* kSide) tiled_query_gradients(Tensors t) {
  extern __shared__ float4 shared[];
  float *q = reinterpret_cast<float*>(shared), *dout = q + kOwn * kPitch, *k = dout + kOwn * kPitch, *v = k + kOther * kPitch;
  float* ds = v + kOther * kPitch;
  const i64 i0 = i64{kOwn} * blockIdx.x, h = blockIdx.y, first = i64{kTokens} * blockIdx.z;
  load_tile(q, t.q, first + i0, h, kOwn);
  load_tile(dout, t.dout, first + i0, h, kOwn);
  float dq[kMine][8] = {};
  for (i64 j0 = 0; j0 < i0 + kOwn; j0 += kOther) {
    __syncthreads();
    load_tile(k, t.k, first + j0, h, kOther);
    load_tile(v, t.v, first + j0, h, kOther);
    __syncthreads();
    float s[kMine][kPart], dp[kMine][kPart];
    score_tile(s, q, k);
    score_tile(dp, dout, v);
    for (int r = 0; r < kMine; ++r) {
      const int row = kMine * ty() + r;
      const i64 n = (first + i0 + row) * kHeads + h;
      for (int c = 0; c < kPart; ++c) {
        const float p = j0 + tx() + kSide * c <= i0 + row ? __expf(t.scale * s[r][c] - t.lse[n]) : 0;
        ds[row * kScorePitch + tx() + kSide * c] = p * (dp[r][c] - t.delta[n]);
      }
    }
    __syncthreads();
    add_weighted(dq, ds, k);
  }
  const float scales[kMine] = {t.scale, t.scale, t.scale, t.scale};
  store_rows(t.dq, first + i0, h, dq, scales);
}

// ----

void naive_forward(const Tensors& t) {
  const i64 scores = i64{kHeads} * kTokens * kTokens;
  naive_scores<<<blocks_for(scores), kBlock>>>(t);
  naive_softmax<<<blocks_for(kHeads * kTokens), kBlock>>>(t);
  naive_output<<<blocks_for(kTokens * kRow), kBlock>>>(t);
  launched("naive attention");
}
void naive_backward(const Tensors& t) {
  naive_delta<<<blocks_for(kHeads * kTokens), kBlock>>>(t);
  naive_score_gradients<<<blocks_for(i64{kHeads} * kTokens * kTokens), kBlock>>>(t);
  naive_gradients<<<blocks_for(kTokens * kRow), kBlock>>>(t);
  launched("naive attention backward");
}

constexpr size_t kTile = sizeof(float) * kPitch, kScores = sizeof(float) * kOwn * kScorePitch;  // bytes: of a row; of a tile
constexpr size_t kForwardBytes = kTile * (kOwn + 2 * kOther) + kScores;
constexpr size_t kKeyBytes = kTile * 2 * (kOwn + kOther) + 2 * kScores, kQueryBytes = kKeyBytes - kScores;
constexpr dim3 kGrid(kTokens / kOwn, kHeads, kBatch);

bool there_is_room() {  // for the tiles of the backward
  int most = 0;
  cuda_check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), "cudaDeviceGetAttribute");
  if (static_cast<size_t>(most) < kKeyBytes) return false;
  const auto allow = [](auto* kernel, size_t bytes) {
    const cudaFuncAttribute limit = cudaFuncAttributeMaxDynamicSharedMemorySize;
    cuda_check(cudaFuncSetAttribute(kernel, limit, static_cast<int>(bytes)), "shared memory");
  };
  allow(tiled_forward, kForwardBytes), allow(tiled_key_gradients, kKeyBytes), allow(tiled_query_gradients, kQueryBytes);
  return true;
}

void tiled_attention(const Tensors& t) {
  tiled_forward<<<kGrid, kSide * kSide, kForwardBytes>>>(t);
  launched("tiled attention");
}
void tiled_backward(const Tensors& t) {
  tiled_delta<<<blocks_for(i64{kBatch} * kTokens * kHeads * kWarp), kBlock>>>(t);
  tiled_key_gradients<<<kGrid, kSide * kSide, kKeyBytes>>>(t);
  tiled_query_gradients<<<kGrid, kSide * kSide, kQueryBytes>>>(t);
  launched("tiled attention backward");
}

}  // namespace

int main() {
  const std::unique_ptr<Backend> backend = make_backend("cuda", Precision::bf16);
  Ladder ladder(*backend);
  const double limit = ladder.product_rate();
  const i64 rows = i64{kBatch} * kTokens, sequence = kTokens * kRow;
  const auto make = [&] { return ladder.bench.make(DType::bf16, rows, kRow); };
  const Tensor q = make(), k = make(), v = make(), dout = make(), o = make(), dq = make(), dk = make(), dv = make();
  const Tensor lse = ladder.bench.make(DType::f32, rows, kHeads), delta = ladder.bench.make(DType::f32, rows, kHeads);
  const Tensor s = ladder.bench.make(DType::f32, i64{kHeads} * kTokens, kTokens);
  const Tensor ds = ladder.bench.make(DType::f32, i64{kHeads} * kTokens, kTokens);
  const AttentionShape shape{.batch = kBatch, .tokens = kTokens, .heads = kHeads, .kv_heads = kHeads, .head_dim = kHead,
                             .scale = 1 / std::sqrt(static_cast<float>(kHead))};
  const Tensors t{q.as<bfloat>(), k.as<bfloat>(), v.as<bfloat>(), dout.as<bfloat>(), o.as<bfloat>(), dq.as<bfloat>(),
                  dk.as<bfloat>(), dv.as<bfloat>(), lse.as<float>(), delta.as<float>(), s.as<float>(), ds.as<float>(),
                  shape.scale};
  const auto forward_as = [&](const AttentionShape& a) { return [&, a] { backend->attention(o, lse, q, k, v, a); }; };
  const auto backward_as = [&](const AttentionShape& a) {
    return [&, a] { backend->attention_bwd(dq, dk, dv, Acc::set, Acc::set, Acc::set, delta, dout, q, k, v, o, lse, a); };
  };
  const auto forward = forward_as(shape);
  const auto backward = backward_as(shape);
  AttentionShape capped = shape;
  capped.softcap = 512;  // scores stay below 3: nothing changes, but Hopper's own kernels do not take it
  const auto results = [&](std::initializer_list<Tensor> tensors) {  // of the first sequence
    std::vector<float> all;
    for (Tensor x : tensors) {
      const std::vector<float> part = ladder.read<bf16>(x, sequence);
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  };
  const auto poison = [&] {
    for (Tensor x : {o, dq, dk, dv}) backend->fill(x, NAN);
    ladder.wait();
  };
  forward(), backward();
  const std::vector<float> want_o = results({o}), want_d = results({dq, dk, dv});
  const double pairs = double{kHeads} * kHead * kTokens * (kTokens + 1) / 2;  // of one sequence, times d
  constexpr double kAllowed = 0x1p-7;  // results are bf16, and so are the factors on tensor cores
  const auto rungs = [&](const char* version, double sequences, const auto& there, const auto& back, const char* note) {
    poison();
    there();
    ladder.rung("attention forward", version, "TFLOP/s", sequences * 4 * pairs, limit, distance(results({o}), want_o), kAllowed,
                there, note);
    back();
    ladder.rung("attention backward", version, "TFLOP/s", sequences * 10 * pairs, limit,
                distance(results({dq, dk, dv}), want_d), kAllowed, back, note);
  };
  rungs("0: a thread a score, a row, an element; scores in memory", 1, [&] { naive_forward(t); }, [&] { naive_backward(t); },
        "one sequence of the eight");
  if (there_is_room())
    rungs("1: tiles in shared memory, float arithmetic", kBatch, [&] { tiled_attention(t); }, [&] { tiled_backward(t); }, "");
  else std::fprintf(stderr, "the tiled version needs more shared memory than a block can have here\n");
  rungs("2: tiles on tensor cores, a warp at a time", kBatch, forward_as(capped), backward_as(capped),
        "with a softcap, which costs a tanh a score");
  rungs("3: cuda/, as it runs", kBatch, forward, backward, "");
}

// The device itself: memory, transfers, graphs.
#include "cuda/backend.h"

#include <algorithm>
#include <cstring>
#include <future>

#include "ops/cpu/host_memory.h"
#include "ops/devices.h"

namespace signround::cuda {

CudaBackend::CudaBackend(int device, Precision precision, bool graph)
    : activation_(precision == Precision::f32 ? DType::f32 : DType::bf16), fp8_(precision == Precision::fp8), graph_(graph) {
  cudaDeviceProp properties;
  cuda_check(cudaSetDevice(device), "cudaSetDevice");
  cuda_check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  check(precision == Precision::f32 || properties.major >= 8, ErrorKind::bad_input, properties.name,
        " has no bf16 matrix products: use --precision fp32");
  check(!fp8_ || properties.major == 9, ErrorKind::bad_input, properties.name,
        " has no fp8 products with a scale a tile: use --precision bf16");
  name_ = cat("cuda ", properties.name);
  cuda_check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  products_ = std::make_unique<Products>(*this, device, properties.name, stream_, activation_);
  check(!fp8_ || products_->multiply_fp8(), ErrorKind::bad_input,
        "--precision fp8 needs the cuBLASLt of CUDA 12.9 or later: use --precision bf16");
  cuda_check(cudaStreamCreateWithFlags(&side_, cudaStreamNonBlocking), "cudaStreamCreate");
  for (cudaEvent_t* event : {&forked_, &joined_})
    cuda_check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cudaEventCreate");
  for (int i = 0; i < 2; ++i) {
    cuda_check(cudaMallocHost(&staging_[i], kStagingBytes), "pinned memory for transfers");
    cuda_check(cudaEventCreateWithFlags(&events_[i], cudaEventDisableTiming), "cudaEventCreate");
  }
  const i64 fault_bytes = static_cast<int>(Fault::count) * static_cast<i64>(sizeof(Faults));
  faults_ = static_cast<Faults*>(allocate(fault_bytes, "faults"));
  loss_parts_ = static_cast<double*>(allocate(kLossParts * static_cast<i64>(sizeof(double)), "partial sums"));
  cuda_check(cudaMemsetAsync(faults_, 0xFF, static_cast<size_t>(fault_bytes), stream_), "cudaMemset");
}

CudaBackend::~CudaBackend() {
  cudaStreamSynchronize(stream_);
  products_.reset();
  cudaFree(loss_parts_);
  cudaFree(faults_);
  for (int i = 0; i < 2; ++i) {
    cudaEventDestroy(events_[i]);
    cudaFreeHost(staging_[i]);
  }
  for (cudaEvent_t event : {forked_, joined_}) cudaEventDestroy(event);
  for (cudaStream_t stream : {side_, stream_}) cudaStreamDestroy(stream);
}

// ---- memory

i64 CudaBackend::free_bytes() const {
  size_t free = 0, total = 0;
  cuda_check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return static_cast<i64>(free);
}

i64 CudaBackend::total_bytes() const {
  size_t free = 0, total = 0;
  cuda_check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return static_cast<i64>(total);
}

void* CudaBackend::allocate(i64 bytes, std::string_view what) {
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail(ErrorKind::out_of_memory, "out of memory: ", what, " needs ", bytes, " bytes, ", free_bytes(), " are free on ", name_);
  }
  cuda_check(status, "cudaMalloc");
  in_use_ += bytes;
  peak_ = std::max(peak_, in_use_);
  return data;
}

void CudaBackend::release(void* data, i64 bytes) noexcept {
  cudaFree(data);  // waits for the kernels that may still use it
  in_use_ -= bytes;
}

void* CudaBackend::Pinned::allocate(i64 bytes, std::string_view what) {
  void* data = nullptr;
  const i64 free = free_host_bytes();
  const bool fits = bytes <= free && cudaHostAlloc(&data, static_cast<size_t>(bytes), cudaHostAllocDefault) == cudaSuccess;
  if (!fits) cudaGetLastError();
  check(fits, ErrorKind::out_of_memory, "out of memory: ", what, " needs ", bytes, " bytes of pinned host memory, ", free,
        " are free");
  return data;
}

void CudaBackend::Pinned::release(void* data, i64) noexcept { cudaFreeHost(data); }

// In pieces through pinned memory: one is copied by the host while the other is on its way. src may be reused on return.
void CudaBackend::upload(Tensor dst, const void* src) {
  const i64 bytes = dst.bytes();
  int slot = 0;
  for (i64 at = 0; at < bytes; at += kStagingBytes, slot ^= 1) {
    const size_t count = static_cast<size_t>(std::min(kStagingBytes, bytes - at));
    cuda_check(cudaEventSynchronize(events_[slot]), "upload");
    std::memcpy(staging_[slot], static_cast<const char*>(src) + at, count);
    char* to = static_cast<char*>(dst.data) + at;
    cuda_check(cudaMemcpyAsync(to, staging_[slot], count, cudaMemcpyHostToDevice, stream_), "upload");
    cuda_check(cudaEventRecord(events_[slot], stream_), "upload");
  }
  cuda_check(cudaStreamSynchronize(stream_), "upload");
}

void CudaBackend::download(void* dst, Tensor src) {
  const i64 bytes = src.bytes(), pieces = divide_up(bytes, kStagingBytes);
  const auto count = [&](i64 piece) { return static_cast<size_t>(std::min(kStagingBytes, bytes - piece * kStagingBytes)); };
  const auto fetch = [&](i64 piece) {
    if (piece >= pieces) return;
    const char* from = static_cast<const char*>(src.data) + piece * kStagingBytes;
    cuda_check(cudaMemcpyAsync(staging_[piece % 2], from, count(piece), cudaMemcpyDeviceToHost, stream_), "download");
    cuda_check(cudaEventRecord(events_[piece % 2], stream_), "download");
  };
  fetch(0);
  for (i64 piece = 0; piece < pieces; ++piece) {
    fetch(piece + 1);
    cuda_check(cudaEventSynchronize(events_[piece % 2]), "download");
    std::memcpy(static_cast<char*>(dst) + piece * kStagingBytes, staging_[piece % 2], count(piece));
  }
  throw_faults();
}

void CudaBackend::synchronize() {
  cuda_check(cudaStreamSynchronize(stream_), "synchronize");
  throw_faults();
}

void CudaBackend::throw_faults() {
  Faults found[static_cast<int>(Fault::count)];
  cuda_check(cudaMemcpyAsync(staging_[0], faults_, sizeof found, cudaMemcpyDeviceToHost, stream_), "reading faults");
  cuda_check(cudaStreamSynchronize(stream_), "a kernel");
  std::memcpy(found, staging_[0], sizeof found);
  if (std::all_of(std::begin(found), std::end(found), [](Faults f) { return f == ~Faults{0}; })) return;
  cuda_check(cudaMemsetAsync(faults_, 0xFF, sizeof found, stream_), "cudaMemset");
  const auto check_fault = [&](Fault kind, ErrorKind error, std::string_view before, std::string_view between,
                               std::string_view after) {
    const Faults f = found[static_cast<int>(kind)];
    check(f == ~Faults{0}, error, before, static_cast<i32>(f & 0xFFFFFFFFu), between, f >> 32, after);
  };
  check_fault(Fault::token, ErrorKind::bad_input, "token id ", " at position ", " is outside the embedding table");
  check_fault(Fault::target, ErrorKind::bad_input, "token id ", " at position ", " is outside the logits");
  check_fault(Fault::sample, ErrorKind::bug, "sample ", " at position ", " of the order of samples is not in the cache");
  check_fault(Fault::step, ErrorKind::bug, "tuning step ", " of ", "");
}

// ---- copies

namespace {

template <int V, class To, class From>
__global__ void convert_kernel(To* to, const From* from, i64 n) {
  const i64 i = global_thread() * V;
  if (i >= n) return;
  const Pack<From, V> in = load<V>(from + i);
  accumulate<V>(to + i, false, [&](int v) { return widened(in.x[v]); });
}

template <int V, class T>
__global__ void fill_kernel(T* to, T value, i64 n) {
  const i64 i = global_thread() * V;
  if (i >= n) return;
  Pack<T, V> out;
#pragma unroll
  for (int v = 0; v < V; ++v) out.x[v] = value;
  store<V>(to + i, out);
}

}  // namespace

void CudaBackend::convert(Tensor dst, Tensor src) {
  with_type(dst, [&]<class To>(To* to) {
    with_type(src, [&]<class From>(const From* from) {
      using Narrow = std::conditional_t<sizeof(To) < sizeof(From), To, From>;  // 16 bytes of these are the unit
      with_width<Narrow>(src.size(), {to, from}, [&](auto V) {
        convert_kernel<V><<<blocks_for(divide_up(src.size(), V)), kBlock, 0, stream_>>>(to, from, src.size());
      });
    });
  });
  launched("convert");
}

void CudaBackend::copy(Tensor dst, Tensor src) {
  fits(dst.size() == src.size(), "copy");
  if (src.size() == 0) return;
  if (dst.dtype != src.dtype) return convert(dst, src);
  cuda_check(cudaMemcpyAsync(dst.data, src.data, static_cast<size_t>(src.bytes()), cudaMemcpyDefault, stream_), "copy");
}

void CudaBackend::fill(Tensor dst, float value) {
  if (dst.size() == 0) return;
  const auto set = [&]<class T>(T* to, T with) {
    with_width<T>(dst.size(), {to}, [&](auto V) {
      fill_kernel<V><<<blocks_for(divide_up(dst.size(), V)), kBlock, 0, stream_>>>(to, with, dst.size());
    });
  };
  if (dst.dtype == DType::f32) set(dst.as<float>(), value);
  else if (dst.dtype == DType::i32) set(dst.as<i32>(), static_cast<i32>(value));
  else if (dst.dtype == DType::bf16) set(dst.as<bfloat>(), __float2bfloat16_rn(value));
  else set(dst.as<half>(), __float2half_rn(value));
  launched("fill");
}

// ---- aside, repeat

void CudaBackend::aside(const std::function<void()>& body) {
  cuda_check(cudaEventRecord(forked_, stream_), "aside");
  cuda_check(cudaStreamWaitEvent(side_, forked_), "aside");
  const auto change_sides = [&] { std::swap(stream_, side_); };
  change_sides();
  try {
    body();
  } catch (...) {
    change_sides();
    throw;
  }
  cuda_check(cudaEventRecord(joined_, stream_), "aside");
  change_sides();
}

void CudaBackend::rejoin() { cuda_check(cudaStreamWaitEvent(stream_, joined_), "rejoin"); }

namespace {

// Records what `body` issues on the stream, without running it, and can then issue it any number of times.
class Recording {
 public:
  Recording(cudaStream_t stream, const std::function<void()>& body) : stream_(stream) {
    // Relaxed: while the body is recorded, cuBLASLt may load kernels that it has not used before.
    cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "recording a graph");
    cudaGraph_t graph = nullptr;
    try {
      body();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    cuda_check(cudaStreamEndCapture(stream, &graph), "recording a graph");
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    cuda_check(status, "making a graph");
  }
  ~Recording() {
    cudaStreamSynchronize(stream_);
    cudaGraphExecDestroy(graph_);
  }
  Recording(const Recording&) = delete;
  void play() const { cuda_check(cudaGraphLaunch(graph_, stream_), "launching a graph"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace

// Called after each launch: the host stays at most two stretches of launches ahead, so that stopping on request is prompt.
void CudaBackend::throttle(i64 launches) {
  constexpr i64 kStretch = 8;
  if (launches % kStretch != 0) return;
  const i64 slot = launches / kStretch % 2;
  cuda_check(cudaEventRecord(events_[slot], stream_), "repeat");
  if (launches > kStretch) cuda_check(cudaEventSynchronize(events_[1 - slot]), "repeat");
}

// The first run is not recorded: in it matrix products are met that may have to be measured, and while it runs the next is
// recorded.
void CudaBackend::repeat(i64 times, const std::function<void()>& body, const std::function<void(i64)>& issued) {
  std::unique_ptr<Recording> recording;
  for (i64 n = 1; n <= times; ++n) {
    if (graph_ && n == 2 && times > 2) recording = std::make_unique<Recording>(stream_, body);
    if (recording) recording->play();
    else body();
    throttle(n);
    if (issued) issued(n);
  }
}

}  // namespace signround::cuda

namespace signround {

std::string cuda_absence(int device) {
  // The library takes as long to load as the driver and a device to start: both at once, where there is a driver.
  int driver = 0, devices = 0;
  std::future<void> loading;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0)
    loading = std::async(std::launch::async, [] { cuda::cublaslt(); });
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) {
    cudaGetLastError();
    return cudaGetErrorString(status);
  }
  if (devices == 0) return "no CUDA-capable device is detected";
  if (cudaSetDevice(device) != cudaSuccess) cudaGetLastError();  // said by who makes the backend
  std::string why;
  cuda::cublaslt(&why);
  return why;
}

std::unique_ptr<Backend> make_cuda_backend(int device, Precision precision, bool graph) {
  int devices = 0;
  cuda::cuda_check(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  check(device < devices, ErrorKind::bad_input, "--device cuda:", device, ": there are ", devices, " GPUs here");
  return std::make_unique<cuda::CudaBackend>(device, precision, graph);
}

}  // namespace signround

// Which shapes the Hopper kernels take, and what the copy engine is told of a tensor.
#include "cuda/hopper_attention.cuh"

namespace signround::cuda {

bool hopper_attends(const AttentionShape& shape) {
  int device = 0, major = 0;
  cuda_check(cudaGetDevice(&device), "cudaGetDevice");
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  return major == 9 && (shape.head_dim == 64 || shape.head_dim == 128) && shape.softcap == 0 && !shape.alibi;
}

namespace hopper {
namespace {

// The driver's, without linking the driver: the program starts where there is none.
decltype(&::cuTensorMapEncodeTiled) encoder() {
  static const auto found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result),
               "cuTensorMapEncodeTiled");
    check(result == cudaDriverEntryPointSuccess, ErrorKind::bug, "this driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<decltype(&::cuTensorMapEncodeTiled)>(function);
  }();
  return found;
}

}  // namespace

CUtensorMap tensor_map(const bfloat* data, const AttentionShape& shape, i64 heads, int rows) {
  const auto u = [](i64 x) { return static_cast<cuuint64_t>(x); };
  const i64 head_bytes = shape.head_dim * static_cast<i64>(sizeof(bfloat)), row_bytes = heads * head_bytes;
  const cuuint64_t sizes[] = {u(shape.head_dim), u(heads), u(shape.tokens), u(shape.batch)};
  const cuuint64_t strides[] = {u(head_bytes), u(row_bytes), u(shape.tokens * row_bytes)};  // in bytes, of all but the first
  const cuuint32_t box[] = {64, 1, static_cast<cuuint32_t>(rows), 1}, steps[] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult status =
      encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<bfloat*>(data), sizes, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check(status == CUDA_SUCCESS, ErrorKind::bug, "attention: the driver refuses a tensor map (", static_cast<int>(status), ")");
  return map;
}

unsigned standing_blocks(i64 tiles) {
  int device = 0, processors = 0;
  cuda_check(cudaGetDevice(&device), "cudaGetDevice");
  cuda_check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  return static_cast<unsigned>(std::min<i64>(tiles, processors));
}

}  // namespace hopper
}  // namespace signround::cuda

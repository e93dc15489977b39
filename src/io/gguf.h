// The GGUF container, version 3, little-endian: "GGUF", u32 version, u64 tensors, u64 values; the values, a key and a type each;
// the tensors' names, dimensions (fastest first), types and offsets from the start of the data; the data, all of it aligned
// to 32.
#pragma once
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "io/file.h"

namespace signround {

enum class GgmlType : u32 {
  f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q5_0 = 6, q5_1 = 7, q8_0 = 8, q2_k = 10, q3_k = 11, q4_k = 12, q5_k = 13, q6_k = 14,
  q2_0 = 42
};

struct GgmlBlock {
  i64 values, bytes;
};
GgmlBlock block_of(GgmlType type);
std::string_view name_of(GgmlType type);  // "Q4_K"

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::f32;
  std::vector<i64> shape;  // rows first, as everywhere else: [out, in]
  u64 offset = 0;          // from the start of the file
  u64 bytes = 0;
};

using GgufValue = std::variant<u32, float, bool, std::string, std::vector<std::string>, std::vector<float>, std::vector<i32>>;
using GgufValues = std::vector<std::pair<std::string, GgufValue>>;

// Tensors in any order into a file whose layout is fixed at the start. The header is written last: the file is not a valid one
// before finish() has returned.
class GgufWriter {
 public:
  // Of the tensors only name, type and shape count. Reserves the space on the disk.
  GgufWriter(const Path& path, const GgufValues& values, std::vector<GgufTensor> tensors);

  void write(std::string_view name, std::span<const std::byte> bytes);  // whole
  void finish();                                                        // Error{bug} if a tensor is missing

  u64 head_bytes() const { return head_.size(); }  // in front of the tensors
  u64 file_size() const { return file_size_; }

 private:
  std::string head_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
  std::map<std::string, bool, std::less<>> written_;
  u64 file_size_ = 0;
  File file_;
};

// The tensors of a file; values are checked and passed over. Types that are not among GgmlType are Error{bad_input}, and so is
// everything that does not fit into the file.
class GgufFile {
 public:
  explicit GgufFile(const Path& path);

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  std::vector<std::byte> read(const GgufTensor& tensor) const;

 private:
  File file_;
  std::vector<GgufTensor> tensors_;
};

}  // namespace signround

// The safetensors file: 8 bytes little-endian N, N bytes of JSON that name each tensor's type, shape and place, then the tensors'
// bytes, little-endian and row-major. The reader is stricter than the reference implementation, see tests/test_safetensors.cpp.
#pragma once
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "io/file.h"

namespace signround {

inline constexpr u64 kMaxHeaderBytes = 100'000'000;
inline constexpr i64 kMaxTensors = 1'000'000;
inline constexpr std::size_t kMaxTensorName = 65536;
inline constexpr std::size_t kMaxRank = 8;
inline constexpr u64 kMaxDim = u64{1} << 48;

struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  std::vector<i64> shape;  // empty: a scalar
  u64 offset = 0;          // from the start of the file; not necessarily aligned
  u64 bytes = 0;           // product of shape * bits_of(dtype) / 8
};

using Metadata = std::vector<std::pair<std::string, std::string>>;

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // by offset: they fill the file from the header to its end, without gap or overlap
  Metadata metadata;
};

// Bytes of the file in front of the tensors, from the first 8 bytes of it. Error{bad_input} if that cannot be.
u64 safetensors_head_size(std::span<const u8> start, u64 file_size);

// start: the first bytes of a file, at least safetensors_head_size() of them. Error{bad_input} for everything that is wrong with
// the header, names the tensor. A pure function: the file is not touched, nothing is allocated for what the header merely claims.
SafetensorsHeader parse_safetensors_header(std::span<const u8> start, u64 file_size);

// An open file. Reading is safe from several threads.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const Path& path);  // errors begin with the path

  const Path& path() const { return file_.path(); }
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const Metadata& metadata() const { return header_.metadata; }

  void read(const TensorInfo& tensor, std::span<std::byte> out) const;                  // out has exactly tensor.bytes bytes
  void read_part(const TensorInfo& tensor, u64 first, std::span<std::byte> out) const;  // bytes [first, first + out.size()) of it

 private:
  File file_;
  SafetensorsHeader header_;
};

// Writes tensors in any order into a file whose layout is fixed at the start. The header is written last, so that the file is not
// a valid one before finish() has returned. Distinct tensors may be written from several threads.
class SafetensorsWriter {
 public:
  // Of the tensors only name, dtype and shape count. The widest types come first, in the order given otherwise: all are aligned.
  // Reserves the space on the disk: Error{io} if there is too little. Error{bug} for names or shapes that a reader would refuse.
  SafetensorsWriter(const Path& path, const std::vector<TensorInfo>& tensors, const Metadata& metadata = {{"format", "pt"}});

  void write(std::string_view name, std::span<const std::byte> bytes);  // a tensor's next bytes: all, or part after part
  void finish();  // writes the header and syncs; Error{bug} if a tensor is not whole

  const std::vector<TensorInfo>& tensors() const { return layout_.tensors; }  // with their places
  u64 file_size() const { return layout_.file_size; }

 private:
  struct Entry {
    const TensorInfo* tensor;
    u64 written;  // bytes
  };
  struct Layout {
    std::string head;  // N and the JSON
    std::vector<TensorInfo> tensors;
    u64 file_size = 0;
  };
  static Layout lay_out(const std::vector<TensorInfo>& tensors, const Metadata& metadata);

  Layout layout_;
  std::map<std::string, Entry, std::less<>> entries_;
  File file_;
};

}  // namespace signround

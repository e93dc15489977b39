// Who owns bytes: Buffer. Who hands them out before the work starts: Arena.
#pragma once
#include <initializer_list>
#include <string_view>
#include <utility>

#include "base/tensor.h"

namespace signround {

// Where a backend's memory comes from. Throws Error{out_of_memory} that names `what`, the bytes wanted and the bytes free.
struct Allocator {
  virtual ~Allocator() = default;
  virtual void* allocate(i64 bytes, std::string_view what) = 0;  // aligned to kAlignment
  virtual void release(void* data, i64 bytes) noexcept = 0;
};

inline constexpr i64 kAlignment = 256;  // bytes; enough for vector loads on every device
constexpr i64 aligned(i64 bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Owns bytes on a device; move-only.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Allocator& owner, i64 bytes, std::string_view what)
      : owner_(&owner), data_(bytes > 0 ? owner.allocate(bytes, what) : nullptr), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~Buffer() {
    if (data_) owner_->release(data_, bytes_);
  }

  void* data() const { return data_; }
  i64 bytes() const { return bytes_; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(owner_, other.owner_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  Allocator* owner_ = nullptr;
  void* data_ = nullptr;
  i64 bytes_ = 0;
};

// Bump allocation over one Buffer, or over memory that someone else owns. A default-made Arena only measures: run the same take()
// calls on it first, then on one of measured.used() bytes, and the program knows what it needs before it starts.
class Arena {
 public:
  Arena() = default;
  Arena(Allocator& owner, i64 bytes, std::string_view what)
      : buffer_(owner, bytes, what), data_(static_cast<char*>(buffer_.data())), bytes_(bytes), measuring_(false) {}
  // Null: measures.
  Arena(void* data, i64 bytes) : data_(static_cast<char*>(data)), bytes_(bytes), measuring_(data == nullptr) {}

  Tensor take(DType dtype, std::initializer_list<i64> dims) {
    Tensor t{nullptr, dtype, 0, {}};
    for (i64 d : dims) t.dim[t.rank++] = d;
    t.data = take_bytes(t.bytes());
    return t;
  }
  void* take_bytes(i64 bytes) {
    const i64 at = used_;
    used_ += aligned(bytes);
    if (measuring_) return nullptr;
    check(used_ <= bytes_, ErrorKind::bug, "arena of ", bytes_, " bytes asked for ", used_);
    return data_ + at;
  }
  i64 used() const { return used_; }
  void rewind(i64 to = 0) { used_ = to; }

 private:
  Buffer buffer_;
  char* data_ = nullptr;
  i64 bytes_ = 0, used_ = 0;
  bool measuring_ = true;
};

}  // namespace signround

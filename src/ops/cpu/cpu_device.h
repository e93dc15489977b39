// What the CPU backend is beside its ops: memory, conversions, and work that is repeated or goes on aside.
#pragma once
#include <algorithm>
#include <cstring>
#include <string>

#include "ops/cpu/host_memory.h"
#include "ops/cpu/loop.h"
#include "ops/cpu/mlp.h"
#include "ops/ops.h"

namespace signround::SIGNROUND_ISA {

// f(typed pointer) for a tensor that may be stored as float, f16, bf16 or T.
template <class T, class F>
void with_type(Tensor t, F&& f) {
  switch (t.dtype) {
    case DType::f32: return f(static_cast<float*>(t.data));
    case DType::f16: return f(static_cast<f16*>(t.data));
    case DType::bf16: return f(static_cast<bf16*>(t.data));
    default: break;
  }
  if constexpr (!std::is_same_v<T, float>) return f(t.as<T>());
  fail(ErrorKind::bug, "no kernel for elements of type ", name_of(t.dtype));
}

// A wrong shape is a bug of the caller.
inline void fits(bool ok, std::string_view op) { check(ok, ErrorKind::bug, op, ": the shapes of the tensors do not fit"); }

template <class T>
class CpuDevice : public Backend {
 public:
  explicit CpuDevice(std::string_view isa) : name_(cat("cpu ", isa)) {}

  std::string name() const override { return name_; }
  DType activation_type() const override { return dtype_of<T>; }
  i64 free_bytes() const override { return free_host_bytes(); }
  i64 total_bytes() const override { return total_host_bytes(); }
  i64 peak_bytes() const override { return peak_; }
  Allocator& host_memory() override { return *this; }

  // ---- memory
  void* allocate(i64 bytes, std::string_view what) override {
    void* data = allocate_host(bytes, what);
    in_use_ += bytes;
    peak_ = in_use_ > peak_ ? in_use_ : peak_;
    return data;
  }
  void release(void* data, i64 bytes) noexcept override {
    release_host(data);
    in_use_ -= bytes;
  }
  void upload(Tensor dst, const void* src) override { std::memcpy(dst.data, src, static_cast<size_t>(dst.bytes())); }
  void download(void* dst, Tensor src) override { std::memcpy(dst, src.data, static_cast<size_t>(src.bytes())); }
  void copy(Tensor dst, Tensor src) override {
    fits(dst.size() == src.size(), "copy");
    if (dst.dtype == src.dtype) {
      parallel_ranges(src.bytes(), 1 << 18, [&](i64 first, i64 last) {
        char* to = static_cast<char*>(dst.data) + first;
        std::memcpy(to, static_cast<const char*>(src.data) + first, static_cast<size_t>(last - first));
      });
      return;
    }
    with_type<T>(dst, [&](auto* to) { with_type<T>(src, [&](const auto* from) { convert(to, from, src.size()); }); });
  }
  void fill(Tensor dst, float value) override {
    if (dst.dtype == DType::i32) {
      std::fill_n(dst.as<i32>(), dst.size(), static_cast<i32>(value));
      return;
    }
    with_type<T>(dst, [&](auto* to) {
      using To = std::remove_pointer_t<decltype(to)>;
      for_elements(dst.size(), [&](i64 first, i64 last) { std::fill(to + first, to + last, cast<To>(value)); });
    });
  }
  void synchronize() override {}
  void aside(const std::function<void()>& body) override { body(); }
  void rejoin() override {}
  void repeat(i64 times, const std::function<void()>& body, const std::function<void(i64)>& issued) override {
    for (i64 n = 1; n <= times; ++n) {
      body();
      if (issued) issued(n);
    }
  }

 private:
  std::string name_;
  i64 in_use_ = 0, peak_ = 0;
};

}  // namespace signround::SIGNROUND_ISA

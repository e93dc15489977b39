#include "io/gguf.h"

#include <algorithm>
#include <cstring>

#include "io/json.h"

namespace signround {
namespace {

constexpr u64 kAlignment = 32;
constexpr u64 kMaxHead = u64{512} << 20;
constexpr u32 kVersion = 3;
enum ValueType : u32 { kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9 };

struct Kind {
  GgmlType type;
  std::string_view name;
  GgmlBlock block;
};
constexpr Kind kKinds[] = {
    {GgmlType::f32, "F32", {1, 4}},       {GgmlType::f16, "F16", {1, 2}},       {GgmlType::q4_0, "Q4_0", {32, 18}},
    {GgmlType::q4_1, "Q4_1", {32, 20}},   {GgmlType::q5_0, "Q5_0", {32, 22}},   {GgmlType::q5_1, "Q5_1", {32, 24}},
    {GgmlType::q8_0, "Q8_0", {32, 34}},   {GgmlType::q2_0, "Q2_0", {64, 18}},   {GgmlType::q2_k, "Q2_K", {256, 84}},
    {GgmlType::q3_k, "Q3_K", {256, 110}}, {GgmlType::q4_k, "Q4_K", {256, 144}}, {GgmlType::q5_k, "Q5_K", {256, 176}},
    {GgmlType::q6_k, "Q6_K", {256, 210}}};

const Kind& kind_of(GgmlType type) {
  for (const Kind& k : kKinds)
    if (k.type == type) return k;
  std::string known;
  for (const Kind& k : kKinds) known += cat(known.empty() ? "" : ", ", k.name);
  fail(ErrorKind::bad_input, "tensor type ", static_cast<u32>(type), " is not supported; supported: ", known);
}

constexpr u64 aligned(u64 n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

// ---- writing

template <class T>
void put(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void put(std::string& out, const std::string& text) {
  put(out, static_cast<u64>(text.size()));
  out += text;
}

struct PutValue {
  std::string& out;
  template <class T>
  void scalar(u32 type, const T& value) {
    put(out, type);
    put(out, value);
  }
  template <class T>
  void array(u32 type, const std::vector<T>& values) {
    put(out, u32{kArray});
    put(out, type);
    put(out, static_cast<u64>(values.size()));
    for (const T& value : values) put(out, value);
  }
  void operator()(u32 v) { scalar(kU32, v); }
  void operator()(float v) { scalar(kF32, v); }
  void operator()(bool v) { scalar(kBool, static_cast<u8>(v)); }
  void operator()(const std::string& v) { scalar(kString, v); }
  void operator()(const std::vector<std::string>& v) { array(kString, v); }
  void operator()(const std::vector<float>& v) { array(kF32, v); }
  void operator()(const std::vector<i32>& v) { array(kI32, v); }
};

// Header without the tensors' offsets being absolute: `tensors` get them.
std::string lay_out(const GgufValues& values, std::vector<GgufTensor>& tensors, u64& file_size) {
  std::string head = "GGUF";
  put(head, kVersion);
  put(head, static_cast<u64>(tensors.size()));
  put(head, static_cast<u64>(values.size()));
  for (const auto& [key, value] : values) {
    put(head, key);
    std::visit(PutValue{head}, value);
  }
  u64 offset = 0;
  for (GgufTensor& t : tensors) {
    i64 elements = 1;
    for (const i64 d : t.shape) elements *= d;
    const GgmlBlock block = block_of(t.type);
    check(!t.shape.empty() && t.shape.back() % block.values == 0, ErrorKind::bug, t.name, ": rows are not whole blocks");
    t.bytes = static_cast<u64>(elements / block.values * block.bytes);
    put(head, t.name);
    put(head, static_cast<u32>(t.shape.size()));
    for (auto d = t.shape.rbegin(); d != t.shape.rend(); ++d) put(head, static_cast<u64>(*d));
    put(head, static_cast<u32>(t.type));
    put(head, offset);
    t.offset = offset;
    offset = aligned(offset + t.bytes);
  }
  head.resize(aligned(head.size()));
  for (GgufTensor& t : tensors) t.offset += head.size();
  file_size = head.size() + offset;
  return head;
}

// ---- reading

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string text() {
    const std::span<const std::byte> taken = take(number<u64>());
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }
  void skip_value(u32 type) {
    constexpr u64 kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    check(type < std::size(kSizes), ErrorKind::bad_input, "value of unknown type ", type);
    if (type == kString) {
      text();
    } else if (type == kArray) {
      const u32 element = number<u32>();
      const u64 count = number<u64>();
      check(element != kArray && count <= bytes_.size(), ErrorKind::bad_input, "array of ", count, " values of type ", element);
      for (u64 i = 0; i < count; ++i) skip_value(element);
    } else {
      take(kSizes[type]);
    }
  }
  u64 position() const { return at_; }

 private:
  std::span<const std::byte> take(u64 n) {
    check(n <= bytes_.size() - at_, ErrorKind::bad_input, "the header ends at byte ", bytes_.size(),
          ", in the middle of a value");
    at_ += n;
    return bytes_.subspan(at_ - n, n);
  }

  std::span<const std::byte> bytes_;
  u64 at_ = 0;
};

GgufTensor read_tensor(Reader& reader) {
  GgufTensor t;
  t.name = reader.text();
  const u32 rank = reader.number<u32>();
  check(rank >= 1 && rank <= 4, ErrorKind::bad_input, "tensor ", quote(t.name), ": ", rank, " dimensions");
  i64 elements = 1;
  for (u32 i = 0; i < rank; ++i) {
    const u64 d = reader.number<u64>();
    check(d > 0 && d < u64{1} << 48 && !__builtin_mul_overflow(elements, static_cast<i64>(d), &elements), ErrorKind::bad_input,
          "tensor ", quote(t.name), ": ", d, " cannot be a dimension");
    t.shape.insert(t.shape.begin(), static_cast<i64>(d));
  }
  t.type = static_cast<GgmlType>(reader.number<u32>());
  const GgmlBlock block = block_of(t.type);
  i64 bytes = 0;
  check(t.shape.back() % block.values == 0 && !__builtin_mul_overflow(elements / block.values, block.bytes, &bytes),
        ErrorKind::bad_input, "tensor ", quote(t.name), ": rows of ", t.shape.back(), " are not whole blocks of ", block.values);
  t.bytes = static_cast<u64>(bytes);
  t.offset = reader.number<u64>();
  return t;
}

}  // namespace

GgmlBlock block_of(GgmlType type) { return kind_of(type).block; }
std::string_view name_of(GgmlType type) { return kind_of(type).name; }

GgufWriter::GgufWriter(const Path& path, const GgufValues& values, std::vector<GgufTensor> tensors)
    : head_(lay_out(values, tensors, file_size_)), file_(File::create(path)) {
  for (GgufTensor& t : tensors) {
    const std::string name = t.name;
    check(tensors_.emplace(name, std::move(t)).second, ErrorKind::bug, name, ": is there twice");
  }
  file_.reserve(file_size_);
}

void GgufWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  const auto found = tensors_.find(name);
  check(found != tensors_.end() && found->second.bytes == bytes.size(), ErrorKind::bug, name, ": is no tensor of ", bytes.size(),
        " bytes of this file");
  file_.write(found->second.offset, bytes);
  written_[found->first] = true;
}

void GgufWriter::finish() {
  for (const auto& [name, tensor] : tensors_) check(written_.contains(name), ErrorKind::bug, name, ": was not written");
  file_.write(0, std::as_bytes(std::span(head_)));
  file_.sync();
}

GgufFile::GgufFile(const Path& path) : file_(File::open(path)) {
  within(path.string(), [&] {
    const u64 size = file_.size();
    std::vector<std::byte> head(std::min(size, kMaxHead));
    file_.read(0, head);
    Reader reader(head);
    check(reader.number<u32>() == 0x46554747, ErrorKind::bad_input, "is no GGUF file");
    const u32 version = reader.number<u32>();
    check(version == kVersion, ErrorKind::bad_input, "version ", version, " is not supported; supported: ", kVersion);
    const u64 tensors = reader.number<u64>(), values = reader.number<u64>();
    check(tensors <= head.size() && values <= head.size(), ErrorKind::bad_input,
          "more tensors or values than the file has bytes");
    for (u64 i = 0; i < values; ++i) {
      check(reader.text() != "general.alignment", ErrorKind::bad_input, "another alignment than ", kAlignment,
            " is not supported");
      reader.skip_value(reader.number<u32>());
    }
    for (u64 i = 0; i < tensors; ++i) tensors_.push_back(read_tensor(reader));
    const u64 start = aligned(reader.position());
    for (GgufTensor& t : tensors_) {
      check(start <= size && t.offset <= size - start && t.bytes <= size - start - t.offset, ErrorKind::bad_input, "tensor ",
            quote(t.name), ": reaches beyond the end of the file");
      t.offset += start;
    }
  });
}

std::vector<std::byte> GgufFile::read(const GgufTensor& tensor) const {
  std::vector<std::byte> bytes(tensor.bytes);
  file_.read(tensor.offset, bytes);
  return bytes;
}

}  // namespace signround

#include "io/safetensors.h"

#include <algorithm>
#include <limits>

#include "io/json.h"

namespace signround {

namespace {

constexpr u64 kPrefix = 8;  // bytes of N
constexpr u64 kHeadAlignment = 8;

u64 mul_checked(u64 a, u64 b) {
  u64 product = 0;
  // Within i64, so that sizes stay exact wherever they go.
  const bool overflow = __builtin_mul_overflow(a, b, &product) || product > u64{std::numeric_limits<i64>::max()};
  check(!overflow, ErrorKind::bad_input, "the shape's size overflows");
  return product;
}

// Bytes of a tensor. The product is over the dimensions that are not 0, or a zero in front would hide an overflow behind it.
u64 size_in_bytes(DType dtype, const std::vector<i64>& shape) {
  u64 bits = static_cast<u64>(bits_of(dtype));
  bool empty = false;
  for (const i64 dim : shape) {
    empty = empty || dim == 0;
    if (dim != 0) bits = mul_checked(bits, static_cast<u64>(dim));
  }
  check(bits % 8 == 0 || empty, ErrorKind::bad_input, "does not end on a byte");
  return empty ? 0 : bits / 8;
}

void check_name(std::string_view name) {
  check(!name.empty(), ErrorKind::bad_input, "the name is empty");
  check(name.size() <= kMaxTensorName, ErrorKind::bad_input, "the name has more than ", kMaxTensorName, " bytes");
  for (std::size_t i = 0; i < name.size(); ++i) {
    const u8 c = static_cast<u8>(name[i]);
    const bool c1 = c == 0xC2 && static_cast<u8>(name[i + 1]) < 0xA0;  // U+0080..U+009F; UTF-8 has a second byte here
    check(c >= 0x20 && c != 0x7F && !c1, ErrorKind::bad_input, "the name has a control character");
  }
}

std::vector<i64> read_shape(const Json& json) {
  const Json::Array& dims = json.array();
  check(dims.size() <= kMaxRank, ErrorKind::bad_input, "rank ", dims.size(), ", the limit is ", kMaxRank);
  std::vector<i64> shape;
  for (const Json& dim : dims) {
    const u64 n = dim.unsigned_integer();
    check(n <= kMaxDim, ErrorKind::bad_input, "dimension ", n, ", the limit is ", kMaxDim);
    shape.push_back(static_cast<i64>(n));
  }
  return shape;
}

std::string shape_text(const std::vector<i64>& shape) {
  std::string text = "[";
  for (const i64 dim : shape) text += cat(text.size() > 1 ? "," : "", dim);
  return text + "]";
}

// One entry of the header; head: what the offsets count from.
TensorInfo read_entry(const JsonMember& member, u64 head, u64 file_size) {
  check_name(member.key);
  TensorInfo tensor;
  tensor.name = member.key;
  for (const JsonMember& field : member.value.object())
    check(field.key == "dtype" || field.key == "shape" || field.key == "data_offsets", ErrorKind::bad_input, "unknown field ",
          quote(field.key));

  const std::string& type = member.value.string("dtype");
  const std::optional<DType> dtype = dtype_named(type);
  check(dtype.has_value(), ErrorKind::bad_input, "unknown dtype ", quote(type));
  tensor.dtype = *dtype;
  const Json& shape = member.value.at("shape");
  tensor.shape = within("shape", [&] { return read_shape(shape); });
  tensor.bytes = within(shape_text(tensor.shape), [&] { return size_in_bytes(tensor.dtype, tensor.shape); });

  const Json::Array& offsets = member.value.array("data_offsets");
  check(offsets.size() == 2, ErrorKind::bad_input, "data_offsets has ", offsets.size(), " elements instead of 2");
  const u64 begin = within("data_offsets", [&] { return offsets[0].unsigned_integer(); });
  const u64 end = within("data_offsets", [&] { return offsets[1].unsigned_integer(); });
  check(begin <= end, ErrorKind::bad_input, "data_offsets [", begin, ",", end, "] are reversed");
  check(end <= file_size - head, ErrorKind::bad_input, "data_offsets [", begin, ",", end, "] reach past the ", file_size - head,
        " bytes of data in the file; is it complete?");
  check(end - begin == tensor.bytes, ErrorKind::bad_input, "shape ", shape_text(tensor.shape), " x ", name_of(tensor.dtype),
        " needs ", tensor.bytes, " bytes but data_offsets span ", end - begin);
  tensor.offset = head + begin;
  return tensor;
}

Metadata read_metadata(const Json& json) {
  Metadata metadata;
  if (json.is_null()) return metadata;  // some writers
  for (const JsonMember& member : json.object())
    within(quote(member.key), [&] { metadata.emplace_back(member.key, member.value.string()); });
  return metadata;
}

// The tensors, sorted by offset, must follow one another from head to the end of the file.
void check_layout(const std::vector<TensorInfo>& tensors, u64 head, u64 file_size) {
  u64 expected = head;
  for (const TensorInfo& tensor : tensors) {
    check(tensor.offset >= expected, ErrorKind::bad_input, "tensor ", quote(tensor.name), ": overlaps the tensor before it");
    check(tensor.offset == expected, ErrorKind::bad_input, "tensor ", quote(tensor.name), ": ", tensor.offset - expected,
          " bytes in front of it belong to no tensor");
    expected += tensor.bytes;
  }
  check(expected == file_size, ErrorKind::bad_input, "the last ", file_size - expected, " bytes of the file belong to no tensor");
}

}  // namespace

u64 safetensors_head_size(std::span<const u8> start, u64 file_size) {
  check(file_size >= kPrefix && start.size() >= kPrefix, ErrorKind::bad_input, "header: the file has ", file_size,
        " bytes, too few for a safetensors file");
  u64 n = 0;
  for (u64 i = 0; i < kPrefix; ++i) n |= u64{start[i]} << (8 * i);
  check(n > 0, ErrorKind::bad_input, "header: its length is 0; was the file written to the end?");
  check(n <= kMaxHeaderBytes, ErrorKind::bad_input, "header: its length is ", n, ", the limit is ", kMaxHeaderBytes,
        "; is this a safetensors file?");
  check(n <= file_size - kPrefix, ErrorKind::bad_input, "header: its length is ", n, " but only ", file_size - kPrefix,
        " bytes are left in the file");
  return kPrefix + n;
}

SafetensorsHeader parse_safetensors_header(std::span<const u8> start, u64 file_size) {
  const u64 head = safetensors_head_size(start, file_size);
  check(start.size() >= head, ErrorKind::bug, "the header has ", head, " bytes, ", start.size(), " were given");
  const std::string_view text(reinterpret_cast<const char*>(start.data()) + kPrefix, head - kPrefix);
  SafetensorsHeader header;
  within("header", [&] {
    const Json json = parse_json(text);
    const Json::Members& members = json.object();
    check(members.size() <= kMaxTensors, ErrorKind::bad_input, members.size(), " entries, the limit is ", kMaxTensors,
          " tensors");
    for (const JsonMember& member : members) {
      if (member.key == "__metadata__") {
        header.metadata = within("__metadata__", [&] { return read_metadata(member.value); });
      } else {
        header.tensors.push_back(within(cat("tensor ", quote(member.key)), [&] { return read_entry(member, head, file_size); }));
      }
    }
    // An empty tensor comes in front of the one that starts where it lies.
    std::stable_sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
      return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
    });
    check_layout(header.tensors, head, file_size);
  });
  return header;
}

SafetensorsFile::SafetensorsFile(const Path& path) : file_(File::open(path)) {
  const u64 size = file_.size();
  std::vector<u8> start(std::min(size, kPrefix));
  file_.read(0, std::as_writable_bytes(std::span(start)));
  within(path.string(), [&] { start.resize(safetensors_head_size(start, size)); });
  file_.read(0, std::as_writable_bytes(std::span(start)));
  header_ = within(path.string(), [&] { return parse_safetensors_header(start, size); });
}

void SafetensorsFile::read(const TensorInfo& tensor, std::span<std::byte> out) const {
  check(out.size() == tensor.bytes, ErrorKind::bug, "tensor ", quote(tensor.name), " has ", tensor.bytes, " bytes, the buffer ",
        out.size());
  file_.read(tensor.offset, out);
}

void SafetensorsFile::read_part(const TensorInfo& tensor, u64 first, std::span<std::byte> out) const {
  check(first <= tensor.bytes && out.size() <= tensor.bytes - first, ErrorKind::bug, "tensor ", quote(tensor.name), " has ",
        tensor.bytes, " bytes, ", out.size(), " from ", first, " on are read");
  file_.read(tensor.offset + first, out);
}

namespace {

// The 8 bytes of N and the padded JSON; end: bytes of all tensors.
std::string make_head(std::vector<TensorInfo> tensors, const Metadata& metadata, u64& end) {
  Json json = Json::object({});
  if (!metadata.empty()) {
    Json& strings = json.set("__metadata__", Json::object({}));
    for (const auto& [key, value] : metadata) strings.set(key, value);
  }
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const TensorInfo& a, const TensorInfo& b) { return bits_of(a.dtype) > bits_of(b.dtype); });
  for (const TensorInfo& tensor : tensors) {
    check(!json.find(tensor.name), ErrorKind::bug, "tensor ", quote(tensor.name), " is there twice");
    const u64 begin = end;
    end += within(cat("tensor ", quote(tensor.name)), [&] { return size_in_bytes(tensor.dtype, tensor.shape); });
    Json shape = Json::array({});
    for (const i64 dim : tensor.shape) shape.push(dim);
    json.set(tensor.name,
             Json::object(
                 {{"dtype", name_of(tensor.dtype)}, {"shape", std::move(shape)}, {"data_offsets", Json::array({begin, end})}}));
  }
  std::string text = to_text(json);
  text.append((kHeadAlignment - text.size() % kHeadAlignment) % kHeadAlignment, ' ');
  std::string head;
  for (u64 i = 0; i < kPrefix; ++i) head += static_cast<char>((text.size() >> (8 * i)) & 0xFF);
  return head + text;
}

}  // namespace

SafetensorsWriter::Layout SafetensorsWriter::lay_out(const std::vector<TensorInfo>& tensors, const Metadata& metadata) {
  try {
    Layout layout;
    u64 end = 0;
    layout.head = make_head(tensors, metadata, end);
    layout.file_size = layout.head.size() + end;
    const std::span<const u8> head(reinterpret_cast<const u8*>(layout.head.data()), layout.head.size());
    layout.tensors = parse_safetensors_header(head, layout.file_size).tensors;  // what is written must pass our own reader
    return layout;
  } catch (Error& e) {
    e.kind = ErrorKind::bug;
    throw;
  }
}

SafetensorsWriter::SafetensorsWriter(const Path& path, const std::vector<TensorInfo>& tensors, const Metadata& metadata)
    : layout_(lay_out(tensors, metadata)), file_(File::create(path)) {
  file_.reserve(layout_.file_size);
  for (const TensorInfo& tensor : layout_.tensors) entries_[tensor.name] = {&tensor, 0};
}

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  const auto entry = entries_.find(name);
  check(entry != entries_.end(), ErrorKind::bug, file_.path().string(), ": no tensor ", quote(name), " was announced");
  const TensorInfo& tensor = *entry->second.tensor;
  u64& written = entry->second.written;
  check(bytes.size() <= tensor.bytes - written, ErrorKind::bug, file_.path().string(), ": tensor ", quote(name), " has ",
        tensor.bytes, " bytes, ", written + bytes.size(), " were given");
  file_.write(tensor.offset + written, bytes);
  written += bytes.size();
}

void SafetensorsWriter::finish() {
  for (const auto& [name, entry] : entries_)
    check(entry.written == entry.tensor->bytes, ErrorKind::bug, file_.path().string(), ": tensor ", quote(name), " has ",
          entry.tensor->bytes, " bytes, ", entry.written, " were given");
  file_.write(0, std::as_bytes(std::span(layout_.head)));
  file_.sync();
}

}  // namespace signround

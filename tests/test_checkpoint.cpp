#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "io/checkpoint.h"
#include "io/output_dir.h"
#include "scratch.h"

using namespace signround;

namespace {

void write_tensors(const Path& path, const std::vector<std::string>& names) {
  std::vector<TensorInfo> tensors;
  for (const std::string& name : names) tensors.push_back({name, DType::u8, {static_cast<i64>(name.size())}, 0, 0});
  SafetensorsWriter writer(path, tensors);
  for (const std::string& name : names) writer.write(name, std::as_bytes(std::span(name)));  // its own name is its content
  writer.finish();
}

std::string content_of(const Checkpoint& checkpoint, const std::string& name) {
  std::string content(checkpoint.at(name).bytes, '\0');
  checkpoint.read(name, std::as_writable_bytes(std::span(content)));
  return content;
}

std::string text_of(const Path& path) { return read_file(path, u64{1} << 20); }

// Two shards, a and b in the first, c in the second, with this weight_map.
std::string error_with_index(const std::string& index) {
  const TempDir scratch;
  write_tensors(scratch / "one.safetensors", {"a", "b"});
  write_tensors(scratch / "two.safetensors", {"c"});
  write_file(scratch / "model.safetensors.index.json", index);
  return error_of([&] { Checkpoint{scratch.path}; });
}

}  // namespace

TEST_CASE("checkpoint: one file, in a directory or alone") {
  const TempDir scratch;
  write_tensors(scratch / "model.safetensors", {"weight.b", "weight.a"});
  write_file(scratch / "config.json", R"({"model_type":"llama","hidden_size":64})");
  const Checkpoint model(scratch.path);
  CHECK(model.config().integer("hidden_size") == 64);
  REQUIRE(model.tensors().size() == 2);
  CHECK(model.tensors()[0]->name == "weight.a");
  CHECK(content_of(model, "weight.b") == "weight.b");
  std::string part(3, '\0');
  model.read_part("weight.b", 2, std::as_writable_bytes(std::span(part)));
  CHECK(part == "igh");
  CHECK(model.find("weight.c") == nullptr);
  CHECK(error_of([&] { model.at("weight.c"); }) == scratch.path.string() + ": has no tensor \"weight.c\"");
  CHECK(model.file_of("weight.a") == scratch / "model.safetensors");

  const Checkpoint file(scratch / "model.safetensors");
  CHECK(content_of(file, "weight.a") == "weight.a");
  CHECK(file.side_files().empty());
  CHECK(contains(error_of([&] { file.config(); }), "model.safetensors: has no config.json"));
}

TEST_CASE("checkpoint: what is missing or broken is named") {
  const TempDir scratch;
  CHECK(error_of([&] { Checkpoint{scratch / "absent"}; }) == (scratch / "absent").string() + ": no such file or directory");
  CHECK(contains(error_of([&] { Checkpoint{scratch.path}; }), "has neither model.safetensors nor model.safetensors.index.json"));
  write_file(scratch / "pytorch_model.bin", "x");
  CHECK(contains(error_of([&] { Checkpoint{scratch.path}; }), "convert its pytorch_model.bin to safetensors first"));
  write_tensors(scratch / "model.safetensors", {"a"});
  write_file(scratch / "config.json", "{\n\"a\":}");
  CHECK(error_of([&] { Checkpoint{scratch.path}; }) ==
        (scratch / "config.json").string() + ": byte 6 (line 2, column 5): expected a value, found '}'");
  std::filesystem::remove(scratch / "config.json");
  std::filesystem::remove(scratch / "model.safetensors");
  std::filesystem::create_symlink("nowhere", scratch / "model.safetensors");
  CHECK(error_of([&] { Checkpoint{scratch.path}; }) == (scratch / "model.safetensors").string() + ": no such file");
  REQUIRE(::mkfifo((scratch / "pipe").c_str(), 0600) == 0);
  CHECK(contains(error_of([&] { Checkpoint{scratch / "pipe"}; }), "is no regular file"));
}

TEST_CASE("checkpoint: shards") {
  const TempDir scratch;
  const Path blobs = scratch / "blobs", model = scratch / "model";
  make_directories(blobs);
  make_directories(model);
  write_tensors(blobs / "123", {"a", "b"});
  write_tensors(model / "two.safetensors", {"c", "unlisted"});
  std::filesystem::create_symlink("../blobs/123", model / "one.safetensors");  // as in a Hugging Face cache
  write_file(
      model / "model.safetensors.index.json",
      R"({"metadata":{"total_size":-5},"weight_map":{"c":"two.safetensors","a":"one.safetensors","b":"one.safetensors"}})");
  const Checkpoint checkpoint(model);
  CHECK(checkpoint.files().size() == 2);
  CHECK(checkpoint.tensors().size() == 4);
  for (const char* name : {"a", "b", "c", "unlisted"}) CHECK(content_of(checkpoint, name) == name);
  CHECK(checkpoint.file_of("b").filename() == "one.safetensors");
}

TEST_CASE("checkpoint: rules of the index") {
  const std::string rest = R"("b":"one.safetensors","c":"two.safetensors"}})";
  CHECK(error_with_index(R"({"weight_map":{"a":"one.safetensors",)" + rest) == "");
  for (const char* name : {"", ".", "..", "../one.safetensors", "/etc/passwd", "x/one.safetensors", "..\\\\x", "a\\u0000b"}) {
    CAPTURE(name);
    const std::string error = error_with_index(cat(R"({"weight_map":{"a":")", name, "\",", rest));
    CHECK(contains(error, "index.json: weight_map: tensor \"a\": "));
    CHECK(contains(error, "is no plain file name"));
  }
  CHECK(contains(error_with_index(R"({"weight_map":{"a":"three.safetensors",)" + rest), "three.safetensors: no such file"));
  CHECK(contains(error_with_index(R"({"weight_map":{"a":"two.safetensors",)" + rest), "tensor \"a\": is not in two.safetensors"));
  CHECK(contains(error_with_index(R"({"weight_map":{"d":"two.safetensors",)" + rest), "tensor \"d\": is not in two.safetensors"));
  CHECK(contains(error_with_index(R"({"weight_map":{"a":1,)" + rest), "tensor \"a\": expected a string, found 1"));
  CHECK(contains(error_with_index(R"({"weight_map":{"a":"one.safetensors","a":"one.safetensors",)" + rest), "occurs twice"));
  CHECK(contains(error_with_index(R"({"weight_map":{}})"), "weight_map is empty"));
  CHECK(contains(error_with_index(R"({"weight_map":[]})"), "key \"weight_map\": expected an object"));
  CHECK(contains(error_with_index("{}"), "key \"weight_map\" is missing"));
  CHECK(contains(error_with_index("{"), "expected a key"));

  const TempDir scratch;
  write_tensors(scratch / "one.safetensors", {"a", "b"});
  write_tensors(scratch / "two.safetensors", {"b"});
  write_file(scratch / "model.safetensors.index.json", R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  CHECK(contains(error_of([&] { Checkpoint{scratch.path}; }), "two.safetensors: tensor \"b\": is in one.safetensors too"));
}

TEST_CASE("checkpoint: side files") {
  const TempDir scratch;
  write_tensors(scratch / "model.safetensors", {"a"});
  const std::vector<std::string> wanted = {"LICENSE",
                                           "LICENSE.txt",
                                           "chat_template.jinja",
                                           "generation_config.json",
                                           "merges.txt",
                                           "preprocessor_config.json",
                                           "special_tokens_map.json",
                                           "tokenizer.json",
                                           "tokenizer.model",
                                           "tokenizer_config.json",
                                           "vocab.json"};
  for (const std::string& name : wanted) write_file(scratch / name, name);
  for (const char* name : {"README.md", "config.json", "tokenizer_x.py", "modeling_x.py", ".gitattributes"})
    write_file(scratch / name, "{}");
  make_directories(scratch / "tokenizer_folder");
  const auto found = [&] {
    std::vector<std::string> names;
    for (const Path& path : Checkpoint(scratch.path).side_files()) names.push_back(path.filename().string());
    return names;
  };
  CHECK(found() == wanted);

  // Code goes with a model that transformers does not have.
  write_file(scratch / "config.json", R"({"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}})");
  std::vector<std::string> with_code = wanted;
  with_code.insert(with_code.end(), {"modeling_x.py", "tokenizer_x.py"});
  std::sort(with_code.begin(), with_code.end());
  CHECK(found() == with_code);
}

TEST_CASE("output directory: appears whole at commit, and not before") {
  const TempDir scratch;
  const Path out = scratch / "new/out";
  write_file(scratch / "LICENSE", std::string(3'000'000, 'L'));
  {
    OutputDir output(out.string() + "/", false, scratch.path);  // the slash is how shells complete a name
    CHECK(output.path() == out);
    CHECK(output.file("gptq/model.safetensors") == scratch / "new/out.partial/gptq/model.safetensors");
    write_tensors(output.file("gptq/model.safetensors"), {"a"});
    output.write("gptq/config.json", "{}");
    output.copy(scratch / "LICENSE", "LICENSE");
    CHECK(!std::filesystem::exists(out));
    CHECK(contains(error_of(ErrorKind::usage, [&] { OutputDir(out, false, scratch.path); }), "another run is writing it"));
    output.commit();
  }
  CHECK(content_of(Checkpoint(out / "gptq"), "a") == "a");
  CHECK(text_of(out / "gptq/config.json") == "{}");
  CHECK(read_file(out / "LICENSE", 1u << 22) == read_file(scratch / "LICENSE", 1u << 22));
  CHECK(list_directory(out).size() == 2);  // no mark of the unfinished state is left
  CHECK(list_directory(scratch / "new").size() == 1);
}

TEST_CASE("output directory: nothing is left of a run that fails") {
  const TempDir scratch;
  { OutputDir(scratch / "out", false, scratch.path).write("config.json", "{}"); }
  CHECK(list_directory(scratch.path).empty());
}

TEST_CASE("output directory: an existing one is refused, or replaced at the very end") {
  const TempDir scratch;
  const Path out = scratch / "out", model = scratch / "model";
  make_directories(out);
  make_directories(model);
  write_file(out / "config.json", "old");
  CHECK(contains(error_of(ErrorKind::usage, [&] { OutputDir(out, false, model); }),
                 "exists; name another output or replace it with --force"));
  CHECK(!std::filesystem::exists(scratch / "out.partial"));
  {
    OutputDir output(out, true, model);
    output.write("config.json", "half");
  }
  CHECK(text_of(out / "config.json") == "old");
  {
    OutputDir output(out, true, model);
    output.write("tokenizer.json", "new");
    CHECK(text_of(out / "config.json") == "old");
    output.commit();
  }
  CHECK(list_directory(out) == std::vector<Path>{out / "tokenizer.json"});
  CHECK(list_directory(scratch.path) == std::vector<Path>{model, out});

  CHECK(contains(error_of(ErrorKind::usage, [&] { OutputDir(model, true, model); }), "holds the model that is read"));
  CHECK(contains(error_of(ErrorKind::usage, [&] { OutputDir(scratch.path, true, model); }), "holds the model that is read"));
  std::filesystem::create_directory_symlink("model", scratch / "link");
  CHECK(contains(error_of(ErrorKind::usage, [&] { OutputDir(scratch / "link", true, model); }), "holds the model that is read"));
  write_file(scratch / "file", "x");
  CHECK(contains(error_of(ErrorKind::usage, [&] { OutputDir(scratch / "file", true, model); }), "is no directory"));
  CHECK(contains(error_of(ErrorKind::usage, [&] { OutputDir("", true, model); }), "is no name for a directory"));
  CHECK(contains(error_of(ErrorKind::usage, [&] { OutputDir("/", true, model); }), "is no name for a directory"));
  make_directories(scratch / "out.replaced");
  CHECK(contains(error_of(ErrorKind::usage, [&] { OutputDir(out, true, model); }), "out.replaced: is in the way"));
}

TEST_CASE("output directory: left-overs") {
  const TempDir scratch;
  const Path out = scratch / "out", partial = scratch / "out.partial";
  make_directories(partial);
  write_file(partial / "thesis.txt", "mine");
  CHECK(contains(error_of(ErrorKind::usage, [&] { OutputDir(out, true, scratch.path); }), "was not left by an unfinished run"));
  CHECK(text_of(partial / "thesis.txt") == "mine");
  write_file(partial / ".signround-partial", "");  // as a run that was killed leaves it
  OutputDir output(out, false, scratch / "model");
  CHECK(!std::filesystem::exists(partial / "thesis.txt"));
  output.commit();
  CHECK(list_directory(scratch.path) == std::vector<Path>{out});
}

namespace {

int calls_until_fault = 0;

int fail_when_due(std::string_view) { return calls_until_fault-- == 0 ? ENOSPC : 0; }

struct FaultAfter {
  explicit FaultAfter(int calls) {
    calls_until_fault = calls;
    set_fault_hook(fail_when_due);
  }
  ~FaultAfter() { set_fault_hook(nullptr); }
};

void write_model(const Path& out, const Path& source) {
  OutputDir output(out, true, source);
  write_tensors(output.file("model.safetensors"), {"a", "b"});
  output.write("config.json", "{}");
  output.copy(source / "LICENSE", "LICENSE");
  output.commit();
}

}  // namespace

TEST_CASE("output directory: whichever operation fails, the old state or the new one is there, and whole") {
  for (const bool replace : {false, true}) {
    CAPTURE(replace);
    int n = 0;
    for (bool failed = true; failed; ++n) {
      CAPTURE(n);
      const TempDir scratch;
      const Path out = scratch / "out", source = scratch / "source";
      make_directories(source);
      write_file(source / "LICENSE", "free");
      if (replace) {
        make_directories(out);
        write_file(out / "config.json", "old");
      }
      std::string error;
      {
        const FaultAfter fault(n);
        error = error_of(ErrorKind::io, [&] { write_model(out, source); });
      }
      failed = error != "";
      CHECK((!failed || contains(error, "No space left on device")));
      CHECK(!std::filesystem::exists(scratch / "out.partial"));
      const bool is_new = std::filesystem::exists(out / "model.safetensors");
      CHECK((is_new || failed));
      if (is_new) {
        CHECK(content_of(Checkpoint(out), "b") == "b");
        CHECK(text_of(out / "config.json") == "{}");
        CHECK(text_of(out / "LICENSE") == "free");
      } else {
        CHECK(std::filesystem::exists(out) == replace);
        if (replace) CHECK(text_of(out / "config.json") == "old");
        CHECK(!std::filesystem::exists(scratch / "out.replaced"));
      }
    }
    CHECK(n > 15);
  }
}

TEST_CASE("file: too little space is an error that says where and how much") {
  const TempDir scratch;
  const FaultAfter fault(1);  // after "create"
  const std::string error = error_of(ErrorKind::io, [&] { write_file(scratch / "x", "12345"); });
  CHECK(error.starts_with((scratch / "x").string() + ": cannot write: No space left on device (5 bytes needed, "));
  CHECK(contains(error, " are free)"));
}

TEST_CASE("file: an atomic write leaves the old content or the new one") {
  const TempDir scratch;
  const Path path = scratch / "report.html";
  write_file_atomically(path, "old");
  for (int n = 0; n < 4; ++n) {  // create, write, sync, rename
    const FaultAfter fault(n);
    CHECK(error_of(ErrorKind::io, [&] { write_file_atomically(path, "new"); }) != "");
    CHECK(text_of(path) == "old");
    CHECK(list_directory(scratch.path).size() == 1);
  }
  write_file_atomically(path, "new");
  CHECK(text_of(path) == "new");
}

TEST_CASE("file: limits and kinds of errors") {
  const TempDir scratch;
  write_file(scratch / "x", "12345");
  CHECK(read_file(scratch / "x", 5) == "12345");
  CHECK(error_of([&] { read_file(scratch / "x", 4); }) == (scratch / "x").string() + ": has 5 bytes, the limit is 4");
  CHECK(contains(error_of([&] { read_file(scratch / "x/y", 4); }), "no such file"));
  CHECK(contains(error_of(ErrorKind::io, [&] { write_file(scratch / "absent/y", ""); }),
                 "cannot create: No such file or directory"));
  CHECK(
      contains(error_of(ErrorKind::io, [&] { make_directories(scratch / "x/y"); }), "cannot create directory: Not a directory"));
  CHECK(contains(error_of(ErrorKind::io, [&] { list_directory(scratch / "absent"); }), "cannot list"));
}

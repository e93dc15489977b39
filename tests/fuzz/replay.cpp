// Stands in for libFuzzer: runs the fuzzer it is linked with once over every file of the directories that it is given.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
  std::size_t files = 0;
  std::filesystem::path current;
  try {
    for (int i = 1; i < argc; ++i)
      for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
        if (!entry.is_regular_file()) continue;
        current = entry.path();
        std::ifstream file(current, std::ios::binary);
        const std::string bytes{std::istreambuf_iterator<char>(file), {}};
        LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
        ++files;
      }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s\n", current.c_str(), e.what());
    return 1;
  }
  std::printf("%s: %zu inputs\n", std::filesystem::path(argv[0]).filename().c_str(), files);
  return files > 0 ? 0 : 1;
}

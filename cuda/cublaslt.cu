#include "cuda/cublaslt.h"

#include <dlfcn.h>

#include "base/error.h"

namespace signround::cuda {
namespace {

struct Loaded {
  CublasLt functions{};
  std::string why;  // not, if so

  Loaded() {
    const std::string name = cat("libcublasLt.so.", CUBLAS_VER_MAJOR);
    void* library = nullptr;
    for (const std::string& path : {name, "/usr/local/cuda/lib64/" + name})
      if (!library) library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      why = cat(name, " is not found: install cuBLAS ", CUBLAS_VER_MAJOR, " or name its folder in LD_LIBRARY_PATH");
      return;
    }
    const auto bind = [&]<class F>(F& function, const char* symbol) {
      function = reinterpret_cast<F>(dlsym(library, symbol));
      if (!function && why.empty()) why = cat(name, " has no ", symbol, ": it is not the library this program was built for");
    };
    bind(functions.create, "cublasLtCreate");
    bind(functions.destroy, "cublasLtDestroy");
    bind(functions.version, "cublasLtGetVersion");
    bind(functions.status_string, "cublasLtGetStatusString");
    bind(functions.desc_create, "cublasLtMatmulDescCreate");
    bind(functions.desc_set, "cublasLtMatmulDescSetAttribute");
    bind(functions.desc_destroy, "cublasLtMatmulDescDestroy");
    bind(functions.layout_create, "cublasLtMatrixLayoutCreate");
    bind(functions.layout_destroy, "cublasLtMatrixLayoutDestroy");
    bind(functions.preference_create, "cublasLtMatmulPreferenceCreate");
    bind(functions.preference_set, "cublasLtMatmulPreferenceSetAttribute");
    bind(functions.preference_destroy, "cublasLtMatmulPreferenceDestroy");
    bind(functions.heuristic, "cublasLtMatmulAlgoGetHeuristic");
    bind(functions.algo_get, "cublasLtMatmulAlgoConfigGetAttribute");
    bind(functions.matmul, "cublasLtMatmul");
  }
};

}  // namespace

const CublasLt* cublaslt(std::string* why) {
  static const Loaded loaded;
  if (why) *why = loaded.why;
  return loaded.why.empty() ? &loaded.functions : nullptr;
}

}  // namespace signround::cuda

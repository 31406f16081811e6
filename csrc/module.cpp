// The Python module zonocuda._C: build information. Loading it registers the ops with the dispatcher.
#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
  info["compiler"] =
#if defined(__clang__)
      "clang " __clang_version__;
#else
      "g++ " __VERSION__;
#endif
  info["flags"] = ZONOCUDA_FLAGS;
  info["torch"] = ZONOCUDA_TORCH;
#ifdef ZONOCUDA_WITH_CUDA
  info["cuda"] = ZONOCUDA_CUDA_VERSION;
  info["cuda_architectures"] = ZONOCUDA_CUDA_ARCHITECTURES;
#else
  info["cuda"] = py::none();
  info["cuda_architectures"] = py::none();
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native ops of zonocuda (registered with the torch dispatcher) and facts about their build.";
  m.def("build_info", &build_info,
        "Compiler, flags, torch version, CUDA version and architectures of this build; None for what it lacks.");
}

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

// The widest instruction set of this machine that the CPU kernels have a version for (csrc/cpu/rows.cpp).
const char* cpu_capability() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) {
    return "x86-64-v4 (AVX-512)";
  }
  if (__builtin_cpu_supports("x86-64-v3")) {
    return "x86-64-v3 (AVX2)";
  }
#endif
  return "default";
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native ops of zonocuda (registered with the torch dispatcher) and facts about their build.";
  m.def("cpu_capability", &cpu_capability, "The instruction set that the CPU kernels use on this machine.");
  m.def("build_info", &build_info,
        "Compiler, flags, torch version, CUDA version and architectures of this build; None for what it lacks.");
}

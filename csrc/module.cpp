// The Python module zonocuda._C: facts about the build, in Python's limited API, so that one binary serves every
// Python. Loading it registers the ops with the dispatcher; tensors never pass through here.
#include <Python.h>

#include "common/stream.h"
#include "cpu/targets.h"

#ifndef ZONOCUDA_WITH_CUDA
#define ZONOCUDA_CUDA_VERSION nullptr
#define ZONOCUDA_CUDA_ARCHITECTURES nullptr
#endif

namespace {

PyObject* build_info(PyObject*, PyObject*) {
#if defined(__clang__)
  const char* compiler = "clang " __clang_version__;
#else
  const char* compiler = "g++ " __VERSION__;
#endif
  return Py_BuildValue("{s:s,s:s,s:s,s:z,s:z}", "compiler", compiler, "flags", ZONOCUDA_FLAGS, "torch", ZONOCUDA_TORCH,
                       "cuda", ZONOCUDA_CUDA_VERSION, "cuda_architectures", ZONOCUDA_CUDA_ARCHITECTURES);
}

PyObject* cpu_capability(PyObject*, PyObject*) { return Py_BuildValue("s", zonocuda::cpu::instruction_set()); }

PyObject* has_cuda_stream(PyObject*, PyObject*) { return PyBool_FromLong(zonocuda::stream_of_device() != nullptr); }

PyMethodDef kMethods[] = {
    {"build_info", build_info, METH_NOARGS,
     "Compiler, flags, torch version, CUDA version and architectures of this build; None for what it lacks."},
    {"cpu_capability", cpu_capability, METH_NOARGS, "The instruction set that the CPU kernels use on this machine."},
    {"has_cuda_stream", has_cuda_stream, METH_NOARGS,
     "Whether the torch of this process tells CUDA kernels their stream."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef kModule = {
    PyModuleDef_HEAD_INIT,
    "_C",
    "Native ops of zonocuda (registered with the torch dispatcher) and facts about their build.",
    0,
    kMethods,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit__C() { return PyModuleDef_Init(&kModule); }

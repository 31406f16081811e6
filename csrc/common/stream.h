// The current CUDA stream: the one thing that the stable ABI of torch 2.11 offers only as a symbol of libtorch_cuda.
#pragma once

#include <dlfcn.h>

#include "stable.h"

namespace zonocuda {

using StreamOfDevice = AOTITorchError (*)(int32_t device_index, void** stream);

/// torch's aoti_torch_get_current_cuda_stream, null where the torch of this process has no CUDA.
///
/// It is looked up in the library that torch has loaded. Linking it would make the extension need a library that a
/// torch without CUDA lacks; a weak symbol binds only where the linker keeps a library that it sees no use of.
inline StreamOfDevice stream_of_device() {
  static const StreamOfDevice found = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    void* symbol = library == nullptr ? nullptr : dlsym(library, "aoti_torch_get_current_cuda_stream");
    return reinterpret_cast<StreamOfDevice>(symbol);
  }();
  return found;
}

}  // namespace zonocuda

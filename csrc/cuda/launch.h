// What every .cu file needs to launch: the current stream, the launch check, grid sizes, scratch memory.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <optional>

#include "../common/stable.h"
#include "../common/stream.h"
#include "../math/index.h"

namespace zonocuda::cuda {

constexpr int64_t kMaxBlocks = 1 << 20;  // of one grid dimension x; kernels loop over what lies beyond

inline cudaStream_t current_stream(const Tensor& t) {
  STD_TORCH_CHECK(stream_of_device() != nullptr, "zonocuda: the installed torch has no CUDA");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(stream_of_device()(t.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

/// Makes the device of a tensor current, and holds its current stream, for one op.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const Tensor& t) : guard_(t.get_device_index()), stream_(current_stream(t)) {}

  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

inline void check_launch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, op, ": CUDA launch failed: ", cudaGetErrorString(error));
}

inline void check_cuda(const char* what, cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "zonocuda: ", what, " failed: ", cudaGetErrorString(error));
}

inline unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>(std::clamp<int64_t>(ceil_div(items, per_block), 1, kMaxBlocks));
}

template <class T>
const T* data_or_null(const std::optional<Tensor>& t) {
  return t.has_value() ? t->const_data_ptr<T>() : nullptr;
}

}  // namespace zonocuda::cuda

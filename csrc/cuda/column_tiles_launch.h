// Host side of column_tiles.cuh: the device's limit, and the launch.
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

#include "column_tiles.cuh"
#include "columns_launch.h"

namespace zonocuda::cuda {

/// Bytes of shared memory that a block may ask for on the device of a tensor; asked once, of every device.
inline int64_t shared_limit(const Tensor& t) {
  static const std::vector<int> limits = [] {
    int count = 0;
    check_cuda("cudaGetDeviceCount", cudaGetDeviceCount(&count));
    std::vector<int> found(static_cast<size_t>(count));
    for (int device = 0; device < count; ++device) {
      check_cuda("cudaDeviceGetAttribute",
                 cudaDeviceGetAttribute(&found[device], cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    }
    return found;
  }();
  return limits.at(static_cast<size_t>(t.get_device_index()));
}

/// ZONOCUDA_RELU_LAUNCHES is 1 or 2 where somebody measures which is faster; it is read once. The bits are the same.
inline Launches chosen_launches() {
  static const Launches chosen = [] {
    const char* const text = std::getenv("ZONOCUDA_RELU_LAUNCHES");
    const std::string value = text ? text : "";
    STD_TORCH_CHECK(value.empty() || value == "1" || value == "2", "zonocuda: ZONOCUDA_RELU_LAUNCHES must be 1, 2 or ",
                    "unset, got ", value);
    return value.empty() ? Launches::by_rule : value == "1" ? Launches::one : Launches::two;
  }();
  return chosen;
}

/// The pass over generators of shape s, whose memory `like` has: true where one launch does it all, false where two are
/// better (tile_width) and nothing was done.
template <class T, class Pass>
bool one_pass(const char* op, const Sizes& s, const Pass& pass, const Tensor& like, cudaStream_t stream) {
  const Layout layout = layout_of(s);
  const int64_t limit = shared_limit(like);
  const int64_t width = tile_width(layout, sizeof(T), Pass::kSources, Pass::kFactors, limit, chosen_launches());
  if (width == 0) {
    return false;
  }
  const int columns = static_cast<int>(width / sizeof(T));
  const size_t bytes = static_cast<size_t>(tile_bytes(layout, width, Pass::kSources, Pass::kFactors));
  with_vector<T>(s, {pass.sources[0], pass.sources[Pass::kSources - 1], pass.out}, [&](auto v) {
    const auto kernel = one_pass_kernel<T, v.value, Pass>;
    // The same values at every launch, so that threads may launch at the same time.
    check_cuda("cudaFuncSetAttribute",
               cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(limit)));
    check_cuda("cudaFuncSetAttribute", cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                                            cudaSharedmemCarveoutMaxShared));
    kernel<<<blocks_for(layout.neurons(), columns), kThreads, bytes, stream>>>(layout, columns, pass);
    check_launch(op);
  });
  return true;
}

}  // namespace zonocuda::cuda

#pragma once

#include "windows.cuh"

namespace zonocuda::cuda {

/// generators[b, k, c, y, x] = the patch there, 0 elsewhere. Grid: x over the positions of each batch element's map
/// (looped), y over strips of symbols (looped); block (kLanes, kStrips). A thread keeps its position (c, y, x) and
/// passes from symbol to symbol. Writes each number once, reads the patches: bound by memory bandwidth.
template <class T>
__global__ void window_dense_kernel(Windows s, const int64_t* corners, const T* patches, T* generators) {
  const int64_t groups = ceil_div(s.map(), kLanes);
  for (int64_t group = blockIdx.x; group < s.batch * groups; group += gridDim.x) {
    const int64_t b = group / groups;
    const int64_t place = group % groups * kLanes + threadIdx.x;
    if (place >= s.map()) {
      continue;
    }
    const int64_t c = place / s.plane();
    const int64_t y = place / s.width % s.height, x = place % s.width;
    const int64_t stride = int64_t(gridDim.y) * kStrips;
#pragma unroll 4
    for (int64_t k = int64_t(blockIdx.y) * kStrips + threadIdx.y; k < s.symbols; k += stride) {
      const int64_t t = y - near_corner(corners[2 * k], s.rows, 0, s.height);
      const int64_t u = x - near_corner(corners[2 * k + 1], s.columns, 0, s.width);
      const bool inside = between(0, t, s.rows) && between(0, u, s.columns);
      const int64_t generator = b * s.symbols + k;
      generators[generator * s.map() + place] =
          inside ? patches[((generator * s.channels + c) * s.rows + t) * s.columns + u] : T(0);
    }
  }
}

/// the generator's own map, at the window's place
template <class T>
struct WindowGatherMap {
  const T* maps;
  int64_t size;  // of one map

  __device__ T operator()(int64_t, int64_t generator, int64_t, int64_t place) const {
    return maps[generator * size + place];
  }
};

}  // namespace zonocuda::cuda

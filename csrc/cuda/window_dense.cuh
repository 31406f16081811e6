#pragma once

#include "windows.cuh"

namespace zonocuda::cuda {

/// generators[b, k, c, y, x] = the patch there, 0 elsewhere. Grid: x over V positions at a time, of one row, of each
/// batch element's map (looped), y over lists of symbols (looped); block (kLanes, kStrips): its threads list the
/// corners of as many symbols, then each keeps its positions (c, y, x) and passes from symbol to symbol. Writes each
/// number once, 16 bytes at a time where V numbers take as many, reads the patches: bound by memory bandwidth.
/// kMapFlight symbols are loaded before the first is stored, see map_rows_kernel.
template <class T, class I, int V>
__global__ void window_dense_kernel(WindowsOf<I> s, const int64_t* corners, const T* patches, T* generators) {
  constexpr int kFlight = kMapFlight<V>;
  __shared__ Listed<I> listed[kMapListed];
  const I size = s.map(), patch = s.patch(), groups = ceil_div(size, I(kLanes * V));
  for (I group = blockIdx.x; group < s.batch * groups; group += gridDim.x) {
    const I b = group / groups;
    const I place = ((group - b * groups) * kLanes + threadIdx.x) * V;
    const I line = place / s.width, c = line / s.height;
    const I y = line - c * s.height, x = place - line * s.width;
    for (I first = I(blockIdx.y) * kMapListed; first < s.symbols; first += I(gridDim.y) * kMapListed) {
      list_corners(s, corners, first, listed);
      __syncthreads();
      const int symbols = place < size ? int(smaller(kMapListed, s.symbols - first)) : 0;
      for (int i = threadIdx.y; i < symbols; i += kFlight * kStrips) {
        Pack<T, V> values[kFlight] = {};
#pragma unroll
        for (int r = 0; r < kFlight; ++r) {
          if (i + r * kStrips < symbols) {
            const Listed<I> w = listed[i + r * kStrips];
            const I t = y - w.row, u = x - w.column;
            if (is_below<I>(t, s.rows)) {
              const I from = (b * s.symbols + first + i + r * kStrips) * patch + (c * s.rows + t) * s.columns + u;
#pragma unroll
              for (int j = 0; j < V; ++j) {
                if (is_below<I>(u + j, s.columns)) {
                  values[r].at[j] = patches[from + j];
                }
              }
            }
          }
        }
#pragma unroll
        for (int r = 0; r < kFlight; ++r) {
          if (i + r * kStrips < symbols) {
            store<T, V>(generators + (b * s.symbols + first + i + r * kStrips) * size + place, values[r]);
          }
        }
      }
      __syncthreads();
    }
  }
}

/// the generator's own map, at the window's place
template <class T>
struct WindowGatherMap {
  const T* maps;

  template <int V, class I>
  __device__ Pack<T, V> own(I) const {
    return {};
  }
  template <class I>
  __device__ I map_of(I, I generator) const {
    return generator;
  }
  __device__ T operator()(T, T there) const { return there; }
};

}  // namespace zonocuda::cuda

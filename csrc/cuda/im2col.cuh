#pragma once

#include "../math/im2col.h"
#include "columns.cuh"

namespace zonocuda::cuda {

constexpr int kImageChannels = 8;  // of an image that a thread sums at once

/// columns[(c, tap), (n, output)] = what the output's window sees of image n at that tap, 0 outside. A thread owns a
/// column and passes taps and channels, so that a warp reads and writes neighbouring numbers, and asks once for each
/// tap whether it lies on the map. Grid: x over columns (looped), y over strips of channels. Writes each number once
/// and reads what it sees of the image from the cache, where neighbouring outputs overlap: bound by memory bandwidth.
/// kUnroll channels are loaded before the first is stored, see map_rows_kernel. I: see is_narrow.
template <class T, class I>
__global__ void im2col_kernel(Im2colOf<I> s, const T* x, T* columns) {
  const I count = s.columns(), outputs = s.outputs(), plane = s.plane(), taps = s.taps();
  const I stride = I(gridDim.x) * blockDim.x;
  for (I i = I(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const I n = i / outputs, output = i - n * outputs;
    const I line = output / s.x.out;
    const I z0 = line / s.y.out * s.z.stride - s.z.padding, y0 = line % s.y.out * s.y.stride - s.y.padding;
    const I x0 = (output - line * s.x.out) * s.x.stride - s.x.padding;
    I tap = 0;
    for (I v_z = 0; v_z < s.z.kernel; ++v_z) {
      for (I v_y = 0; v_y < s.y.kernel; ++v_y) {
        for (I v_x = 0; v_x < s.x.kernel; ++v_x, ++tap) {
          const I at_z = z0 + v_z * s.z.dilation, at_y = y0 + v_y * s.y.dilation, at_x = x0 + v_x * s.x.dilation;
          const bool inside = is_below(at_z, s.z.in) && is_below(at_y, s.y.in) && is_below(at_x, s.x.in);
          const I from = inside ? n * s.channels * plane + (at_z * s.y.in + at_y) * s.x.in + at_x : I(0);
          for (I c = blockIdx.y; c < s.channels; c += kUnroll * gridDim.y) {
            T values[kUnroll] = {};
#pragma unroll
            for (int r = 0; r < kUnroll; ++r) {
              const I channel = c + r * I(gridDim.y);
              if (inside && channel < s.channels) {
                values[r] = x[from + channel * plane];
              }
            }
#pragma unroll
            for (int r = 0; r < kUnroll; ++r) {
              const I channel = c + r * I(gridDim.y);
              if (channel < s.channels) {
                columns[(channel * taps + tap) * count + i] = values[r];
              }
            }
          }
        }
      }
    }
  }
}

/// x[n, c, position] = the sum, tap after tap, of the columns that see the position. A thread owns a position of an
/// image and passes kImageChannels channels at a time, so that a warp reads and writes neighbouring numbers: no
/// atomics. Grid: x over positions (looped), y over groups of channels (looped). Reads and writes each number once:
/// bound by memory bandwidth.
template <class T, class I>
__global__ void im2col_backward_kernel(Im2colOf<I> s, const T* columns, T* x) {
  const I count = s.columns(), outputs = s.outputs(), plane = s.plane(), taps = s.taps();
  const I stride = I(gridDim.x) * blockDim.x;
  for (I i = I(blockIdx.x) * blockDim.x + threadIdx.x; i < s.images * plane; i += stride) {
    const I n = i / plane, position = i - n * plane;
    const I line = position / s.x.in;
    const I p_z = line / s.y.in, p_y = line % s.y.in, p_x = position - line * s.x.in;
    for (I c = I(blockIdx.y) * kImageChannels; c < s.channels; c += I(gridDim.y) * kImageChannels) {
      T sums[kImageChannels] = {};
      I tap = 0;
      for (I v_z = 0; v_z < s.z.kernel; ++v_z) {
        const I i_z = s.z.output(p_z, v_z);
        for (I v_y = 0; v_y < s.y.kernel; ++v_y) {
          const I i_y = s.y.output(p_y, v_y);
          for (I v_x = 0; v_x < s.x.kernel; ++v_x, ++tap) {
            const I i_x = s.x.output(p_x, v_x);
            if (i_z < 0 || i_y < 0 || i_x < 0) {
              continue;
            }
            const I from = (c * taps + tap) * count + n * outputs + (i_z * s.y.out + i_y) * s.x.out + i_x;
#pragma unroll
            for (int r = 0; r < kImageChannels; ++r) {
              if (c + r < s.channels) {
                sums[r] += columns[from + r * taps * count];
              }
            }
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kImageChannels; ++r) {
        if (c + r < s.channels) {
          x[(n * s.channels + c + r) * plane + position] = sums[r];
        }
      }
    }
  }
}

}  // namespace zonocuda::cuda

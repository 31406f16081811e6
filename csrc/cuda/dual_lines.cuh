// Every sum has an order that its length alone decides, as in dual_relu.cuh: no atomics.
#pragma once

#include "../math/dual_lines.h"
#include "dual_relu.cuh"

namespace zonocuda::cuda {

constexpr int kLineSums = 4;  // of a neuron, over the rows: of both slopes and both offsets

/// One part of the lines, [batch, 1 or rows, features].
template <class T>
struct LinePart {
  const T* data;
  bool per_row;
};

/// Without `upper` both lines have the slope `lower`.
template <class T>
struct LinesArgs {
  int64_t batch, rows, features;
  const T* v;
  LinePart<T> lower, below, above, upper;

  ZONOCUDA_HD int64_t parts() const { return features > 0 ? ceil_div(features, kDualPart) : 1; }
  ZONOCUDA_HD int64_t segments() const { return rows > 0 ? ceil_div(rows, kDualSegment) : 1; }
};

/// The numbers of one entry, or of a neuron that its rows share.
template <class T>
struct LinePair {
  T lower, below, above, upper;

  __device__ LinePair() : lower(T(0)), below(T(0)), above(T(0)), upper(T(0)) {}

  /// Those of the parts that have numbers for single entries (`per_row`), or of the others, which rows share.
  __device__ void take(const LinesArgs<T>& a, int64_t at, bool per_row) {
    auto part = [&](const LinePart<T>& from, T& to) {
      if (from.data && from.per_row == per_row) {
        to = from.data[at];
      }
    };
    part(a.lower, lower);
    part(a.below, below);
    part(a.above, above);
    part(a.upper, upper);
  }
  __device__ T over(const LinesArgs<T>& a) const { return a.upper.data ? upper : lower; }
};

/// A block owns a part of the features of up to kDualRows rows (looped), a thread kDualColumns of them: what rows share
/// is read once. low and high [batch, rows, parts] get the sums over a part. Block (kThreads). Reads v and the numbers
/// of single entries and writes the image once: bound by memory bandwidth. kPerRow: a part has such numbers.
template <class T, bool kPerRow>
__global__ void dual_lines_kernel(LinesArgs<T> a, int rows_of_block, T* image, T* low, T* high) {
  __shared__ T sums[2][kDualRows][kThreads / kLanes];
  const int64_t parts = a.parts(), groups = ceil_div(a.rows, rows_of_block);
  for (int64_t i = blockIdx.x; i < a.batch * groups * parts; i += gridDim.x) {
    const int64_t part = i % parts, b = i / parts / groups, first = i / parts % groups * rows_of_block;
    const int count = int(first + rows_of_block < a.rows ? rows_of_block : a.rows - first);
    const int64_t n = part * kDualPart + threadIdx.x;
    LinePair<T> lines[kDualColumns];
#pragma unroll
    for (int c = 0; c < kDualColumns; ++c) {
      if (n + c * kThreads < a.features) {
        lines[c].take(a, b * a.features + n + c * kThreads, false);
      }
    }
    for (int r = 0; r < count; ++r) {
      const int64_t entry = generator_offset(b, first + r, n, a.rows, a.features);
      T lows = T(0), highs = T(0);
#pragma unroll
      for (int c = 0; c < kDualColumns; ++c) {
        if (n + c * kThreads < a.features) {
          if (kPerRow) {
            lines[c].take(a, entry + c * kThreads, true);
          }
          const LinesStep<T> s =
              lines_step(a.v[entry + c * kThreads], lines[c].lower, lines[c].over(a), lines[c].below, lines[c].above);
          image[entry + c * kThreads] = s.image;
          lows += s.low;
          highs += s.high;
        }
      }
      lows = sum_lanes(lows);
      highs = sum_lanes(highs);
      if (threadIdx.x % kLanes == 0) {
        sums[0][r][threadIdx.x / kLanes] = lows;
        sums[1][r][threadIdx.x / kLanes] = highs;
      }
    }
    __syncthreads();
    if (threadIdx.x < 2 * count) {
      const int r = threadIdx.x / 2;
      const T* warps = sums[threadIdx.x % 2][r];
      T sum = warps[0];
      for (int w = 1; w < kThreads / kLanes; ++w) {
        sum += warps[w];
      }
      (threadIdx.x % 2 ? high : low)[(b * a.rows + first + r) * parts + part] = sum;
    }
    __syncthreads();
  }
}

/// Null pointers among the outputs but the first: nobody wants them, or the part is not there.
template <class T>
struct LinesGrad {
  const T *grad_image, *grad_low, *grad_high;
  T *out_v, *out_lower, *out_below, *out_above, *out_upper;
};

/// A block owns kLanes neurons and a segment of their rows, a thread every kStrips-th row of one. The strips, then the
/// segments, are added up in order: gradients of the parts that rows share. One segment is finished here; several leave
/// their sums in `partial` [segments, kLineSums, batch, features]. Grid: x over groups of neurons (looped), y over
/// segments (looped); block (kLanes, kStrips). Reads v, its gradient and the parts of single entries and writes their
/// gradients once, in rows of kLanes neighbours: bound by memory bandwidth.
template <class T>
__global__ void dual_lines_backward_kernel(LinesArgs<T> a, LinesGrad<T> g, T* partial) {
  __shared__ T strips[kLineSums][kStrips][kLanes];
  const int64_t groups = ceil_div(a.features, kLanes), segments = a.segments();
  T* const outs[kLineSums] = {g.out_lower, g.out_below, g.out_above, g.out_upper};
  const bool per_row[kLineSums] = {a.lower.per_row, a.below.per_row, a.above.per_row, a.upper.per_row};
  for (int64_t group = blockIdx.x; group < a.batch * groups; group += gridDim.x) {
    const int64_t b = group / groups, n = group % groups * kLanes + threadIdx.x;
    const bool inside = n < a.features;
    const int64_t neuron = b * a.features + n;
    LinePair<T> lines;
    if (inside) {
      lines.take(a, neuron, false);
    }
    for (int64_t segment = blockIdx.y; segment < segments; segment += gridDim.y) {
      const int64_t end = (segment + 1) * kDualSegment, last = end < a.rows ? end : a.rows;
      T sums[kLineSums] = {};
      for (int64_t r = segment * kDualSegment + threadIdx.y; inside && r < last; r += kStrips) {
        const int64_t row = b * a.rows + r, entry = generator_offset(b, r, n, a.rows, a.features);
        lines.take(a, entry, true);
        const T v = a.v[entry];
        const LinesStepGrad<T> d = lines_step_backward(v, lines.lower, lines.over(a), lines.below, lines.above,
                                                       g.grad_image[entry], g.grad_low[row], g.grad_high[row]);
        g.out_v[entry] = d.v;
        const bool takes = !a.upper.data || !(v < T(0));
        const T found[kLineSums] = {takes ? d.slope : T(0), d.below, d.above, takes ? T(0) : d.slope};
#pragma unroll
        for (int j = 0; j < kLineSums; ++j) {
          if (per_row[j] && outs[j]) {
            outs[j][entry] = found[j];
          } else {
            sums[j] += found[j];
          }
        }
      }
      if (!g.out_lower) {
        continue;
      }
      for (int j = 0; j < kLineSums; ++j) {
        strips[j][threadIdx.y][threadIdx.x] = sums[j];
      }
      __syncthreads();
      if (threadIdx.y == 0 && inside) {
        for (int j = 0; j < kLineSums; ++j) {
          for (int strip = 1; strip < kStrips; ++strip) {
            sums[j] += strips[j][strip][threadIdx.x];
          }
          if (segments > 1) {
            partial[(segment * kLineSums + j) * a.batch * a.features + neuron] = sums[j];
          } else if (outs[j] && !per_row[j]) {
            outs[j][neuron] = sums[j];
          }
        }
      }
      __syncthreads();
    }
  }
}

/// Adds the segments of `partial` up. A thread owns a neuron (looped).
template <class T>
__global__ void dual_lines_finish_kernel(LinesArgs<T> a, LinesGrad<T> g, const T* partial) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x, neurons = a.batch * a.features;
  T* const outs[kLineSums] = {g.out_lower, g.out_below, g.out_above, g.out_upper};
  const bool per_row[kLineSums] = {a.lower.per_row, a.below.per_row, a.above.per_row, a.upper.per_row};
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < neurons; i += stride) {
    for (int j = 0; j < kLineSums; ++j) {
      if (outs[j] && !per_row[j]) {
        T sum = T(0);
        for (int64_t segment = 0; segment < a.segments(); ++segment) {
          sum += partial[(segment * kLineSums + j) * neurons + i];
        }
        outs[j][i] = sum;
      }
    }
  }
}

}  // namespace zonocuda::cuda

// Every sum has an order that its length alone decides, whatever the device and however the blocks share the work: no
// atomics.
#pragma once

#include "../math/dual_relu.h"
#include "../math/index.h"
#include "columns.cuh"

namespace zonocuda::cuda {

constexpr int kDualColumns = 4;                         // features of a thread in the forward pass
constexpr int64_t kDualPart = kDualColumns * kThreads;  // features that are added up before those of other parts join
constexpr int kDualRows = 16;                           // rows that a block of the forward pass may take on
constexpr int64_t kDualSegment = 64;                    // rows that are added up before those of other segments join
constexpr int kDualSums = 6;                            // of a neuron, over the rows: see dual_relu_backward_kernel

/// lam and 2 mu.
template <class T>
struct DualLine {
  T multiplier, twice;

  __device__ DualLine() : multiplier(T(0)), twice(T(0)) {}
  __device__ DualLine(const Relaxation<T>& r) : multiplier(r.multiplier), twice(T(2) * r.offset) {}
};

/// Slopes [batch, 1 or rows, features] of one side; null: tied.
template <class T>
struct DualSide {
  const T* slope;
  bool per_row;

  /// That all rows share.
  __device__ DualLine<T> line(T l, T u, int64_t neuron) const {
    return relax_relu(l, u, slope ? slope[neuron] : T(0), !slope);
  }
  /// That of one entry alone.
  __device__ DualLine<T> line_at(T l, T u, int64_t entry) const { return relax_relu(l, u, slope[entry], false); }
};

/// `one`: both signs have the slopes of `negative`.
template <class T>
struct DualArgs {
  int64_t batch, rows, features;
  const T *v, *lower, *upper;
  DualSide<T> negative, nonnegative;
  bool one;

  ZONOCUDA_HD int64_t parts() const { return features > 0 ? ceil_div(features, kDualPart) : 1; }
  ZONOCUDA_HD int64_t segments() const { return rows > 0 ? ceil_div(rows, kDualSegment) : 1; }
};

/// The sum over the lanes of a warp, in lane 0.
template <class T>
__device__ T sum_lanes(T x) {
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
    x += __shfl_down_sync(0xffffffffu, x, lanes);
  }
  return x;
}

/// A block owns a part of the features of up to kDualRows rows (looped), a thread kDualColumns of them: their lines,
/// which rows may share, are found once. low and high [batch, rows, parts] get the sums over a part. Block (kThreads).
/// Reads v and the slopes of single entries and writes the image once: bound by memory bandwidth. kPerRow: a side has
/// slopes for single entries.
template <class T, bool kPerRow>
__global__ void dual_relu_kernel(DualArgs<T> a, int rows_of_block, T* image, T* low, T* high) {
  __shared__ T sums[2][kDualRows][kThreads / kLanes];
  const int64_t parts = a.parts(), groups = ceil_div(a.rows, rows_of_block);
  for (int64_t i = blockIdx.x; i < a.batch * groups * parts; i += gridDim.x) {
    const int64_t part = i % parts, b = i / parts / groups, first = i / parts % groups * rows_of_block;
    const int count = int(first + rows_of_block < a.rows ? rows_of_block : a.rows - first);
    const int64_t n = part * kDualPart + threadIdx.x;
    T l[kDualColumns], u[kDualColumns];
    DualLine<T> below[kDualColumns], above[kDualColumns];
#pragma unroll
    for (int c = 0; c < kDualColumns; ++c) {
      const int64_t column = n + c * kThreads, neuron = b * a.features + column;
      l[c] = column < a.features ? a.lower[neuron] : T(0);
      u[c] = column < a.features ? a.upper[neuron] : T(0);
      if (column < a.features && !a.negative.per_row) {
        below[c] = a.negative.line(l[c], u[c], neuron);
      }
      if (column < a.features && !a.one && !a.nonnegative.per_row) {
        above[c] = a.nonnegative.line(l[c], u[c], neuron);
      }
    }
    for (int r = 0; r < count; ++r) {
      const int64_t entry = generator_offset(b, first + r, n, a.rows, a.features);
      T v[kDualColumns];
#pragma unroll
      for (int c = 0; c < kDualColumns; ++c) {
        v[c] = n + c * kThreads < a.features ? a.v[entry + c * kThreads] : T(0);
      }
      T lows = T(0), highs = T(0);
#pragma unroll
      for (int c = 0; c < kDualColumns; ++c) {
        const bool inside = n + c * kThreads < a.features;
        if (kPerRow && inside && a.negative.per_row) {
          below[c] = a.negative.line_at(l[c], u[c], entry + c * kThreads);
        }
        if (kPerRow && inside && !a.one && a.nonnegative.per_row) {
          above[c] = a.nonnegative.line_at(l[c], u[c], entry + c * kThreads);
        }
        const DualLine<T> other = a.one ? below[c] : above[c];
        const DualStep<T> s = dual_step(v[c], below[c].multiplier, below[c].twice, other.multiplier, other.twice);
        if (inside) {
          image[entry + c * kThreads] = s.image;
        }
        lows += s.low;
        highs += s.high;
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

/// low[row] and high[row]: the sums over the parts of [rows, parts]; `high` null: nobody wants it. A warp owns a row
/// (looped). Block (kLanes, kStrips).
template <class T>
__global__ void add_parts_kernel(int64_t rows, int64_t parts, const T* low_parts, const T* high_parts, T* low,
                                 T* high) {
  const int64_t stride = int64_t(gridDim.x) * kStrips;
  for (int64_t row = int64_t(blockIdx.x) * kStrips + threadIdx.y; row < rows; row += stride) {
    T lows = T(0), highs = T(0);
    for (int64_t part = threadIdx.x; part < parts; part += kLanes) {
      lows += low_parts[row * parts + part];
      highs += high ? high_parts[row * parts + part] : T(0);
    }
    lows = sum_lanes(lows);
    highs = sum_lanes(highs);
    if (threadIdx.x == 0) {
      low[row] = lows;
      if (high) {
        high[row] = highs;
      }
    }
  }
}

/// Null pointers among the outputs but the first: nobody wants them (bounds), or tied (slopes).
template <class T>
struct DualGrad {
  const T *grad_image, *grad_low, *grad_high;
  Kink kink;
  T tolerance;
  T *out_v, *out_lower, *out_upper, *out_negative, *out_nonnegative;
};

/// Of one entry v: what the backward pass reads.
template <class T>
struct DualEntry {
  T v, image, low, high;

  __device__ DualEntry() : v(T(0)), image(T(0)), low(T(0)), high(T(0)) {}
  __device__ DualEntry(const DualArgs<T>& a, const DualGrad<T>& g, int64_t row, int64_t n)
      : v(a.v[row * a.features + n]),
        image(g.grad_image[row * a.features + n]),
        low(g.grad_low[row]),
        high(g.grad_high[row]) {}
};

/// The sums of a neuron over its rows, once they are complete, become the gradients of its bounds and shared slopes.
template <class T>
__device__ void finish_neuron(const DualArgs<T>& a, const DualGrad<T>& g, int64_t neuron, const T (&sums)[kDualSums]) {
  T lower = sums[0], upper = sums[1];
  auto finish = [&](const DualSide<T>& side, T* out, T multiplier, T offset) {
    const RelaxationGrad<T> d =
        relax_relu_backward(a.lower[neuron], a.upper[neuron], side.slope ? side.slope[neuron] : T(0), !side.slope,
                            g.kink, g.tolerance, multiplier, offset);
    lower += d.lower;
    upper += d.upper;
    if (out) {
      out[neuron] = d.slope;
    }
  };
  if (!a.negative.per_row) {
    finish(a.negative, g.out_negative, sums[2], sums[3]);
  }
  if (!a.one && !a.nonnegative.per_row) {
    finish(a.nonnegative, g.out_nonnegative, sums[4], sums[5]);
  }
  if (g.out_lower) {
    g.out_lower[neuron] = lower;
    g.out_upper[neuron] = upper;
  }
}

/// A block owns kLanes neurons and a segment of their rows, a thread every kStrips-th row of one. The strips, then the
/// segments, are added up in order: gradients of l and u from entries with slopes of their own; those of lam and of mu,
/// of either side, from the others. One segment is finished here; several leave their sums in `partial` [segments,
/// kDualSums, batch, features]. Grid: x over groups of neurons (looped), y over segments (looped); block (kLanes,
/// kStrips). Reads v, its gradient and the slopes and writes v's gradient once, in rows of kLanes neighbours: bound by
/// memory bandwidth. kPerRow: a side has slopes for single entries.
template <class T, bool kPerRow>
__global__ void dual_relu_backward_kernel(DualArgs<T> a, DualGrad<T> g, T* partial) {
  __shared__ T strips[kDualSums][kStrips][kLanes];
  const int64_t groups = ceil_div(a.features, kLanes), segments = a.segments();
  for (int64_t group = blockIdx.x; group < a.batch * groups; group += gridDim.x) {
    const int64_t b = group / groups, n = group % groups * kLanes + threadIdx.x;
    const bool inside = n < a.features;
    const int64_t neuron = b * a.features + n;
    const T l = inside ? a.lower[neuron] : T(0), u = inside ? a.upper[neuron] : T(0);
    const bool stable = is_dead(l, u) || is_active(l, u);
    DualLine<T> below, above;
    if (inside && !a.negative.per_row) {
      below = a.negative.line(l, u, neuron);
    }
    if (inside && !a.one && !a.nonnegative.per_row) {
      above = a.nonnegative.line(l, u, neuron);
    }
    for (int64_t segment = blockIdx.y; segment < segments; segment += gridDim.y) {
      const int64_t end = (segment + 1) * kDualSegment, last = end < a.rows ? end : a.rows;
      T sums[kDualSums] = {};
      int64_t r = segment * kDualSegment + threadIdx.y;
      DualEntry<T> next;
      if (inside && r < last) {
        next = DualEntry<T>(a, g, b * a.rows + r, n);
      }
      for (; inside && r < last; r += kStrips) {
        const DualEntry<T> x = next;
        if (r + kStrips < last) {
          next = DualEntry<T>(a, g, b * a.rows + r + kStrips, n);  // on its way while this one is worked on
        }
        const int64_t entry = generator_offset(b, r, n, a.rows, a.features);
        if (kPerRow && a.negative.per_row) {
          below = a.negative.line_at(l, u, entry);
        }
        if (kPerRow && !a.one && a.nonnegative.per_row) {
          above = a.nonnegative.line_at(l, u, entry);
        }
        const DualLine<T> other = a.one ? below : above;
        const DualStepGrad<T> d = dual_step_backward(x.v, below.multiplier, below.twice, other.multiplier, other.twice,
                                                     x.image, x.low, x.high);
        g.out_v[entry] = d.v;
        if (!g.out_lower) {
          continue;
        }
        const bool first = a.one || x.v < T(0);
        auto add = [&](const DualSide<T>& side, T* out, bool belongs, T& multiplier, T& offset) {
          if (!kPerRow || !side.per_row) {
            multiplier += belongs ? d.multiplier : T(0);
            offset += belongs ? d.offset : T(0);
          } else if (stable) {
            out[entry] = T(0);
          } else {
            const RelaxationGrad<T> own = relax_relu_backward(l, u, side.slope[entry], false, g.kink, g.tolerance,
                                                              belongs ? d.multiplier : T(0), belongs ? d.offset : T(0));
            sums[0] += own.lower;
            sums[1] += own.upper;
            out[entry] = own.slope;
          }
        };
        add(a.negative, g.out_negative, first, sums[2], sums[3]);
        if (!a.one) {
          add(a.nonnegative, g.out_nonnegative, !first, sums[4], sums[5]);
        }
      }
      if (!g.out_lower) {
        continue;
      }
      for (int j = 0; j < kDualSums; ++j) {
        strips[j][threadIdx.y][threadIdx.x] = sums[j];
      }
      __syncthreads();
      if (threadIdx.y == 0 && inside) {
        for (int j = 0; j < kDualSums; ++j) {
          for (int strip = 1; strip < kStrips; ++strip) {
            sums[j] += strips[j][strip][threadIdx.x];
          }
          if (segments > 1) {
            partial[(segment * kDualSums + j) * a.batch * a.features + neuron] = sums[j];
          }
        }
        if (segments == 1) {
          finish_neuron(a, g, neuron, sums);
        }
      }
      __syncthreads();
    }
  }
}

/// Adds the segments of `partial` up and finishes. A thread owns a neuron (looped).
template <class T>
__global__ void dual_relu_finish_kernel(DualArgs<T> a, DualGrad<T> g, const T* partial) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x, neurons = a.batch * a.features;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < neurons; i += stride) {
    T sums[kDualSums] = {};
    for (int64_t segment = 0; segment < a.segments(); ++segment) {
      for (int j = 0; j < kDualSums; ++j) {
        sums[j] += partial[(segment * kDualSums + j) * neurons + i];
      }
    }
    finish_neuron(a, g, i, sums);
  }
}

}  // namespace zonocuda::cuda

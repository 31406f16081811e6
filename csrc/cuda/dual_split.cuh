// Rows of one batch element that are different subproblems: as dual_relu.cuh, with splits and multipliers for single
// entries, and sums for the lower bounds alone. The order of a sum is that of dual_relu.cuh.
#pragma once

#include "../math/dual_split.h"
#include "dual_relu.cuh"

namespace zonocuda::cuda {

/// The rows, and what is chosen for single entries; `multipliers` null: zeros.
template <class T>
struct SplitArgs {
  DualArgs<T> rows;
  const int8_t* splits;
  const T* multipliers;

  __device__ T multiplier(int64_t entry) const { return multipliers ? multipliers[entry] : T(0); }
};

/// The slope of a side that rows share.
template <class T>
__device__ T shared_slope(const DualSide<T>& side, T l, T u, int64_t neuron) {
  return side.slope ? side.slope[neuron] : tied_slope(l, u);
}

/// A block owns a part of the features of up to kDualRows rows (looped), a thread kDualColumns of them. low [batch,
/// rows, parts] gets the sums over a part. Block (kThreads). Reads v, splits, multipliers and the slopes of single
/// entries and writes the image once: bound by memory bandwidth.
template <class T>
__global__ void dual_split_kernel(SplitArgs<T> split, int rows_of_block, T* image, T* low) {
  __shared__ T sums[kDualRows][kThreads / kLanes];
  const DualArgs<T>& a = split.rows;
  const int64_t parts = a.parts(), groups = ceil_div(a.rows, rows_of_block);
  for (int64_t i = blockIdx.x; i < a.batch * groups * parts; i += gridDim.x) {
    const int64_t part = i % parts, b = i / parts / groups, first = i / parts % groups * rows_of_block;
    const int count = int(first + rows_of_block < a.rows ? rows_of_block : a.rows - first);
    const int64_t n = part * kDualPart + threadIdx.x;
    T l[kDualColumns], u[kDualColumns], below[kDualColumns], above[kDualColumns];
#pragma unroll
    for (int c = 0; c < kDualColumns; ++c) {
      const int64_t column = n + c * kThreads, neuron = b * a.features + column;
      const bool inside = column < a.features;
      l[c] = inside ? a.lower[neuron] : T(0);
      u[c] = inside ? a.upper[neuron] : T(0);
      below[c] = inside && !a.negative.per_row ? shared_slope(a.negative, l[c], u[c], neuron) : T(0);
      above[c] = inside && !a.one && !a.nonnegative.per_row ? shared_slope(a.nonnegative, l[c], u[c], neuron) : T(0);
    }
    for (int r = 0; r < count; ++r) {
      const int64_t entry = generator_offset(b, first + r, n, a.rows, a.features);
      T v[kDualColumns], beta[kDualColumns];
      int8_t splits[kDualColumns];
#pragma unroll
      for (int c = 0; c < kDualColumns; ++c) {
        const bool inside = n + c * kThreads < a.features;
        const int64_t at = entry + c * kThreads;
        v[c] = inside ? a.v[at] : T(0);
        splits[c] = inside ? split.splits[at] : int8_t(0);
        beta[c] = inside ? split.multiplier(at) : T(0);
      }
      T lows = T(0);
#pragma unroll
      for (int c = 0; c < kDualColumns; ++c) {
        const bool inside = n + c * kThreads < a.features;
        const int64_t at = entry + c * kThreads;
        const T negative = inside && a.negative.per_row ? a.negative.slope[at] : below[c];
        const T nonnegative = a.one ? negative : (inside && a.nonnegative.per_row ? a.nonnegative.slope[at] : above[c]);
        const SplitStep<T> s = split_step(v[c], splits[c], beta[c], l[c], u[c], negative, nonnegative);
        if (inside) {
          image[at] = s.image;
        }
        lows += s.low;
      }
      lows = sum_lanes(lows);
      if (threadIdx.x % kLanes == 0) {
        sums[r][threadIdx.x / kLanes] = lows;
      }
    }
    __syncthreads();
    if (threadIdx.x < count) {
      T sum = sums[threadIdx.x][0];
      for (int w = 1; w < kThreads / kLanes; ++w) {
        sum += sums[threadIdx.x][w];
      }
      low[(b * a.rows + first + threadIdx.x) * parts + part] = sum;
    }
    __syncthreads();
  }
}

/// Of one entry: what the backward pass reads whatever it is asked for.
template <class T>
struct SplitEntry {
  T v, beta, image, low;
  int8_t split;

  __device__ SplitEntry() : v(T(0)), beta(T(0)), image(T(0)), low(T(0)), split(0) {}
  __device__ SplitEntry(const SplitArgs<T>& a, const DualGrad<T>& g, int64_t row, int64_t n) {
    const int64_t entry = row * a.rows.features + n;
    v = a.rows.v[entry];
    beta = a.multiplier(entry);
    image = g.grad_image[entry];
    low = g.grad_low[row];
    split = a.splits[entry];
  }
};

/// As dual_relu_backward_kernel, with its blocks, grid and `partial`; `out_multipliers` may be null. `reduces`:
/// somebody wants sums over the rows. Reads v, its gradient, the splits, multipliers and slopes once and writes their
/// gradients, in rows of kLanes neighbours: bound by memory bandwidth.
template <class T>
__global__ void dual_split_backward_kernel(SplitArgs<T> split, DualGrad<T> g, T* out_multipliers, bool reduces,
                                           T* partial) {
  __shared__ T strips[kDualSums][kStrips][kLanes];
  const DualArgs<T>& a = split.rows;
  const int64_t groups = ceil_div(a.features, kLanes), segments = a.segments();
  const bool wants = reduces || g.out_negative || g.out_nonnegative;
  for (int64_t group = blockIdx.x; group < a.batch * groups; group += gridDim.x) {
    const int64_t b = group / groups, n = group % groups * kLanes + threadIdx.x;
    const bool inside = n < a.features;
    const int64_t neuron = b * a.features + n;
    const T l = inside ? a.lower[neuron] : T(0), u = inside ? a.upper[neuron] : T(0);
    T below = inside && !a.negative.per_row ? shared_slope(a.negative, l, u, neuron) : T(0);
    T above = inside && !a.one && !a.nonnegative.per_row ? shared_slope(a.nonnegative, l, u, neuron) : T(0);
    for (int64_t segment = blockIdx.y; segment < segments; segment += gridDim.y) {
      const int64_t end = (segment + 1) * kDualSegment, last = end < a.rows ? end : a.rows;
      T sums[kDualSums] = {};
      int64_t r = segment * kDualSegment + threadIdx.y;
      SplitEntry<T> next;
      if (inside && r < last) {
        next = SplitEntry<T>(split, g, b * a.rows + r, n);
      }
      for (; inside && r < last; r += kStrips) {
        const SplitEntry<T> x = next;
        if (r + kStrips < last) {
          next = SplitEntry<T>(split, g, b * a.rows + r + kStrips, n);  // on its way while this one is worked on
        }
        const int64_t entry = generator_offset(b, r, n, a.rows, a.features);
        below = a.negative.per_row ? a.negative.slope[entry] : below;
        above = !a.one && a.nonnegative.per_row ? a.nonnegative.slope[entry] : above;
        const SplitStepGrad<T> d =
            split_step_backward(x.v, x.split, x.beta, l, u, below, a.one ? below : above, x.image, x.low);
        g.out_v[entry] = d.v;
        if (out_multipliers) {
          out_multipliers[entry] = d.beta;
        }
        if (!wants) {
          continue;
        }
        auto add = [&](const DualSide<T>& side, T* out, T slope, T of_lam, T of_mu, T& multiplier, T& offset) {
          if (side.per_row) {
            const RelaxationGrad<T> own = relax_relu_backward(l, u, slope, false, g.kink, g.tolerance, of_lam, of_mu);
            sums[0] += own.lower;
            sums[1] += own.upper;
            if (out) {
              out[entry] = own.slope;
            }
          } else {
            multiplier += of_lam;
            offset += of_mu;
          }
        };
        const T of_negative = a.one ? d.lam_negative + d.lam_nonnegative : d.lam_negative;
        add(a.negative, g.out_negative, below, of_negative, d.offset, sums[2], sums[3]);
        if (!a.one) {
          add(a.nonnegative, g.out_nonnegative, above, d.lam_nonnegative, T(0), sums[4], sums[5]);
        }
      }
      if (!reduces) {
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

}  // namespace zonocuda::cuda

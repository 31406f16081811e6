#pragma once

#include "diagonal_linear.cuh"
#include "windows.cuh"

namespace zonocuda::cuda {

constexpr int kConvListed = kLanes * kStrips;  // symbols that a block looks at, at once
constexpr int kConvOutputs = 8;                // outputs at one place of the window that a thread owns

/// conv_place, with channel and group -1 for an index that is no neuron.
template <class I>
__device__ ConvPlaceOf<I> checked_place(const DiagonalConvOf<I>& s, int64_t feature) {
  return is_below<int64_t>(feature, s.features()) ? conv_place(s, I(feature)) : ConvPlaceOf<I>{-1, -1, 0, 0, 0, 0, 0};
}

/// The offset within the kernel of what window element (t, u) shows of a symbol's kernel; -1 if that is nothing, or
/// lies outside the map.
template <class I>
__device__ I seen_weight(const DiagonalConvOf<I>& s, const ConvPlaceOf<I>& p, I t, I u) {
  const I v_y = s.y.tap(p.phase_y, t), v_x = s.x.tap(p.phase_x, u);
  const bool inside = is_below<I>(p.corner_y + t, s.y.out) && is_below<I>(p.corner_x + u, s.x.out);
  return inside && v_y >= 0 && v_x >= 0 ? v_y * s.x.kernel + v_x : I(-1);
}

/// A number of positions as a multiple of the dilation and a rest: sums of two tell their kernel element undivided.
template <class I>
struct Dilated {
  I whole, rest;

  __device__ static Dilated of(I positions, I dilation) {
    const I whole = dilation == 1 ? positions : positions / dilation;
    return {whole, positions - whole * dilation};
  }
  /// ConvAxis::tap, of a phase and a distance.
  __device__ I plus(const Dilated& distance, const ConvAxisOf<I>& axis) const {
    const I over = rest + distance.rest;
    const I v = whole + distance.whole + (over == 0 ? 0 : 1);
    return (v < axis.kernel) & ((over == 0) | (over == axis.dilation)) ? v : I(-1);
  }
};

/// ConvPlace as the threads of diagonal_conv_kernel need it; `weight`: the offset of its channel's kernel in an
/// output's weights, `factor`: the coefficient, NaN where there is no place.
template <class T, class I>
struct alignas(16) ConvShown {
  I group, weight, corner_y, corner_x;
  Dilated<I> phase_y, phase_x;
  T factor;
};

/// How the elements of a patch are shared out: a warp takes `together` outputs at `width` places of the window, each of
/// its threads kConvOutputs of them.
template <class I>
struct ConvTiles {
  I width, together, pieces, chunks;  // pieces of the window; chunks of the outputs

  ZONOCUDA_HD explicit ConvTiles(const DiagonalConvOf<I>& s)
      : width(s.window() < kLanes ? s.window() : I(kLanes)),
        together(kLanes / width),
        pieces(ceil_div(s.window(), width)),
        chunks(ceil_div(s.outputs, I(together * kConvOutputs))) {}
};

/// patches[b, k] = coefficients[b, k] times the kernel as the symbol's window shows it, NaN for an index that is no
/// neuron. Grid: x over the tiles of the patches of each batch element (looped), y over lists of symbols (looped);
/// block (kLanes, kStrips): its threads prepare the places of as many symbols; then each keeps its place (t, u) and its
/// outputs, and passes from symbol to symbol. Writes each number once; the weight comes from the cache: bound by memory
/// bandwidth. I: see is_narrow.
template <class T, class I>
__global__ void diagonal_conv_kernel(DiagonalConvOf<I> s, const T* coefficients, const int64_t* index, const T* weight,
                                     T* patches) {
  __shared__ ConvShown<T, I> shown[kConvListed];
  const int thread = threadIdx.y * kLanes + threadIdx.x;
  const I window = s.window(), kernel = s.y.kernel * s.x.kernel, patch = s.patch();
  const I output_weights = s.group_inputs() * kernel;
  const ConvTiles<I> tiles(s);
  const I in_warp = I(threadIdx.x) / tiles.width;
  for (I item = blockIdx.x; item < s.batch * tiles.chunks * tiles.pieces; item += gridDim.x) {
    const I b = item / (tiles.chunks * tiles.pieces);
    const I place = item % tiles.pieces * tiles.width + threadIdx.x - in_warp * tiles.width;
    const I first_output = item / tiles.pieces % tiles.chunks * tiles.together * kConvOutputs + in_warp;
    const bool owns = in_warp < tiles.together && place < window;
    const I t = place / s.x.window(), u = place % s.x.window();
    const Dilated<I> distance_y = Dilated<I>::of(s.y.distance(t), s.y.dilation);
    const Dilated<I> distance_x = Dilated<I>::of(s.x.distance(u), s.x.dilation);
    I groups[kConvOutputs];  // of the outputs; of one that does not exist, none that a symbol has
    for (int r = 0; r < kConvOutputs; ++r) {
      const I o = first_output + r * tiles.together;
      groups[r] = owns && o < s.outputs ? o / s.group_outputs() : I(-2);
    }
    for (I first = I(blockIdx.y) * kConvListed; first < s.symbols; first += I(gridDim.y) * kConvListed) {
      if (first + thread < s.symbols) {
        const ConvPlaceOf<I> p = checked_place(s, index[first + thread]);
        shown[thread] = {p.group,
                         p.input * kernel,
                         p.corner_y,
                         p.corner_x,
                         Dilated<I>::of(p.phase_y, s.y.dilation),
                         Dilated<I>::of(p.phase_x, s.x.dilation),
                         p.group >= 0 ? coefficients[b * s.symbols + first + thread] : poison<T>()};
      }
      __syncthreads();
      const int listed = int(smaller(kConvListed, s.symbols - first));
      for (int i = threadIdx.y; i < listed; i += kStrips) {
        const ConvShown<T, I> p = shown[i];
        const I v_y = p.phase_y.plus(distance_y, s.y), v_x = p.phase_x.plus(distance_x, s.x);
        const bool sees =
            is_below<I>(p.corner_y + t, s.y.out) && is_below<I>(p.corner_x + u, s.x.out) && v_y >= 0 && v_x >= 0;
        const I in_output = p.weight + v_y * s.x.kernel + v_x;
        const I generator = (b * s.symbols + first + i) * patch + place;
        T values[kConvOutputs];
#pragma unroll
        for (int r = 0; r < kConvOutputs; ++r) {
          values[r] = p.group < 0 ? p.factor : T(0);
          if (sees && p.group == groups[r]) {
            values[r] = p.factor * weight[(first_output + r * tiles.together) * output_weights + in_output];
          }
        }
#pragma unroll
        for (int r = 0; r < kConvOutputs; ++r) {
          if (groups[r] >= 0) {
            patches[generator + (first_output + r * tiles.together) * window] = values[r];
          }
        }
      }
      __syncthreads();
    }
  }
}

/// grad_coefficients[b, k] = the sum of grad times what the patch shows of the kernel. A warp owns a symbol of a batch
/// element; its lanes take every 32nd element of the patch, and their sums are added in a tree. Grid: x over (b, k)
/// (looped); block (kLanes, kStrips). Reads the channels of grad that the symbol touches once: bound by memory
/// bandwidth.
template <class T, class I>
__global__ void diagonal_conv_coefficients_kernel(DiagonalConvOf<I> s, const T* grad, const int64_t* index,
                                                  const T* weight, T* grad_coefficients) {
  const I rows = s.y.window(), columns = s.x.window(), window = s.window(), kernel = s.y.kernel * s.x.kernel;
  const I patch = s.patch(), output_weights = s.group_inputs() * kernel;
  const I lane = threadIdx.x;
  const I step_o = kLanes / window, step_t = kLanes % window / columns, step_u = kLanes % window % columns;
  const I lane_o = lane / window, lane_t = lane % window / columns, lane_u = lane % window % columns;
  for (I i = I(blockIdx.x) * kStrips + threadIdx.y; i < s.batch * s.symbols; i += I(gridDim.x) * kStrips) {
    const ConvPlaceOf<I> p = checked_place(s, index[i % s.symbols]);
    T sum = T(0);
    if (p.channel >= 0) {
      const I first = p.group * s.group_outputs(), last = first + s.group_outputs();
      I o = first + lane_o, t = lane_t, u = lane_u;
      while (o < last) {
        const I seen = seen_weight(s, p, t, u);
        if (seen >= 0) {
          sum += grad[i * patch + o * window + t * columns + u] * weight[o * output_weights + p.input * kernel + seen];
        }
        o += step_o;  // the element 32 further on
        t += step_t;
        u += step_u;
        if (u >= columns) {
          u -= columns;
          ++t;
        }
        if (t >= rows) {
          t -= rows;
          ++o;
        }
      }
    }
    for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
      sum += __shfl_down_sync(0xffffffffu, sum, lanes);
    }
    if (threadIdx.x == 0) {
      grad_coefficients[i] = p.channel >= 0 ? sum : poison<T>();
    }
  }
}

/// partial[split, o, i, v_y, v_x] = the sum over the symbols of that split, in order, of coefficient times grad. Grid:
/// x over pieces of the kernels of each input channel (looped), y the split; block (kLanes, kStrips): its threads list
/// the symbols of the channel, and then each adds them for its own number of the weight. Reads each number of grad
/// about once (those of the symbol's group that lie on the map), and the index once for each piece: bound by the
/// memory's latency where symbols are few, by its bandwidth where they are many.
template <class T, class I>
__global__ void diagonal_conv_weight_kernel(DiagonalConvOf<I> s, int64_t splits, const T* grad, const T* coefficients,
                                            const int64_t* index, T* partial) {
  __shared__ ConvPlaceOf<I> places[kConvListed];
  __shared__ I symbols[kConvListed];
  __shared__ int counts[kStrips];
  const int thread = threadIdx.y * kLanes + threadIdx.x;
  const I kernel = s.y.kernel * s.x.kernel, patch = s.patch(), columns = s.x.window(), window = s.window();
  const I numbers = s.group_outputs() * kernel;  // that an input channel has in the weight
  const I pieces = ceil_div(numbers, I(kConvListed));
  const I first = I(int64_t(s.symbols) * blockIdx.y / splits);
  const I last = I(int64_t(s.symbols) * (blockIdx.y + 1) / splits);
  for (I item = blockIdx.x; item < s.channels * pieces; item += gridDim.x) {
    const I channel = item / pieces;
    const I number = (item - channel * pieces) * kConvListed + thread;
    const I group = channel / s.group_inputs(), input = channel - group * s.group_inputs();
    const I o = group * s.group_outputs() + number / kernel;
    const I v_y = number % kernel / s.x.kernel, v_x = number % s.x.kernel;
    T sum = T(0);
    for (I begin = first; begin < last; begin += kConvListed) {
      const I k = begin + thread;
      const ConvPlaceOf<I> place = k < last ? checked_place(s, index[k]) : ConvPlaceOf<I>{-1, -1, 0, 0, 0, 0, 0};
      int listed;
      const int at = place_in_block(place.channel == channel, counts, &listed);
      if (place.channel == channel) {
        places[at] = place;
        symbols[at] = k;
      }
      __syncthreads();
#pragma unroll 4
      for (int i = 0; i < listed; ++i) {
        const ConvPlaceOf<I>& p = places[i];
        const I t = s.y.position(p.phase_y, v_y), u = s.x.position(p.phase_x, v_x);
        const bool inside = is_below<I>(p.corner_y + t, s.y.out) && is_below<I>(p.corner_x + u, s.x.out);
        if (number < numbers && t >= 0 && u >= 0 && inside) {
          for (I b = 0; b < s.batch; ++b) {
            const I generator = b * s.symbols + symbols[i];
            sum += coefficients[generator] * grad[generator * patch + o * window + t * columns + u];
          }
        }
      }
      __syncthreads();
    }
    if (number < numbers) {
      partial[I(blockIdx.y) * s.weights() + s.weight_offset(o, input, v_y, v_x)] = sum;
    }
  }
}

}  // namespace zonocuda::cuda

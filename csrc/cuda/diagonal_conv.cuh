#pragma once

#include "diagonal_linear.cuh"
#include "windows.cuh"

namespace zonocuda::cuda {

constexpr int kConvListed = kLanes * kStrips;  // symbols that a block looks at, at once

/// conv_place, with channel -1 for an index that is no neuron.
__device__ inline ConvPlace checked_place(const DiagonalConv& s, int64_t feature) {
  return between(0, feature, s.features()) ? conv_place(s, feature) : ConvPlace{-1, 0, 0, 0, 0};
}

/// The offset in the weight of what window element (t, u) of an output shows of a symbol's kernel; -1 if that is
/// nothing, or lies outside the map.
__device__ inline int64_t seen_weight(const DiagonalConv& s, const ConvPlace& p, int64_t output, int64_t t, int64_t u) {
  const int64_t v_y = s.y.tap(p.phase_y, t), v_x = s.x.tap(p.phase_x, u);
  const bool inside = between(0, p.corner_y + t, s.y.out) && between(0, p.corner_x + u, s.x.out);
  return inside && v_y >= 0 && v_x >= 0 ? s.weight_offset(output, p.channel % s.group_inputs(), v_y, v_x) : -1;
}

/// patches[b, k] = coefficients[b, k] times the kernel as the symbol's window shows it, NaN for an index that is no
/// neuron. Grid: x over the elements of the patches of each batch element (looped), y over lists of symbols (looped);
/// block (kLanes, kStrips): its threads prepare the places of as many symbols; then each keeps its element (o, t, u)
/// and passes from symbol to symbol. Writes each number once; the weight comes from the cache: bound by memory
/// bandwidth.
template <class T>
__global__ void diagonal_conv_kernel(DiagonalConv s, const T* coefficients, const int64_t* index, const T* weight,
                                     T* patches) {
  __shared__ ConvPlace places[kConvListed];
  const int thread = threadIdx.y * kLanes + threadIdx.x;
  const int64_t groups = ceil_div(s.patch(), kLanes);
  for (int64_t group = blockIdx.x; group < s.batch * groups; group += gridDim.x) {
    const int64_t b = group / groups;
    const int64_t element = group % groups * kLanes + threadIdx.x;
    const int64_t o = element / s.window(), t = element / s.x.window() % s.y.window(), u = element % s.x.window();
    for (int64_t first = int64_t(blockIdx.y) * kConvListed; first < s.symbols;
         first += int64_t(gridDim.y) * kConvListed) {
      if (first + thread < s.symbols) {
        places[thread] = checked_place(s, index[first + thread]);
      }
      __syncthreads();
      const int listed = int(smaller(kConvListed, s.symbols - first));
      for (int i = threadIdx.y; i < listed && element < s.patch(); i += kStrips) {
        const ConvPlace p = places[i];
        const int64_t generator = b * s.symbols + first + i;
        T value = poison<T>();
        if (p.channel >= 0) {
          const bool own = p.channel / s.group_inputs() == o / s.group_outputs();
          const int64_t seen = own ? seen_weight(s, p, o, t, u) : -1;
          value = seen >= 0 ? coefficients[generator] * weight[seen] : T(0);
        }
        patches[generator * s.patch() + element] = value;
      }
      __syncthreads();
    }
  }
}

/// grad_coefficients[b, k] = the sum of grad times what the patch shows of the kernel. A warp owns a symbol of a batch
/// element; its lanes take every 32nd element of the patch, and their sums are added in a tree. Grid: x over (b, k)
/// (looped); block (kLanes, kStrips). Reads the channels of grad that the symbol touches once: bound by memory
/// bandwidth.
template <class T>
__global__ void diagonal_conv_coefficients_kernel(DiagonalConv s, const T* grad, const int64_t* index, const T* weight,
                                                  T* grad_coefficients) {
  const int64_t rows = s.y.window(), columns = s.x.window(), window = s.window();
  const int64_t step_o = kLanes / window, step_t = kLanes % window / columns, step_u = kLanes % window % columns;
  for (int64_t i = int64_t(blockIdx.x) * kStrips + threadIdx.y; i < s.batch * s.symbols;
       i += int64_t(gridDim.x) * kStrips) {
    const ConvPlace p = checked_place(s, index[i % s.symbols]);
    T sum = T(0);
    if (p.channel >= 0) {
      const int64_t first = p.channel / s.group_inputs() * s.group_outputs();
      const int64_t last = first + s.group_outputs();
      int64_t o = first + threadIdx.x / window, t = threadIdx.x % window / columns, u = threadIdx.x % window % columns;
      while (o < last) {
        const int64_t seen = seen_weight(s, p, o, t, u);
        if (seen >= 0) {
          sum += grad[i * s.patch() + o * window + t * columns + u] * weight[seen];
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
template <class T>
__global__ void diagonal_conv_weight_kernel(DiagonalConv s, int64_t splits, const T* grad, const T* coefficients,
                                            const int64_t* index, T* partial) {
  __shared__ ConvPlace places[kConvListed];
  __shared__ int64_t symbols[kConvListed];
  __shared__ int counts[kStrips];
  const int thread = threadIdx.y * kLanes + threadIdx.x;
  const int64_t kernel = s.y.kernel * s.x.kernel;
  const int64_t numbers = s.group_outputs() * kernel;  // that an input channel has in the weight
  const int64_t pieces = ceil_div(numbers, kConvListed);
  const int64_t first = s.symbols * blockIdx.y / splits;
  const int64_t last = s.symbols * (blockIdx.y + 1) / splits;
  for (int64_t item = blockIdx.x; item < s.channels * pieces; item += gridDim.x) {
    const int64_t channel = item / pieces;
    const int64_t number = item % pieces * kConvListed + thread;
    const int64_t o = channel / s.group_inputs() * s.group_outputs() + number / kernel;
    const int64_t v_y = number % kernel / s.x.kernel, v_x = number % s.x.kernel;
    T sum = T(0);
    for (int64_t begin = first; begin < last; begin += kConvListed) {
      const int64_t k = begin + thread;
      const ConvPlace place = k < last ? checked_place(s, index[k]) : ConvPlace{-1, 0, 0, 0, 0};
      int listed;
      const int at = place_in_block(place.channel == channel, counts, &listed);
      if (place.channel == channel) {
        places[at] = place;
        symbols[at] = k;
      }
      __syncthreads();
#pragma unroll 4
      for (int i = 0; i < listed; ++i) {
        const ConvPlace p = places[i];
        const int64_t t = s.y.position(p.phase_y, v_y), u = s.x.position(p.phase_x, v_x);
        const bool inside = between(0, p.corner_y + t, s.y.out) && between(0, p.corner_x + u, s.x.out);
        if (number < numbers && t >= 0 && u >= 0 && inside) {
          for (int64_t b = 0; b < s.batch; ++b) {
            const int64_t generator = b * s.symbols + symbols[i];
            sum += coefficients[generator] * grad[generator * s.patch() + o * s.window() + t * s.x.window() + u];
          }
        }
      }
      __syncthreads();
    }
    if (number < numbers) {
      partial[int64_t(blockIdx.y) * s.weights() + s.weight_offset(o, channel % s.group_inputs(), v_y, v_x)] = sum;
    }
  }
}

}  // namespace zonocuda::cuda

#pragma once

#include "../math/index.h"

namespace zonocuda::cuda {

constexpr int kTile = 32;     // rows and columns of a transposed tile
constexpr int kTileRows = 8;  // threadIdx.y: rows of a tile moved at once

/// A quiet NaN: what a symbol whose index is no neuron becomes.
template <class T>
__device__ T poison() {
  const T zero = T(0);
  return zero / zero;
}

struct DiagonalSizes {
  int64_t batch, symbols, in, out;
};

/// result[b, k, m] = coefficients[b, k] * weight[m, index[k]]. A block owns a tile of 32 symbols x 32 outputs of one
/// batch element; it reads weight along k (neighbouring indices are usually neighbouring columns), turns the tile in
/// shared memory, and writes along m. Grid: x over the tiles of all batch elements (looped); block (kTile, kTileRows).
template <class T>
__global__ void diagonal_linear_kernel(DiagonalSizes s, const T* coefficients, const int64_t* index, const T* weight,
                                       T* result) {
  __shared__ T tile[kTile][kTile + 1];
  const int64_t k_tiles = ceil_div(s.symbols, kTile);
  const int64_t m_tiles = ceil_div(s.out, kTile);
  for (int64_t t = blockIdx.x; t < s.batch * k_tiles * m_tiles; t += gridDim.x) {
    const int64_t b = t / (k_tiles * m_tiles);
    const int64_t k0 = t / m_tiles % k_tiles * kTile;
    const int64_t m0 = t % m_tiles * kTile;
    const int64_t k = k0 + threadIdx.x;
    if (k < s.symbols) {
      const int64_t column = index[k];
      const bool valid = column >= 0 && column < s.in;
      const T c = coefficients[b * s.symbols + k];
      for (int64_t j = threadIdx.y; j < kTile && m0 + j < s.out; j += kTileRows) {
        tile[j][threadIdx.x] = valid ? c * weight[(m0 + j) * s.in + column] : poison<T>();
      }
    }
    __syncthreads();
    const int64_t m = m0 + threadIdx.x;
    for (int64_t j = threadIdx.y; j < kTile && k0 + j < s.symbols; j += kTileRows) {
      if (m < s.out) {
        result[generator_offset(b, k0 + j, m, s.symbols, s.out)] = tile[threadIdx.x][j];
      }
    }
    __syncthreads();
  }
}

/// grad_coefficients[b, k] = sum_m grad[b, k, m] * weight[m, index[k]]. A block of kTile threads owns one (b, k):
/// strips of outputs are summed by thread and then in order. Grid: x over (b, k) (looped).
template <class T>
__global__ void diagonal_linear_coefficients_kernel(DiagonalSizes s, const T* grad, const int64_t* index,
                                                    const T* weight, T* grad_coefficients) {
  __shared__ T strips[kTile];
  for (int64_t i = blockIdx.x; i < s.batch * s.symbols; i += gridDim.x) {
    const int64_t column = index[i % s.symbols];
    const bool valid = column >= 0 && column < s.in;
    T sum = T(0);
    for (int64_t m = threadIdx.x; valid && m < s.out; m += kTile) {
      sum += grad[i * s.out + m] * weight[m * s.in + column];
    }
    strips[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int j = 1; j < kTile; ++j) {
        sum += strips[j];
      }
      grad_coefficients[i] = valid ? sum : poison<T>();
    }
    __syncthreads();
  }
}

/// grad_weight[m, index[k]] += sum_b coefficients[b, k] * grad[b, k, m]. A thread owns one output m and adds the
/// symbols in order, so that an index that occurs twice needs no atomics. Grid: x over outputs (looped).
template <class T>
__global__ void diagonal_linear_weight_kernel(DiagonalSizes s, const T* grad, const T* coefficients,
                                              const int64_t* index, T* grad_weight) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t m = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; m < s.out; m += stride) {
    for (int64_t i = 0; i < s.batch * s.symbols; ++i) {
      const int64_t column = index[i % s.symbols];
      if (column >= 0 && column < s.in) {
        grad_weight[m * s.in + column] += coefficients[i] * grad[i * s.out + m];
      }
    }
  }
}

}  // namespace zonocuda::cuda

#pragma once

#include <limits>

#include "../math/index.h"

namespace zonocuda::cuda {

constexpr int kTile = 32;     // rows and columns of a transposed tile
constexpr int kTileRows = 8;  // threadIdx.y: rows of a tile moved at once

/// A quiet NaN: what a symbol whose index is no neuron becomes.
template <class T>
__device__ T poison() {
  return std::numeric_limits<T>::quiet_NaN();
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

/// Where a symbol of each input column is: first[n] is the first symbol k with index[k] = n, last[n] the last one, as
/// ~k. All bits of both are 1 before; the smallest value stays, whichever thread comes first. A thread owns a symbol
/// (looped).
inline __global__ void find_symbols_kernel(DiagonalSizes s, const int64_t* index, unsigned long long* first,
                                           unsigned long long* last) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; k < s.symbols; k += stride) {
    const int64_t column = index[k];
    if (column >= 0 && column < s.in) {
      atomicMin(first + column, static_cast<unsigned long long>(k));
      atomicMin(last + column, ~static_cast<unsigned long long>(k));
    }
  }
}

constexpr int kTileShare = kTile / kTileRows;  // numbers of a tile for each thread

/// sums[i] += sum_b coefficients[b, k + i step_k] * grad[b, k + i step_k, m + i step_m], where these are there.
template <class T>
__device__ void add_weight_terms(const DiagonalSizes& s, const T* grad, const T* coefficients, int64_t k, int step_k,
                                 int64_t m, int step_m, T (&sums)[kTileShare]) {
  T terms[kTileShare] = {};
  for (int64_t b = 0; b < s.batch; ++b) {
    const int64_t row = b * s.symbols + k;
#pragma unroll
    for (int i = 0; i < kTileShare; ++i) {
      if (k + i * step_k < s.symbols && m + i * step_m < s.out) {
        terms[i] += coefficients[row + i * step_k] * grad[(row + i * step_k) * s.out + m + i * step_m];
      }
    }
  }
  for (int i = 0; i < kTileShare; ++i) {
    sums[i] += terms[i];
  }
}

/// grad_weight[m, index[k]] = the sum of the weight terms of all symbols with that index, in their order: the additions
/// of the CPU kernel. (Elsewhere it is 0 before.) A block owns a tile of 32 symbols x 32 outputs; it reads grad along
/// m, turns the tile in shared memory, and writes along k. The first symbol of a column writes it, and walks to the
/// last one where there are several. Grid: x over tiles (looped); block (kTile, kTileRows). Reads grad once and writes
/// the columns once: bound by memory bandwidth, but where indices occur twice far apart.
template <class T>
__global__ void diagonal_linear_weight_kernel(DiagonalSizes s, const T* grad, const T* coefficients,
                                              const int64_t* index, const unsigned long long* first,
                                              const unsigned long long* last, T* grad_weight) {
  __shared__ T tile[kTile][kTile + 1];
  const int64_t k_tiles = ceil_div(s.symbols, kTile), m_tiles = ceil_div(s.out, kTile);
  for (int64_t t = blockIdx.x; t < k_tiles * m_tiles; t += gridDim.x) {
    const int64_t k0 = t / m_tiles * kTile, m0 = t % m_tiles * kTile;
    T sums[kTileShare] = {};
    add_weight_terms(s, grad, coefficients, k0 + threadIdx.y, kTileRows, m0 + threadIdx.x, 0, sums);
    for (int i = 0; i < kTileShare; ++i) {
      tile[threadIdx.y + i * kTileRows][threadIdx.x] = sums[i];
    }
    __syncthreads();
    const int64_t k = k0 + threadIdx.x, m = m0 + threadIdx.y;
    const int64_t column = k < s.symbols ? index[k] : -1;
    if (column >= 0 && column < s.in && int64_t(first[column]) == k) {
      for (int i = 0; i < kTileShare; ++i) {
        sums[i] = tile[threadIdx.x][threadIdx.y + i * kTileRows];
      }
      const int64_t end = int64_t(~last[column]);
#pragma unroll 1
      for (int64_t other = k + 1; other <= end; ++other) {
        if (index[other] == column) {
          add_weight_terms(s, grad, coefficients, other, 0, m, kTileRows, sums);
        }
      }
#pragma unroll
      for (int i = 0; i < kTileShare; ++i) {
        if (m + i * kTileRows < s.out) {
          grad_weight[(m + i * kTileRows) * s.in + column] = sums[i];
        }
      }
    }
    __syncthreads();
  }
}

}  // namespace zonocuda::cuda

#pragma once

#include "../math/nonsmooth.h"

namespace zonocuda::cuda {

/// x [outer, length, inner]: a thread owns a column (outer, inner), reads it twice and writes a value and `words`
/// words of winners. Like torch.max, the first NaN is the only winner. Threads of a warp read neighbours where
/// inner > 1; where inner is 1 each walks a row of its own. Grid: x over columns (looped).
template <class T>
__global__ void nonsmooth_max_kernel(int64_t outer, int64_t length, int64_t inner, const T* x, T* values,
                                     int32_t* winners) {
  using W = Wide<T>;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x, words = word_count(length);
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < outer * inner; i += stride) {
    const T* column = x + i / inner * length * inner + i % inner;
    W best = W(column[0]);
    int64_t nan = best != best ? 0 : -1;
    for (int64_t l = 1; l < length && nan < 0; ++l) {
      const W v = W(column[l * inner]);
      nan = v != v ? l : -1;
      best = v > best || v != v ? v : best;
    }
    int32_t* word = winners + i / inner * words * inner + i % inner;
    for (int64_t w = 0; w < words; ++w) {
      uint32_t bits = 0;
      const int64_t count = length - w * kWordBits < kWordBits ? length - w * kWordBits : kWordBits;
      for (int64_t k = 0; k < count; ++k) {
        const int64_t l = w * kWordBits + k;
        bits |= uint32_t(W(column[l * inner]) == best || l == nan) << k;
      }
      word[w * inner] = int32_t(bits);
    }
    values[i] = T(best);
  }
}

/// A thread owns a column: reads its words twice, writes its gradients. Grid: x over columns (looped).
template <class T>
__global__ void nonsmooth_max_backward_kernel(int64_t outer, int64_t length, int64_t inner, const T* grad,
                                              const int32_t* winners, TieWeights weights, T* grad_x) {
  using W = Wide<T>;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x, words = word_count(length);
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < outer * inner; i += stride) {
    const Winners w{winners + i / inner * words * inner + i % inner, length, inner};
    const Tie tie = read_tie(w);
    T* column = grad_x + i / inner * length * inner + i % inner;
    const W g = W(grad[i]);
    for (int64_t l = 0; l < length; ++l) {
      column[l * inner] = w.has(l) ? T(tie_share(g, tie.count, l == tie.first, l == tie.last, weights)) : T(0);
    }
  }
}

}  // namespace zonocuda::cuda

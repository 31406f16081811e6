#include <algorithm>
#include <tuple>

#include "../common/arguments.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

constexpr int64_t kBlock = 32;  // rows and columns of a tile where one side is read along, the other across

void check_range(const char* op, const int64_t* index, int64_t symbols, int64_t features) {
  for (int64_t k = 0; k < symbols; ++k) {
    STD_TORCH_CHECK(index[k] >= 0 && index[k] < features, op, ": index[", k, "] = ", index[k], " is not one of the ",
                    features, " features");
  }
}

// result[b, k, m] = coefficients[b, k] * weight[m, index[k]], in square tiles: both sides stay in the cache.
template <class T>
void gather_kernel(const DiagonalLinear& d, const T* coefficients, const int64_t* index, const T* weight, T* result) {
  const int64_t tiles = ceil_div(d.symbols, kBlock);
  const int64_t grain = std::max<int64_t>(1, kGrain / (kBlock * std::max<int64_t>(1, d.out)));
  torch::stable::parallel_for(0, d.batch * tiles, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t b = t / tiles;
      const int64_t first = t % tiles * kBlock;
      const int64_t last = std::min(first + kBlock, d.symbols);
      for (int64_t m0 = 0; m0 < d.out; m0 += kBlock) {
        const int64_t m1 = std::min(m0 + kBlock, d.out);
        for (int64_t k = first; k < last; ++k) {
          const T c = coefficients[b * d.symbols + k];
          T* row = result + generator_offset(b, k, 0, d.symbols, d.out);
          const T* column = weight + index[k];
          for (int64_t m = m0; m < m1; ++m) {
            row[m] = c * column[m * d.in];
          }
        }
      }
    }
  });
}

// grad_coefficients[b, k] = sum_m grad[b, k, m] * weight[m, index[k]]
template <class T>
void grad_coefficients_kernel(const DiagonalLinearBackward& d, const T* grad, const int64_t* index, const T* weight,
                              T* grad_coefficients) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, d.out));
  torch::stable::parallel_for(0, d.batch * d.symbols, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* column = weight + index[i % d.symbols];
      T sum = T(0);
      for (int64_t m = 0; m < d.out; ++m) {
        sum += grad[i * d.out + m] * column[m * d.in];
      }
      grad_coefficients[i] = sum;
    }
  });
}

// grad_weight[m, index[k]] += sum_b coefficients[b, k] * grad[b, k, m]; a thread owns output rows m. Tiles are summed
// over the batch along the rows of grad and then added along the rows of the weight.
template <class T>
void grad_weight_kernel(const DiagonalLinearBackward& d, const T* grad, const T* coefficients, const int64_t* index,
                        T* grad_weight) {
  const int64_t grain = std::max(kBlock, kGrain / std::max<int64_t>(1, d.batch * d.symbols));
  torch::stable::parallel_for(0, d.out, grain, [&](int64_t begin, int64_t end) {
    for (int64_t m0 = begin; m0 < end; m0 += kBlock) {
      const int64_t outputs = std::min(kBlock, end - m0);
      for (int64_t k0 = 0; k0 < d.symbols; k0 += kBlock) {
        const int64_t symbols = std::min(kBlock, d.symbols - k0);
        T sums[kBlock][kBlock] = {};
        for (int64_t b = 0; b < d.batch; ++b) {
          for (int64_t k = 0; k < symbols; ++k) {
            const T c = coefficients[b * d.symbols + k0 + k];
            const T* row = grad + generator_offset(b, k0 + k, m0, d.symbols, d.out);
            for (int64_t m = 0; m < outputs; ++m) {
              sums[k][m] += c * row[m];
            }
          }
        }
        for (int64_t m = 0; m < outputs; ++m) {
          T* row = grad_weight + (m0 + m) * d.in;
          for (int64_t k = 0; k < symbols; ++k) {
            row[index[k0 + k]] += sums[k][m];
          }
        }
      }
    }
  });
}

}  // namespace

Tensor diagonal_linear(const Tensor& coefficients, const Tensor& index, const Tensor& weight) {
  DiagonalLinear out = prepare_diagonal_linear(coefficients, index, weight);
  check_range("diagonal_linear", index.const_data_ptr<int64_t>(), out.symbols, out.in);
  dispatch_dtype("diagonal_linear", coefficients.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    gather_kernel<T>(out, coefficients.const_data_ptr<T>(), index.const_data_ptr<int64_t>(), weight.const_data_ptr<T>(),
                     out.result.mutable_data_ptr<T>());
  });
  return out.result;
}

std::tuple<Tensor, Tensor> diagonal_linear_backward(const Tensor& grad, const Tensor& coefficients, const Tensor& index,
                                                    const Tensor& weight, bool needs_weight) {
  DiagonalLinearBackward out = prepare_diagonal_linear_backward(grad, coefficients, index, weight, needs_weight);
  check_range("diagonal_linear_backward", index.const_data_ptr<int64_t>(), out.symbols, out.in);
  dispatch_dtype("diagonal_linear_backward", coefficients.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    grad_coefficients_kernel<T>(out, grad.const_data_ptr<T>(), index.const_data_ptr<int64_t>(),
                                weight.const_data_ptr<T>(), out.grad_coefficients.mutable_data_ptr<T>());
    if (needs_weight) {
      grad_weight_kernel<T>(out, grad.const_data_ptr<T>(), coefficients.const_data_ptr<T>(),
                            index.const_data_ptr<int64_t>(), out.grad_weight.mutable_data_ptr<T>());
    }
  });
  return {out.grad_coefficients, out.grad_weight};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("diagonal_linear", TORCH_BOX(&diagonal_linear));
  m.impl("_diagonal_linear_backward", TORCH_BOX(&diagonal_linear_backward));
}

}  // namespace zonocuda::cpu

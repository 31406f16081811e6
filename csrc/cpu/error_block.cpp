#include <algorithm>

#include "../common/arguments.h"
#include "tiles.h"

namespace zonocuda::cpu {

Tensor error_block(const Tensor& coefficients, const Tensor& index, int64_t features) {
  ErrorBlock out = prepare_error_block(coefficients, index, features);
  const Sizes& s = out.s;
  const int64_t* at = index.const_data_ptr<int64_t>();
  for (int64_t k = 0; k < s.symbols; ++k) {
    STD_TORCH_CHECK(at[k] >= 0 && at[k] < s.features, "error_block: index[", k, "] = ", at[k], " is not one of the ",
                    s.features, " features");
  }
  dispatch_dtype("error_block", coefficients.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* c = coefficients.const_data_ptr<T>();
    T* result = out.generators.mutable_data_ptr<T>();
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.features));
    torch::stable::parallel_for(0, s.batch * s.symbols, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        std::fill_n(result + i * s.features, s.features, T(0));
        result[i * s.features + at[i % s.symbols]] = c[i];
      }
    });
  });
  return out.generators;
}

Tensor error_block_backward(const Tensor& grad, const Tensor& index) {
  ErrorBlockBackward out = prepare_error_block_backward(grad, index);
  const Sizes& s = out.s;
  const int64_t* at = index.const_data_ptr<int64_t>();
  dispatch_dtype("error_block_backward", grad.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* g = grad.const_data_ptr<T>();
    T* result = out.grad_coefficients.mutable_data_ptr<T>();
    for (int64_t i = 0; i < s.batch * s.symbols; ++i) {
      const int64_t n = at[i % s.symbols];
      STD_TORCH_CHECK(n >= 0 && n < s.features, "error_block_backward: index[", i % s.symbols, "] = ", n,
                      " is not one of the ", s.features, " features");
      result[i] = g[i * s.features + n];
    }
  });
  return out.grad_coefficients;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("error_block", TORCH_BOX(&error_block));
  m.impl("_error_block_backward", TORCH_BOX(&error_block_backward));
}

}  // namespace zonocuda::cpu

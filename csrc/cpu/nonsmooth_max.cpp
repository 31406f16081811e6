#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/nonsmooth_arguments.h"
#include "clones.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

constexpr int64_t kLanes = 256;  // columns that go through the dimension together

// Of rows x[0], x[stride], ... of `width` columns: the maximum of each column. Like torch.max, the first NaN stays.
#define ZONOCUDA_COLUMNS(T)                                                                                           \
  ZONOCUDA_LOOP_CLONES void column_maxima(const T* x, int64_t length, int64_t stride, int64_t width, Wide<T>* best) { \
    for (int64_t j = 0; j < width; ++j) {                                                                             \
      best[j] = Wide<T>(x[j]);                                                                                        \
    }                                                                                                                 \
    for (int64_t l = 1; l < length; ++l) {                                                                            \
      const T* row = x + l * stride;                                                                                  \
      for (int64_t j = 0; j < width; ++j) {                                                                           \
        const Wide<T> v(row[j]), b = best[j];                                                                         \
        best[j] = (v > b || v != v) && b == b ? v : b;                                                                \
      }                                                                                                               \
    }                                                                                                                 \
  }                                                                                                                   \
  ZONOCUDA_LOOP_CLONES void column_winners(const T* x, int64_t length, int64_t stride, int64_t width,                 \
                                           const Wide<T>* best, int32_t* word) {                                      \
    std::fill_n(word, width, 0);                                                                                      \
    for (int64_t l = 0; l < length; ++l) {                                                                            \
      const T* row = x + l * stride;                                                                                  \
      const uint32_t bit = uint32_t(1) << l;                                                                          \
      for (int64_t j = 0; j < width; ++j) {                                                                           \
        word[j] |= Wide<T>(row[j]) == best[j] ? int32_t(bit) : 0;                                                     \
      }                                                                                                               \
    }                                                                                                                 \
  }
ZONOCUDA_FOR_EACH_DTYPE(ZONOCUDA_COLUMNS)
#undef ZONOCUDA_COLUMNS

/// The one winner of a column whose maximum is NaN: its first NaN.
template <class T>
void mark_nan(const T* x, const MaxSizes& s, int32_t* words) {
  for (int64_t l = 0; l < s.length; ++l) {
    const Wide<T> v(x[l * s.inner]);
    if (v != v) {
      words[l / kWordBits * s.inner] = int32_t(uint32_t(1) << (l % kWordBits));
      return;
    }
  }
}

template <class T>
void maxima(const T* x, const MaxSizes& s, int64_t width, T* values, int32_t* winners) {
  Wide<T> best[kLanes];
  column_maxima(x, s.length, s.inner, width, best);
  for (int64_t w = 0; w < s.words(); ++w) {
    const int64_t from = w * kWordBits, length = std::min<int64_t>(kWordBits, s.length - from);
    column_winners(x + from * s.inner, length, s.inner, width, best, winners + w * s.inner);
  }
  for (int64_t j = 0; j < width; ++j) {
    values[j] = T(best[j]);
    if (best[j] != best[j]) {
      mark_nan(x + j, s, winners + j);
    }
  }
}

template <class T>
void share(const T* g, const MaxSizes& s, const int32_t* winners, const TieWeights& weights, T* out) {
  const Winners w{winners, s.words(), s.inner};
  const Tie tie = read_tie(w);
  for (int64_t l = 0; l < s.length; ++l) {
    out[l * s.inner] = w.has(l) ? T(tie_share(Wide<T>(*g), tie.count, l == tie.first, l == tie.last, weights)) : T(0);
  }
}

/// Calls f(outer, column, width) for blocks of columns, in parallel.
template <class F>
void for_each_block(const MaxSizes& s, const F& f) {
  const int64_t blocks = ceil_div(s.inner, kLanes);
  const int64_t grain = std::max<int64_t>(1, kGrain / (s.length * std::min(s.inner, kLanes)));
  torch::stable::parallel_for(0, s.outer * blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = i % blocks * kLanes;
      f(i / blocks, column, std::min(kLanes, s.inner - column));
    }
  });
}

}  // namespace

std::tuple<Tensor, Tensor> nonsmooth_max(const Tensor& x, double /*first*/, double /*last*/, double /*even*/) {
  NonsmoothMax out = prepare_nonsmooth_max(x);
  const MaxSizes& s = out.s;
  dispatch_dtype_or_half("nonsmooth_max", x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* in = x.const_data_ptr<T>();
    T* values = out.values.mutable_data_ptr<T>();
    int32_t* winners = out.winners.mutable_data_ptr<int32_t>();
    if (s.outer * s.inner > 0) {
      for_each_block(s, [&](int64_t o, int64_t j, int64_t width) {
        maxima(in + o * s.length * s.inner + j, s, width, values + o * s.inner + j,
               winners + o * s.words() * s.inner + j);
      });
    }
  });
  return {out.values, out.winners};
}

Tensor nonsmooth_max_backward(const Tensor& grad, const Tensor& winners, int64_t length, double first, double last,
                              double even) {
  NonsmoothMaxBackward out = prepare_nonsmooth_max_backward(grad, winners, length);
  const MaxSizes& s = out.s;
  const TieWeights weights{first, last, even};
  dispatch_dtype_or_half("nonsmooth_max_backward", grad.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* g = grad.const_data_ptr<T>();
    const int32_t* words = winners.const_data_ptr<int32_t>();
    T* result = out.grad_x.mutable_data_ptr<T>();
    if (s.outer * s.inner > 0) {
      for_each_block(s, [&](int64_t o, int64_t column, int64_t width) {
        for (int64_t j = column; j < column + width; ++j) {
          share(g + o * s.inner + j, s, words + o * s.words() * s.inner + j, weights,
                result + o * s.length * s.inner + j);
        }
      });
    }
  });
  return out.grad_x;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("nonsmooth_max", TORCH_BOX(&nonsmooth_max));
  m.impl("_nonsmooth_max_backward", TORCH_BOX(&nonsmooth_max_backward));
}

}  // namespace zonocuda::cpu

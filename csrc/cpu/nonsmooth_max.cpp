#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/nonsmooth_arguments.h"
#include "clones.h"
#include "halves.h"
#include "shares.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

constexpr int64_t kLanes = 256;  // columns that go through the dimension together

// Of rows x[0], x[stride], ... of `width` columns: the maximum of each column. Like torch.max, the first NaN stays.
#define ZONOCUDA_COLUMNS(T)                                                                                           \
  ZONOCUDA_LOOP_CLONES void column_maxima(const T* x, int64_t length, int64_t stride, int64_t width, Wide<T>* best) { \
    for (int64_t j = 0; j < width; ++j) {                                                                             \
      best[j] = widen(x[j]);                                                                                          \
    }                                                                                                                 \
    for (int64_t l = 1; l < length; ++l) {                                                                            \
      const T* row = x + l * stride;                                                                                  \
      for (int64_t j = 0; j < width; ++j) {                                                                           \
        const Wide<T> v = widen(row[j]), b = best[j];                                                                 \
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
        word[j] |= widen(row[j]) == best[j] ? int32_t(bit) : 0;                                                       \
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
    values[j] = narrow<T>(best[j]);
    if (best[j] != best[j]) {
      mark_nan(x + j, s, winners + j);
    }
  }
}

/// The shares of one column under any rule.
template <class T>
void share(const T* g, const MaxSizes& s, const int32_t* winners, const TieWeights& weights, T* out) {
  const Winners w{winners, s.length, s.inner};
  const Tie tie = read_tie(w);
  for (int64_t l = 0; l < s.length; ++l) {
    out[l * s.inner] = w.has(l) ? T(tie_share(Wide<T>(*g), tie.count, l == tie.first, l == tie.last, weights)) : T(0);
  }
}

// Where the dimension is the last one: rows that lie side by side.

constexpr int64_t kSide = 16;  // elements of a row that are compared together

#define ZONOCUDA_ROWS(T)                                                                                            \
  ZONOCUDA_LOOP_CLONES void row_maxima(const T* x, int64_t rows, int64_t length, T* values, int32_t* winners) {     \
    const int64_t words = ceil_div(length, kWordBits);                                                              \
    for (int64_t r = 0; r < rows; ++r, x += length, winners += words) {                                             \
      Wide<T> best[kSide];                                                                                          \
      auto meet = [&](const T* at) __attribute__((always_inline)) {                                                 \
        for (int64_t k = 0; k < kSide; ++k) {                                                                       \
          const Wide<T> v = widen(at[k]), b = best[k];                                                              \
          best[k] = (v > b || v != v) && b == b ? v : b;                                                            \
        }                                                                                                           \
      };                                                                                                            \
      for (int64_t k = 0; k < kSide; ++k) {                                                                         \
        best[k] = widen(x[k < length ? k : 0]);                                                                     \
      }                                                                                                             \
      for (int64_t l = kSide; l + kSide <= length; l += kSide) {                                                    \
        meet(x + l);                                                                                                \
      }                                                                                                             \
      if (length > kSide && length % kSide) {                                                                       \
        meet(x + length - kSide); /* some of them twice */                                                          \
      }                                                                                                             \
      Wide<T> most = best[0];                                                                                       \
      for (int64_t k = 1; k < kSide; ++k) {                                                                         \
        most = (best[k] > most || best[k] != best[k]) && most == most ? best[k] : most;                             \
      }                                                                                                             \
      int64_t first = -1;                                                                                           \
      for (int64_t w = 0; w < words; ++w) {                                                                         \
        const T* at = x + w * kWordBits;                                                                            \
        const int64_t bits = std::min<int64_t>(kWordBits, length - w * kWordBits);                                  \
        uint32_t word = 0;                                                                                          \
        if (bits == kWordBits) {                                                                                    \
          for (int k = 0; k < kWordBits; ++k) {                                                                     \
            word |= uint32_t(widen(at[k]) == most) << k;                                                            \
          }                                                                                                         \
        } else {                                                                                                    \
          for (int k = 0; k < bits; ++k) {                                                                          \
            word |= uint32_t(widen(at[k]) == most) << k;                                                            \
          }                                                                                                         \
        }                                                                                                           \
        winners[w] = int32_t(word);                                                                                 \
        first = first < 0 && word ? w * kWordBits + lowest_bit(word) : first;                                       \
      }                                                                                                             \
      for (int64_t l = 0; first < 0; ++l) { /* the maximum is NaN: the first one is the winner */                   \
        if (widen(x[l]) != widen(x[l])) {                                                                           \
          first = l;                                                                                                \
          winners[l / kWordBits] = int32_t(uint32_t(1) << (l % kWordBits));                                         \
        }                                                                                                           \
      }                                                                                                             \
      values[r] = x[first];                                                                                         \
    }                                                                                                               \
  }                                                                                                                 \
  ZONOCUDA_LOOP_CLONES void row_shares(const T* g, const int32_t* winners, int64_t rows, int64_t length, bool even, \
                                       bool last, T* out) {                                                         \
    const int64_t words = ceil_div(length, kWordBits);                                                              \
    for (int64_t r = 0; r < rows; ++r, winners += words, out += length) {                                           \
      const Tie tie = read_tie({winners, length, 1});                                                               \
      if (!even || tie.count <= 1) {                                                                                \
        std::fill_n(out, length, T(0));                                                                             \
        if (tie.count > 0) { /* an op of its own takes any words: none may win */                                   \
          out[last ? tie.last : tie.first] = g[r];                                                                  \
        }                                                                                                           \
        continue;                                                                                                   \
      }                                                                                                             \
      const T share = narrow<T>(widen(g[r]) / Wide<T>(tie.count));                                                  \
      for (int64_t l = 0; l < length; ++l) {                                                                        \
        out[l] = uint32_t(winners[l / kWordBits]) >> (l % kWordBits) & 1 ? share : T(0);                            \
      }                                                                                                             \
    }                                                                                                               \
  }                                                                                                                 \
  ZONOCUDA_LOOP_CLONES void column_shares(const T* grad, const int32_t* words, const MaxSizes& s, int64_t width,    \
                                          bool even, bool last, T* out) {                                           \
    T share[kLanes];                                                                                                \
    uint32_t open[kLanes]; /* all bits where a winner may still take something */                                   \
    std::copy_n(grad, width, share);                                                                                \
    std::fill_n(open, width, ~uint32_t(0));                                                                         \
    if (even) {                                                                                                     \
      int32_t count[kLanes] = {};                                                                                   \
      for (int64_t w = 0; w < s.words(); ++w) {                                                                     \
        const uint32_t valid = valid_bits(s.length, w);                                                             \
        for (int64_t j = 0; j < width; ++j) {                                                                       \
          count[j] += int32_t(count_bits(uint32_t(words[w * s.inner + j]) & valid));                                \
        }                                                                                                           \
      }                                                                                                             \
      for (int64_t j = 0; j < width; ++j) {                                                                         \
        share[j] = narrow<T>(widen(share[j]) / Wide<T>(count[j]));                                                  \
      }                                                                                                             \
    }                                                                                                               \
    for (int64_t i = 0; i < s.words(); ++i) {                                                                       \
      const int64_t w = last ? s.words() - 1 - i : i;                                                               \
      const uint32_t valid = valid_bits(s.length, w);                                                               \
      uint32_t taking[kLanes];                                                                                      \
      for (int64_t j = 0; j < width; ++j) {                                                                         \
        const uint32_t word = uint32_t(words[w * s.inner + j]) & valid;                                             \
        taking[j] = (even ? word : (last ? highest_of(word) : word & (0 - word))) & open[j];                        \
        open[j] = even || word == 0 ? open[j] : 0;                                                                  \
      }                                                                                                             \
      const int64_t end = std::min<int64_t>(s.length, (w + 1) * kWordBits);                                         \
      for (int64_t l = w * kWordBits; l < end; ++l) {                                                               \
        T* row = out + l * s.inner;                                                                                 \
        const uint32_t bit = uint32_t(1) << (l % kWordBits);                                                        \
        for (int64_t j = 0; j < width; ++j) {                                                                       \
          row[j] = taking[j] & bit ? share[j] : T(0);                                                               \
        }                                                                                                           \
      }                                                                                                             \
    }                                                                                                               \
  }
ZONOCUDA_FOR_EACH_DTYPE(ZONOCUDA_ROWS)
#undef ZONOCUDA_ROWS

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

int64_t row_grain(const MaxSizes& s) { return std::max<int64_t>(1, kGrain / s.length); }

}  // namespace

std::tuple<Tensor, Tensor> nonsmooth_max(const Tensor& x, double /*first*/, double /*last*/, double /*even*/) {
  NonsmoothMax out = prepare_nonsmooth_max(x);
  const MaxSizes& s = out.s;
  dispatch_dtype_or_half("nonsmooth_max", x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* in = x.const_data_ptr<T>();
    T* values = out.values.mutable_data_ptr<T>();
    int32_t* winners = out.winners.mutable_data_ptr<int32_t>();
    if (s.inner == 1 && s.outer > 0) {
      torch::stable::parallel_for(0, s.outer, row_grain(s), [&](int64_t begin, int64_t end) {
        row_maxima(in + begin * s.length, end - begin, s.length, values + begin, winners + begin * s.words());
      });
    } else if (s.outer * s.inner > 0) {
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
  const bool one_rule = is_one_rule(weights);
  dispatch_dtype_or_half("nonsmooth_max_backward", grad.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* g = grad.const_data_ptr<T>();
    const int32_t* words = winners.const_data_ptr<int32_t>();
    T* result = out.grad_x.mutable_data_ptr<T>();
    if (s.inner == 1 && s.outer > 0 && one_rule) {
      torch::stable::parallel_for(0, s.outer, row_grain(s), [&](int64_t begin, int64_t end) {
        row_shares(g + begin, words + begin * s.words(), end - begin, s.length, even == 1, last == 1,
                   result + begin * s.length);
      });
    } else if (s.outer * s.inner > 0) {
      for_each_block(s, [&](int64_t o, int64_t column, int64_t width) {
        if (one_rule) {
          return column_shares(g + o * s.inner + column, words + o * s.words() * s.inner + column, s, width, even == 1,
                               last == 1, result + o * s.length * s.inner + column);
        }
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

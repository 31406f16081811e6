#include <algorithm>
#include <limits>
#include <tuple>
#include <vector>

#include "../common/nonsmooth_arguments.h"
#include "clones.h"
#include "halves.h"
#include "shares.h"
#include "tiles.h"

namespace zonocuda::cpu {
namespace {

constexpr int64_t kLanes = 1024;  // channels of windows that are scanned together; their maxima stay in the L1 cache

/// Windows of one row of one image, and a block of their channels.
struct Line {
  int64_t image, row, column, windows, channel, channels;
};

/// Windows of a line: channel c of window j is x[j * step + c], its maximum best[j * channels + c], and its word of
/// winners word[j * inner + c].
struct Lanes {
  int64_t begin, end, channels, step, inner;
};

// One element of the windows of a line. A larger one, or a NaN, becomes the only winner, an equal one a further winner.
// So the last NaN stays, which is torch's rule.
#define ZONOCUDA_SCAN(T)                                                                                               \
  ZONOCUDA_LOOP_CLONES void scan(const T* x, const Lanes& s, uint32_t bit, Wide<T>* best, int32_t* word) {             \
    auto lane = [&](const T* at, int64_t stride, Wide<T>* __restrict__ most, int32_t* __restrict__ won, int64_t count) \
                    __attribute__((always_inline)) {                                                                   \
                      for (int64_t j = 0; j < count; ++j) {                                                            \
                        const Wide<T> v = widen(at[j * stride]), b = most[j];                                          \
                        const bool wins = v > b || v != v;                                                             \
                        const int32_t old = won[j];                                                                    \
                        most[j] = wins ? v : b;                                                                        \
                        won[j] = wins ? int32_t(bit) : (v == b ? old | int32_t(bit) : old);                            \
                      }                                                                                                \
                    };                                                                                                 \
    const T* from = x + s.begin * s.step;                                                                              \
    if (s.inner > 1 && s.step == s.channels) {                                                                         \
      lane(from, 1, best + s.begin * s.channels, word + s.begin * s.inner, (s.end - s.begin) * s.channels);            \
    } else if (s.inner > 1) {                                                                                          \
      for (int64_t j = s.begin; j < s.end; ++j, from += s.step) {                                                      \
        lane(from, 1, best + j * s.channels, word + j * s.inner, s.channels);                                          \
      }                                                                                                                \
    } else if (s.step == 1) {                                                                                          \
      lane(from, 1, best + s.begin, word + s.begin, s.end - s.begin);                                                  \
    } else if (s.step == 2) {                                                                                          \
      lane(from, 2, best + s.begin, word + s.begin, s.end - s.begin);                                                  \
    } else {                                                                                                           \
      lane(from, s.step, best + s.begin, word + s.begin, s.end - s.begin);                                             \
    }                                                                                                                  \
  }                                                                                                                    \
  ZONOCUDA_LOOP_CLONES void mark(const T* x, const Lanes& s, uint32_t bit, const Wide<T>* best, int32_t* word) {       \
    for (int64_t j = s.begin; j < s.end; ++j) {                                                                        \
      for (int64_t c = 0; c < s.channels; ++c) {                                                                       \
        word[j * s.inner + c] |= widen(x[j * s.step + c]) == best[j * s.channels + c] ? int32_t(bit) : 0;              \
      }                                                                                                                \
    }                                                                                                                  \
  }                                                                                                                    \
  ZONOCUDA_LOOP_CLONES void round_line(const Wide<T>* best, int64_t count, T* values) {                                \
    for (int64_t j = 0; j < count; ++j) {                                                                              \
      values[j] = narrow<T>(best[j]);                                                                                  \
    }                                                                                                                  \
  }
ZONOCUDA_FOR_EACH_DTYPE(ZONOCUDA_SCAN)
#undef ZONOCUDA_SCAN

/// The windows of a line whose element t lies in the image.
Lanes inside(const Pool& s, const Line& line, int64_t t) {
  const int64_t y = s.y.at(line.row, t / s.x.kernel), x = s.x.at(line.column, t % s.x.kernel);
  const int64_t begin = x >= 0 ? 0 : ceil_div(-x, s.x.stride);
  const int64_t end = x >= s.x.input || y < 0 || y >= s.y.input ? 0 : ceil_div(s.x.input - x, s.x.stride);
  return {std::min(begin, line.windows), std::min(end, line.windows), line.channels, s.x.stride * s.inner, s.inner};
}

/// Where element t of the first window of a line lies in x, which may be in the padding.
int64_t offset(const Pool& s, const Line& line, int64_t t) {
  const int64_t y = s.y.at(line.row, t / s.x.kernel), x = s.x.at(line.column, t % s.x.kernel);
  return ((line.image * s.y.input + y) * s.x.input + x) * s.inner + line.channel;
}

int64_t output_offset(const Pool& s, const Line& line) {
  return ((line.image * s.y.output + line.row) * s.x.output + line.column) * s.inner + line.channel;
}

/// The only winner of a window whose maximum is NaN: its last NaN. `word`: its first word.
template <class T>
void mark_nan(const T* x, const Pool& s, const Line& line, int64_t j, int64_t c, int32_t* word) {
  for (int64_t t = s.elements() - 1; t >= 0; --t) {
    const Lanes lanes = inside(s, line, t);
    if (j >= lanes.begin && j < lanes.end) {
      const Wide<T> v(x[offset(s, line, t) + j * lanes.step + c]);
      if (v != v) {
        word[t / kWordBits * s.outputs()] = int32_t(uint32_t(1) << (t % kWordBits));
        return;
      }
    }
  }
}

/// The words of windows of more than kWordBits elements, from the maxima.
template <class T>
void mark_line(const T* x, const Pool& s, const Line& line, const Wide<T>* best, int32_t* words) {
  for (int64_t t = 0; t < s.elements(); ++t) {
    int32_t* word = words + t / kWordBits * s.outputs();
    for (int64_t j = 0; t % kWordBits == 0 && j < line.windows; ++j) {
      std::fill_n(word + j * s.inner, line.channels, 0);
    }
    const Lanes lanes = inside(s, line, t);
    if (lanes.begin < lanes.end) {
      mark(x + offset(s, line, t), lanes, uint32_t(1) << (t % kWordBits), best, word);
    }
  }
  for (int64_t j = 0; j < line.windows; ++j) {
    for (int64_t c = 0; c < line.channels; ++c) {
      const Wide<T> b = best[j * line.channels + c];
      if (b != b) {
        mark_nan(x, s, line, j, c, words + j * s.inner + c);
      }
    }
  }
}

template <class T>
void pool_line(const T* x, const Pool& s, const Line& line, T* values, int32_t* winners) {
  Wide<T> best[kLanes];
  std::fill_n(best, line.windows * line.channels, -std::numeric_limits<Wide<T>>::infinity());
  const int64_t out = output_offset(s, line);
  for (int64_t j = 0; j < line.windows; ++j) {
    std::fill_n(winners + out + j * s.inner, line.channels, 0);
  }
  const bool one_word = s.words() == 1;
  for (int64_t t = 0; t < s.elements(); ++t) {
    const Lanes lanes = inside(s, line, t);
    if (lanes.begin < lanes.end) {
      scan(x + offset(s, line, t), lanes, one_word ? uint32_t(1) << t : 0, best, winners + out);
    }
  }
  if (!one_word) {
    mark_line(x, s, line, best, winners + out);
  }
  if (line.channels == s.inner) {
    round_line(best, line.windows * line.channels, values + out);
  } else {
    for (int64_t j = 0; j < line.windows; ++j) {
      round_line(best + j * line.channels, line.channels, values + out + j * s.inner);
    }
  }
}

/// Adds the share of every winner of a window to its gradient, in the order of reading, if `lies(t)` says that element
/// t is in the image. What a winner in the padding takes is lost: the op takes any words.
template <class T, class F>
ZONOCUDA_INLINE void scatter(const Winners& w, Wide<T> g, const TieWeights& weights, bool one_rule, const F& lies,
                             const int64_t* element_offset, T* at) {
  auto add = [&](int64_t t, Wide<T> share) __attribute__((always_inline)) {
    if (lies(t)) {
      T& target = at[element_offset[t]];
      target = T(Wide<T>(target) + Wide<T>(T(share)));
    }
  };
  if (w.count() == 1) {
    uint32_t word = w.word(0);
    if (word == 0) {
      return;
    }
    if ((word & (word - 1)) == 0 || (one_rule && weights.first == 1)) {
      return add(lowest_bit(word), g);
    }
    if (one_rule && weights.even == 1) {
      const Wide<T> share = g / Wide<T>(bits_in(word));
      for (; word; word &= word - 1) {
        add(lowest_bit(word), share);
      }
      return;
    }
  }
  const Tie tie = read_tie(w);
  for (int64_t t = tie.first; t >= 0 && t <= tie.last; ++t) {
    if (w.has(t)) {
      add(t, tie_share(g, tie.count, t == tie.first, t == tie.last, weights));
    }
  }
}

/// A line's windows and where their channels lie: gradients and words `inner` apart, first elements `step` apart.
struct Scatter {
  const int32_t* winners;
  int64_t word_stride, step;
  const Pool& pool;
  const Line& line;
};

#define ZONOCUDA_SCATTER(T)                                                                                          \
  ZONOCUDA_LOOP_CLONES void scatter_windows(const T* grad, const Scatter& s, const TieWeights& weights,              \
                                            const int64_t* element_offset, T* out) {                                 \
    using M = Machine<T>::type;                                                                                      \
    const M* g = reinterpret_cast<const M*>(grad);                                                                   \
    M* at = reinterpret_cast<M*>(out);                                                                               \
    const Line line = s.line; /* copies: for all that the compiler knows, a gradient is written over the sizes */    \
    const PoolAxis y = s.pool.y, x = s.pool.x;                                                                       \
    const int64_t inner = s.pool.inner, elements = s.pool.elements();                                                \
    const bool one_rule = is_one_rule(weights);                                                                      \
    for (int64_t j = 0; j < line.windows; ++j) {                                                                     \
      const bool all = y.contains_window(line.row) && x.contains_window(line.column + j);                            \
      auto lies = [&](int64_t t) __attribute__((always_inline)) {                                                    \
        return all || (y.contains(y.at(line.row, t / x.kernel)) && x.contains(x.at(line.column + j, t % x.kernel))); \
      };                                                                                                             \
      for (int64_t c = 0; c < line.channels; ++c) {                                                                  \
        const Winners w{s.winners + j * inner + c, elements, s.word_stride};                                         \
        scatter(w, Wide<M>(g[j * inner + c]), weights, one_rule, lies, element_offset, at + j * s.step + c);         \
      }                                                                                                              \
    }                                                                                                                \
  }
ZONOCUDA_FOR_EACH_DTYPE(ZONOCUDA_SCATTER)
#undef ZONOCUDA_SCATTER

// Windows of one word, whole channels at a time. Of each window, which elements get something and how much is worked
// out once; then element after element of all windows adds it to the image. From right to left in a row of the window,
// so that an element of the image, which lies further left in a later window, adds up in the order of the windows.

/// `taking`: the winners that get `share`.
#define ZONOCUDA_SHARES(T)                                                                                             \
  ZONOCUDA_LOOP_CLONES void equal_shares(const T* g, const int32_t* words, uint32_t valid, const TieWeights& weights,  \
                                         int64_t count, uint32_t* __restrict__ taking, T* __restrict__ share) {        \
    if (weights.even == 1) {                                                                                           \
      for (int64_t i = 0; i < count; ++i) {                                                                            \
        const uint32_t word = uint32_t(words[i]) & valid;                                                              \
        const Wide<T> winners = Wide<T>(int32_t(count_bits(word)));                                                    \
        taking[i] = word;                                                                                              \
        share[i] = narrow<T>(widen(g[i]) / winners);                                                                   \
      }                                                                                                                \
    } else if (weights.first == 1) {                                                                                   \
      for (int64_t i = 0; i < count; ++i) {                                                                            \
        const uint32_t word = uint32_t(words[i]) & valid;                                                              \
        taking[i] = word & (0 - word);                                                                                 \
        share[i] = g[i];                                                                                               \
      }                                                                                                                \
    } else {                                                                                                           \
      for (int64_t i = 0; i < count; ++i) {                                                                            \
        taking[i] = highest_of(uint32_t(words[i]) & valid);                                                            \
        share[i] = g[i];                                                                                               \
      }                                                                                                                \
    }                                                                                                                  \
  }                                                                                                                    \
  ZONOCUDA_LOOP_CLONES void add_element(const T* __restrict__ share, const uint32_t* __restrict__ taking,              \
                                        const Lanes& s, uint32_t bit, T* out) {                                        \
    auto lane = [&](T* __restrict__ at, int64_t stride, const T* __restrict__ g, const uint32_t* __restrict__ takes,   \
                    int64_t count) __attribute__((always_inline)) {                                                    \
      for (int64_t j = 0; j < count; ++j) {                                                                            \
        at[j * stride] = narrow<T>(widen(at[j * stride]) + (takes[j] & bit ? widen(g[j]) : Wide<T>(0)));               \
      }                                                                                                                \
    };                                                                                                                 \
    T* at = out + s.begin * s.step;                                                                                    \
    if (s.step == s.channels) {                                                                                        \
      return lane(at, 1, share + s.begin * s.channels, taking + s.begin * s.channels, (s.end - s.begin) * s.channels); \
    }                                                                                                                  \
    for (int64_t j = s.begin; j < s.end; ++j, at += s.step) {                                                          \
      lane(at, 1, share + j * s.channels, taking + j * s.channels, s.channels);                                        \
    }                                                                                                                  \
  }                                                                                                                    \
  ZONOCUDA_LOOP_CLONES void put_element(const T* __restrict__ share, const uint32_t* __restrict__ taking,              \
                                        const Lanes& s, uint32_t bit, T* out) {                                        \
    using M = Moved<T>::type;                                                                                          \
    for (int64_t j = s.begin; j < s.end; ++j) {                                                                        \
      const M* __restrict__ g = reinterpret_cast<const M*>(share) + j * s.channels;                                    \
      const uint32_t* __restrict__ takes = taking + j * s.channels;                                                    \
      M* __restrict__ at = reinterpret_cast<M*>(out) + j * s.step;                                                     \
      for (int64_t c = 0; c < s.channels; ++c) {                                                                       \
        at[c] = takes[c] & bit ? Moved<T>::sum_with_zero(g[c]) : M(0);                                                 \
      }                                                                                                                \
    }                                                                                                                  \
  }

/// An element that is written once. As a sum that begins with 0 has it, -0 becomes 0. 16-bit numbers stay as they are.
template <class T>
struct Moved {
  using type = std::conditional_t<sizeof(T) == 2, uint16_t, T>;

  static ZONOCUDA_INLINE type sum_with_zero(type g) {
    if constexpr (sizeof(T) == 2) {
      return g == 0x8000 ? type(0) : g;
    } else {
      return T(0) + g;
    }
  }
};

ZONOCUDA_FOR_EACH_DTYPE(ZONOCUDA_SHARES)
#undef ZONOCUDA_SHARES

bool apart(const Pool& s) {
  return s.inner > 1 && s.y.stride >= s.y.kernel && s.x.stride >= s.x.kernel && s.y.dilation == 1 && s.x.dilation == 1;
}

/// Whether whole lines are faster than one window after the other, as measured.
template <class T>
bool shares_lines(const Pool& s, const TieWeights& w) {
  const bool side_by_side = apart(s) || (s.inner > 1 && s.x.stride == 1);
  const bool half = std::is_same_v<T, torch::headeronly::Half>;
  return is_one_rule(w) && s.words() == 1 && side_by_side && (!half || (apart(s) && w.even == 0));
}

template <class T>
void share_line(const T* g, const int32_t* winners, const Pool& s, const Line& line, const TieWeights& weights,
                bool written_once, T* out) {
  uint32_t taking[kLanes];
  T share[kLanes];
  const int64_t from = output_offset(s, line), rows = line.channels == s.inner ? 1 : line.windows;
  const int64_t count = line.windows * line.channels / rows;
  for (int64_t j = 0; j < rows; ++j) {
    equal_shares(g + from + j * s.inner, winners + from + j * s.inner, valid_bits(s.elements(), 0), weights, count,
                 taking + j * count, share + j * count);
  }
  for (int64_t t = s.elements() - 1; t >= 0; --t) {
    const Lanes lanes = inside(s, line, t);
    if (lanes.begin < lanes.end) {
      if (written_once) {
        put_element(share, taking, lanes, uint32_t(1) << t, out + offset(s, line, t));
      } else {
        add_element(share, taking, lanes, uint32_t(1) << t, out + offset(s, line, t));
      }
    }
  }
}

template <class T>
void scatter_line(const T* g, const int32_t* winners, const Pool& s, const Line& line, const TieWeights& weights,
                  const int64_t* element_offset, T* out) {
  const int64_t from = output_offset(s, line);
  const Scatter windows{winners + from, s.outputs(), s.x.stride * s.inner, s, line};
  scatter_windows(g + from, windows, weights, element_offset, out + offset(s, line, 0));
}

/// Calls f(line) for the windows of one image and one block of channels, in the order of reading.
template <class F>
void for_each_line(const Pool& s, int64_t image, int64_t channel, int64_t channels, const F& f) {
  const int64_t windows = std::max<int64_t>(1, kLanes / channels);
  for (int64_t row = 0; row < s.y.output; ++row) {
    for (int64_t column = 0; column < s.x.output; column += windows) {
      f(Line{image, row, column, std::min(windows, s.x.output - column), channel, channels});
    }
  }
}

/// Calls f(image, first channel, channels) in parallel. A gradient belongs to one call.
template <class F>
void for_each_image(const Pool& s, const F& f) {
  const int64_t few = s.images < 2 * torch::stable::get_num_threads() ? 64 : kLanes;
  const int64_t width = std::min(s.inner, few), blocks = ceil_div(s.inner, width);
  const int64_t work = std::max<int64_t>(1, s.y.output * s.x.output * s.elements() * width);
  torch::stable::parallel_for(0, s.images * blocks, std::max<int64_t>(1, kGrain / work),
                              [&](int64_t begin, int64_t end) {
                                for (int64_t i = begin; i < end; ++i) {
                                  const int64_t channel = i % blocks * width;
                                  f(i / blocks, channel, std::min(width, s.inner - channel));
                                }
                              });
}

}  // namespace

std::tuple<Tensor, Tensor> nonsmooth_max_pool2d(const Tensor& x, std::vector<int64_t> kernel,
                                                std::vector<int64_t> stride, std::vector<int64_t> padding,
                                                std::vector<int64_t> dilation, std::vector<int64_t> output_size,
                                                double /*first*/, double /*last*/, double /*even*/) {
  NonsmoothMaxPool out = prepare_nonsmooth_max_pool2d(x, {kernel, stride, padding, dilation}, output_size);
  const Pool& s = out.s;
  dispatch_dtype_or_half("nonsmooth_max_pool2d", x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* in = x.const_data_ptr<T>();
    T* values = out.values.mutable_data_ptr<T>();
    int32_t* winners = out.winners.mutable_data_ptr<int32_t>();
    if (s.outputs() > 0) {
      for_each_image(s, [&](int64_t image, int64_t channel, int64_t channels) {
        for_each_line(s, image, channel, channels, [&](const Line& line) { pool_line(in, s, line, values, winners); });
      });
    }
  });
  return {out.values, out.winners};
}

Tensor nonsmooth_max_pool2d_backward(const Tensor& grad, const Tensor& winners, std::vector<int64_t> input_size,
                                     std::vector<int64_t> kernel, std::vector<int64_t> stride,
                                     std::vector<int64_t> padding, std::vector<int64_t> dilation, double first,
                                     double last, double even) {
  NonsmoothMaxPoolBackward out =
      prepare_nonsmooth_max_pool2d_backward(grad, winners, input_size, {kernel, stride, padding, dilation});
  const Pool& s = out.s;
  const TieWeights weights{first, last, even};
  std::vector<int64_t> element_offset(size_t(s.outputs() > 0 ? s.elements() : 0));  // no outputs: windows of any size
  for (int64_t t = 0; t < int64_t(element_offset.size()); ++t) {
    element_offset[size_t(t)] = (t / s.x.kernel * s.y.dilation * s.x.input + t % s.x.kernel * s.x.dilation) * s.inner;
  }
  dispatch_dtype_or_half("nonsmooth_max_pool2d_backward", grad.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* g = grad.const_data_ptr<T>();
    const int32_t* words = winners.const_data_ptr<int32_t>();
    T* result = out.grad_x.mutable_data_ptr<T>();
    if (s.inputs() > 0) {
      for_each_image(s, [&](int64_t image, int64_t channel, int64_t channels) {
        T* target = result + image * s.y.input * s.x.input * s.inner + channel;
        for (int64_t i = 0; i < (s.inner == 1 ? 1 : s.y.input * s.x.input); ++i) {
          std::fill_n(target + i * s.inner, s.inner == 1 ? s.y.input * s.x.input : channels, T(0));
        }
        for_each_line(s, image, channel, channels, [&](const Line& line) {
          if (shares_lines<T>(s, weights)) {
            return share_line(g, words, s, line, weights, apart(s), result);
          }
          scatter_line(g, words, s, line, weights, element_offset.data(), result);
        });
      });
    }
  });
  return out.grad_x;
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CPU, m) {
  m.impl("nonsmooth_max_pool2d", TORCH_BOX(&nonsmooth_max_pool2d));
  m.impl("_nonsmooth_max_pool2d_backward", TORCH_BOX(&nonsmooth_max_pool2d_backward));
}

}  // namespace zonocuda::cpu

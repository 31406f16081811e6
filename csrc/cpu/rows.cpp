#include "rows.h"

#include <algorithm>

#include "vectors.h"

namespace zonocuda::cpu {
namespace {

constexpr int64_t kLine = 64;     // bytes of a cache line
constexpr int64_t kStreams = 8;   // of memory, that are added up at once
constexpr int64_t kAhead = 4;     // rows that are asked for before they are added
constexpr int kVectorBytes = 32;  // of one vector; wider gains nothing where memory is the limit

template <class T>
using Wide = typename Vector<T, kVectorBytes / int(sizeof(T))>::type;
template <class T>
constexpr int64_t kWide = kVectorBytes / sizeof(T);

// f(type of a vector, first column) for all columns: whole vectors, then single numbers.
template <class T, class F>
ZONOCUDA_INLINE void each_vector(int64_t first, int64_t width, F f) {
  int64_t j = first;
  for (; j + kWide<T> <= width; j += kWide<T>) {
    f(std::type_identity<Wide<T>>{}, j);
  }
  for (; j < width; ++j) {
    f(std::type_identity<T>{}, j);
  }
}

// sum[j] += term(0, j) + term(1, j) + ..., added in this order. kTogether rows at a time: one load and one store of a
// sum for as many terms, and as many streams of memory in flight. ask(k, j): the caches are to get row k.
template <class T, int64_t kTogether, class Term, class Ask>
ZONOCUDA_INLINE void add_rows(int64_t rows, int64_t width, T* sum, Term term, Ask ask) {
  int64_t k = 0;
  for (; k + kTogether <= rows; k += kTogether) {
    const int64_t ahead = k + kTogether + kAhead <= rows ? kAhead : 0;
    each_vector<T>(0, width, [&](auto v, int64_t j) ZONOCUDA_LAMBDA {
      using V = typename decltype(v)::type;
      V total = load<V>(sum + j);
#pragma GCC unroll 8
      for (int64_t r = 0; r < kTogether; ++r) {
        ask(k + r + ahead, j);
        total = total + term(v, k + r, j);
      }
      store(sum + j, total);
    });
  }
  for (; k < rows; ++k) {
    each_vector<T>(0, width, [&](auto v, int64_t j) ZONOCUDA_LAMBDA {
      using V = typename decltype(v)::type;
      store(sum + j, V(load<V>(sum + j) + term(v, k, j)));
    });
  }
}

#if defined(__SSE2__)
ZONOCUDA_INLINE void stream(float* p, const Vector<float, 4>::type& v) { _mm_stream_ps(p, __m128(v)); }
ZONOCUDA_INLINE void stream(double* p, const Vector<double, 2>::type& v) { _mm_stream_pd(p, __m128d(v)); }

// A line of memory past the caches; p is aligned to it. Computed in wide vectors, stored in halves.
template <class T, class F>
ZONOCUDA_INLINE void stream_line(T* p, int64_t j, F value) {
  constexpr int64_t kPart = 16 / sizeof(T);
  using Part = typename Vector<T, kPart>::type;
#pragma GCC unroll 2
  for (int64_t i = 0; i < kLine / int64_t(sizeof(T)); i += kWide<T>) {
    const Wide<T> wide = value(std::type_identity<Wide<T>>{}, j + i);
    Part parts[kVectorBytes / 16];
    __builtin_memcpy(parts, &wide, sizeof(wide));
    stream(p + i, parts[0]);
    stream(p + i + kPart, parts[1]);
  }
}
#endif

// out[k, j] = value(type of a vector, k, j) for numbers j and following. Each is computed before it is stored: out may
// be what it is computed from.
template <class T, class F>
ZONOCUDA_INLINE void write_rows(int64_t rows, int64_t stride, int64_t width, T* out, Writes writes, F value) {
#if defined(__SSE2__)
  if (writes == Writes::streamed) {
    constexpr int64_t line = kLine / sizeof(T);
    for (int64_t k = 0; k < rows; ++k) {
      T* const row = out + k * stride;
      const int64_t misplaced = int64_t(reinterpret_cast<uintptr_t>(row) % kLine / sizeof(T));
      int64_t j = std::min((line - misplaced) % line, width);
      each_vector<T>(0, j, [&](auto v, int64_t i) ZONOCUDA_LAMBDA { store(row + i, value(v, k, i)); });
      for (; j + line <= width; j += line) {
        stream_line(row + j, j, [&](auto v, int64_t i) ZONOCUDA_LAMBDA { return value(v, k, i); });
      }
      each_vector<T>(j, width, [&](auto v, int64_t i) ZONOCUDA_LAMBDA { store(row + i, value(v, k, i)); });
    }
    _mm_sfence();  // before another thread is told that the output is there
    return;
  }
#endif
  for (int64_t k = 0; k < rows; ++k) {
    T* const row = out + k * stride;
    each_vector<T>(0, width, [&](auto v, int64_t j) ZONOCUDA_LAMBDA { store(row + j, value(v, k, j)); });
  }
}

}  // namespace

#define ZONOCUDA_DEFINE_ROWS(T)                                                                                  \
  ZONOCUDA_LOOP_CLONES void add_abs(const T* x, int64_t rows, int64_t stride, int64_t width, T* sum) {           \
    add_rows<T, kStreams>(                                                                                       \
        rows, width, sum,                                                                                        \
        [=](auto v, int64_t k, int64_t j) ZONOCUDA_LAMBDA {                                                      \
          using V = typename decltype(v)::type;                                                                  \
          return magnitude(load<V>(x + k * stride + j));                                                         \
        },                                                                                                       \
        [=](int64_t k, int64_t j) ZONOCUDA_LAMBDA { __builtin_prefetch(x + k * stride + j); });                  \
  }                                                                                                              \
  ZONOCUDA_LOOP_CLONES void add_products(const T* x, const T* y, int64_t rows, int64_t stride, int64_t width,    \
                                         T* sum) {                                                               \
    add_rows<T, kStreams / 2>(                                                                                   \
        rows, width, sum,                                                                                        \
        [=](auto v, int64_t k, int64_t j) ZONOCUDA_LAMBDA {                                                      \
          using V = typename decltype(v)::type;                                                                  \
          return V(load<V>(x + k * stride + j) * load<V>(y + k * stride + j));                                   \
        },                                                                                                       \
        [=](int64_t k, int64_t j) ZONOCUDA_LAMBDA {                                                              \
          __builtin_prefetch(x + k * stride + j);                                                                \
          __builtin_prefetch(y + k * stride + j);                                                                \
        });                                                                                                      \
  }                                                                                                              \
  ZONOCUDA_LOOP_CLONES void scale_rows(const T* x, const T* factor, int64_t rows, int64_t stride, int64_t width, \
                                       T* out, Writes writes) {                                                  \
    write_rows(rows, stride, width, out, writes, [=](auto v, int64_t k, int64_t j) ZONOCUDA_LAMBDA {             \
      using V = typename decltype(v)::type;                                                                      \
      __builtin_prefetch(x + (k + 1 < rows ? k + 1 : k) * stride + j);                                           \
      return V(load<V>(factor + j) * load<V>(x + k * stride + j));                                               \
    });                                                                                                          \
  }                                                                                                              \
  ZONOCUDA_LOOP_CLONES void scale_and_shift_signs(const T* grad, const T* x, const T* factor, const T* shift,    \
                                                  int64_t rows, int64_t stride, int64_t width, T* out,           \
                                                  Writes writes) {                                               \
    write_rows(rows, stride, width, out, writes, [=](auto v, int64_t k, int64_t j) ZONOCUDA_LAMBDA {             \
      using V = typename decltype(v)::type;                                                                      \
      const int64_t at = k * stride + j;                                                                         \
      const int64_t next = k + 1 < rows ? at + stride : at;                                                      \
      __builtin_prefetch(grad + next);                                                                           \
      __builtin_prefetch(x + next);                                                                              \
      return V(load<V>(factor + j) * load<V>(grad + at) + sign(load<V>(x + at)) * load<V>(shift + j));           \
    });                                                                                                          \
  }                                                                                                              \
  ZONOCUDA_LOOP_CLONES void shift_signs(const T* x, const T* shift, int64_t rows, int64_t stride, int64_t width, \
                                        T* out, Writes writes) {                                                 \
    write_rows(rows, stride, width, out, writes, [=](auto v, int64_t k, int64_t j) ZONOCUDA_LAMBDA {             \
      using V = typename decltype(v)::type;                                                                      \
      return V(sign(load<V>(x + k * stride + j)) * load<V>(shift + j));                                          \
    });                                                                                                          \
  }

ZONOCUDA_DEFINE_ROWS(float)
ZONOCUDA_DEFINE_ROWS(double)
#undef ZONOCUDA_DEFINE_ROWS

}  // namespace zonocuda::cpu

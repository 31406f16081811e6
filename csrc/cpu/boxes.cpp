#include "boxes.h"

#include <algorithm>
#include <bit>
#include <type_traits>

#include "vectors.h"

namespace zonocuda::cpu {
namespace {

constexpr int kWidest = 16;

template <int kWidth>
using Width = std::integral_constant<int, kWidth>;

// f(width, first column) for strips of 16 columns, and then for the rest.
template <class F>
ZONOCUDA_INLINE void each_strip(const Box& box, F f) {
  int64_t first = 0;
  for (; first + kWidest <= box.columns; first += kWidest) {
    f(Width<kWidest>{}, first);
  }
  switch (box.columns - first) {
#define ZONOCUDA_WIDTH(n) \
  case n:                 \
    return f(Width<n>{}, first);
    ZONOCUDA_WIDTH(1)
    ZONOCUDA_WIDTH(2)
    ZONOCUDA_WIDTH(3)
    ZONOCUDA_WIDTH(4)
    ZONOCUDA_WIDTH(5)
    ZONOCUDA_WIDTH(6)
    ZONOCUDA_WIDTH(7)
    ZONOCUDA_WIDTH(8)
    ZONOCUDA_WIDTH(9)
    ZONOCUDA_WIDTH(10)
    ZONOCUDA_WIDTH(11)
    ZONOCUDA_WIDTH(12)
    ZONOCUDA_WIDTH(13)
    ZONOCUDA_WIDTH(14)
    ZONOCUDA_WIDTH(15)
#undef ZONOCUDA_WIDTH
  }
}

// f(patch offset, map offset) for each row. The strides are copied: for all that the compiler knows, f changes the box.
template <class F>
ZONOCUDA_INLINE void each_row(const Box& box, F f) {
  const int64_t planes = box.planes, rows = box.rows, patch_row = box.patch_row, map_row = box.map_row;
  const int64_t patch_plane = box.patch_plane, map_plane = box.map_plane;
  for (int64_t p = 0; p < planes; ++p) {
    int64_t patch = p * patch_plane, map = p * map_plane;
    for (int64_t r = 0; r < rows; ++r, patch += patch_row, map += map_row) {
      f(patch, map);
    }
  }
}

// f(width, patch offset, map offset) for each row of each strip.
template <class F>
ZONOCUDA_INLINE void each_piece(const Box& box, F f) {
  each_strip(box, [&](auto width, int64_t first) ZONOCUDA_LAMBDA {
    each_row(box, [&](int64_t p, int64_t m) ZONOCUDA_LAMBDA { f(width, p + first, m + first); });
  });
}

// A row of kWidth numbers in vectors of at most 32 bytes; the last overlaps the one before where they do not fit.
template <class T, int kWidth>
struct Parts {
  static constexpr int kCount = std::min<int>(std::bit_floor(unsigned(kWidth)), 32 / sizeof(T));
  static constexpr int kParts = (kWidth + kCount - 1) / kCount;
  using V = typename Vector<T, kCount>::type;

  V part[kParts] = {};

  static constexpr int first(int i) { return std::min(i * kCount, kWidth - kCount); }

  // part i = value(part i, type of a vector, its first number)
  template <class F>
  ZONOCUDA_INLINE void update(F value) {
#pragma GCC unroll 8
    for (int i = 0; i < kParts; ++i) {
      part[i] = value(part[i], std::type_identity<V>{}, first(i));
    }
  }

  ZONOCUDA_INLINE void store_to(T* out) const {
#pragma GCC unroll 8
    for (int i = 0; i < kParts; ++i) {
      store(out + first(i), part[i]);
    }
  }
};

// out = value(type of a vector, j), for numbers j and following of a row. All are computed before the first is stored:
// out may be what they are computed from.
template <class W, class T, class F>
ZONOCUDA_INLINE void store_row(W, T* out, F value) {
  Parts<T, W::value> row;
  row.update([&](const auto&, auto v, int j) ZONOCUDA_LAMBDA { return value(v, j); });
  row.store_to(out);
}

// One partial sum for each column of a strip; then the sum of these.
template <class T>
ZONOCUDA_INLINE T dot_rows(const Box& box, const T* patch, const T* map) {
  T sum = T(0);
  each_strip(box, [&](auto width, int64_t first) ZONOCUDA_LAMBDA {
    constexpr int kWidth = decltype(width)::value;
    Parts<T, kWidth> parts;
    each_row(box, [&](int64_t p, int64_t m) ZONOCUDA_LAMBDA {
      parts.update([&](const auto& part, auto v, int j) ZONOCUDA_LAMBDA {
        using V = typename decltype(v)::type;
        return V(part + load<V>(patch + p + first + j) * load<V>(map + m + first + j));
      });
    });
    T sums[kWidth];
    parts.store_to(sums);
    for (T part : sums) {
      sum += part;
    }
  });
  return sum;
}

}  // namespace

#define ZONOCUDA_DEFINE_BOXES(T)                                                                   \
  ZONOCUDA_LOOP_CLONES void add_abs(const Box& box, const T* patch, T* map) {                      \
    each_piece(box, [=](auto w, int64_t p, int64_t m) ZONOCUDA_LAMBDA {                            \
      store_row(w, map + m, [=](auto v, int j) ZONOCUDA_LAMBDA {                                   \
        using V = typename decltype(v)::type;                                                      \
        return V(load<V>(map + m + j) + magnitude(load<V>(patch + p + j)));                        \
      });                                                                                          \
    });                                                                                            \
  }                                                                                                \
  ZONOCUDA_LOOP_CLONES void add_products(const Box& box, const T* a, const T* b, T* map) {         \
    each_piece(box, [=](auto w, int64_t p, int64_t m) ZONOCUDA_LAMBDA {                            \
      store_row(w, map + m, [=](auto v, int j) ZONOCUDA_LAMBDA {                                   \
        using V = typename decltype(v)::type;                                                      \
        return V(load<V>(map + m + j) + load<V>(a + p + j) * load<V>(b + p + j));                  \
      });                                                                                          \
    });                                                                                            \
  }                                                                                                \
  ZONOCUDA_LOOP_CLONES void add_scaled(const Box& box, T factor, const T* patch, T* map) {         \
    each_piece(box, [=](auto w, int64_t p, int64_t m) ZONOCUDA_LAMBDA {                            \
      store_row(w, map + m, [=](auto v, int j) ZONOCUDA_LAMBDA {                                   \
        using V = typename decltype(v)::type;                                                      \
        return V(load<V>(map + m + j) + factor * load<V>(patch + p + j));                          \
      });                                                                                          \
    });                                                                                            \
  }                                                                                                \
  ZONOCUDA_LOOP_CLONES void multiply(const Box& box, const T* patch, const T* map, T* out) {       \
    each_piece(box, [=](auto w, int64_t p, int64_t m) ZONOCUDA_LAMBDA {                            \
      store_row(w, out + p, [=](auto v, int j) ZONOCUDA_LAMBDA {                                   \
        using V = typename decltype(v)::type;                                                      \
        return V(load<V>(map + m + j) * load<V>(patch + p + j));                                   \
      });                                                                                          \
    });                                                                                            \
  }                                                                                                \
  ZONOCUDA_LOOP_CLONES void multiply_signs(const Box& box, const T* patch, const T* map, T* out) { \
    each_piece(box, [=](auto w, int64_t p, int64_t m) ZONOCUDA_LAMBDA {                            \
      store_row(w, out + p, [=](auto v, int j) ZONOCUDA_LAMBDA {                                   \
        using V = typename decltype(v)::type;                                                      \
        return V(load<V>(map + m + j) * sign(load<V>(patch + p + j)));                             \
      });                                                                                          \
    });                                                                                            \
  }                                                                                                \
  ZONOCUDA_LOOP_CLONES void scale(const Box& box, T factor, const T* patch, T* out) {              \
    each_piece(box, [=](auto w, int64_t p, int64_t) ZONOCUDA_LAMBDA {                              \
      store_row(w, out + p, [=](auto v, int j) ZONOCUDA_LAMBDA {                                   \
        using V = typename decltype(v)::type;                                                      \
        return V(factor * load<V>(patch + p + j));                                                 \
      });                                                                                          \
    });                                                                                            \
  }                                                                                                \
  ZONOCUDA_LOOP_CLONES void copy_to_map(const Box& box, const T* patch, T* map) {                  \
    each_piece(box, [=](auto w, int64_t p, int64_t m) ZONOCUDA_LAMBDA {                            \
      store_row(w, map + m, [=](auto v, int j) ZONOCUDA_LAMBDA {                                   \
        using V = typename decltype(v)::type;                                                      \
        return V(load<V>(patch + p + j));                                                          \
      });                                                                                          \
    });                                                                                            \
  }                                                                                                \
  ZONOCUDA_LOOP_CLONES void copy_to_patch(const Box& box, const T* map, T* patch) {                \
    each_piece(box, [=](auto w, int64_t p, int64_t m) ZONOCUDA_LAMBDA {                            \
      store_row(w, patch + p, [=](auto v, int j) ZONOCUDA_LAMBDA {                                 \
        using V = typename decltype(v)::type;                                                      \
        return V(load<V>(map + m + j));                                                            \
      });                                                                                          \
    });                                                                                            \
  }                                                                                                \
  ZONOCUDA_LOOP_CLONES T dot(const Box& box, const T* patch, const T* map) { return dot_rows(box, patch, map); }

ZONOCUDA_DEFINE_BOXES(float)
ZONOCUDA_DEFINE_BOXES(double)
#undef ZONOCUDA_DEFINE_BOXES

}  // namespace zonocuda::cpu

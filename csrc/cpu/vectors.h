// The vectors that the CPU kernels compute with.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "targets.h"

#define ZONOCUDA_LAMBDA __attribute__((always_inline))
#pragma GCC diagnostic ignored "-Wpsabi"  // how a vector is passed: never, as all is inlined

namespace zonocuda::cpu {

// kCount numbers that are loaded, computed and stored as one; a number where kCount is 1.
template <class T, int kCount>
struct Vector {
  typedef T type __attribute__((vector_size(kCount * sizeof(T))));
};

template <class T>
struct Vector<T, 1> {
  using type = T;
};

template <class V, class T>
ZONOCUDA_INLINE V load(const T* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(V));
  return v;
}

template <class V, class T>
ZONOCUDA_INLINE void store(T* p, const V& v) {
  __builtin_memcpy(p, &v, sizeof(V));
}

template <class V>
ZONOCUDA_INLINE V magnitude(const V& x) {
  if constexpr (std::is_floating_point_v<V>) {
    return std::fabs(x);
  } else {
    using Bits = decltype(x < x);
    return V(Bits(x) & ~Bits(-V{}));  // all but the sign
  }
}

// As math/relu.h's: 0 for a NaN.
template <class V>
ZONOCUDA_INLINE V sign(const V& x) {
  const V zero{}, one = zero + 1;
  return (x > 0 ? one : zero) - (x < 0 ? one : zero);
}

}  // namespace zonocuda::cpu

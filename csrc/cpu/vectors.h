// How the CPU kernels are compiled for several instruction sets, and the vectors that they compute with.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

// The loader picks the widest instruction set of the machine. Contraction is off in every clone, so that all of them,
// and the CUDA kernels, round alike.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define ZONOCUDA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ZONOCUDA_CLONES
#endif
// What the clones call is inlined into them: a function of its own would be compiled for the oldest machine.
#define ZONOCUDA_INLINE __attribute__((always_inline)) inline
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

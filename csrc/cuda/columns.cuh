// Sums over the symbols of generators [batch, symbols, features], and maps over their rows.
//
// A thread owns V neighbouring columns (one 16-byte access where the features divide by V), so that a warp reads 32 * V
// consecutive numbers of a row. The order of a sum is a matter of the number of symbols alone: a segment of kSegment
// symbols (or more) has kStrips strips, every kStrips-th symbol each; a strip is added up from its first symbol on,
// then the strips of a segment in order, then the segments. So every kernel that follows this order finds the same
// bits, however it divides the columns and the segments over its blocks: no atomics, on every device, for every batch.
#pragma once

#include "../math/index.h"

namespace zonocuda::cuda {

constexpr int kLanes = 32;         // threadIdx.x: column groups
constexpr int kStrips = 8;         // threadIdx.y: strips of symbols
constexpr int kUnroll = 4;         // rows in flight for each thread
constexpr int kSegment = 256;      // symbols that are added up before those of other segments join them, or
constexpr int kMostSegments = 64;  // as many times more as leave this many segments
constexpr int64_t kThreads = 256;  // of the pointwise kernels

template <class T>
constexpr int kVector = 16 / sizeof(T);

template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T at[V];
};

template <class T, int V>
__device__ Pack<T, V> load(const T* p) {
  return *reinterpret_cast<const Pack<T, V>*>(p);
}

template <class T, int V>
__device__ void store(T* p, const Pack<T, V>& pack) {
  *reinterpret_cast<Pack<T, V>*>(p) = pack;
}

/// The shape of generators.
struct Layout {
  int64_t batch, symbols, features;

  ZONOCUDA_HD int64_t neurons() const { return batch * features; }

  /// Symbols of a segment, and segments; both depend on the number of symbols alone.
  ZONOCUDA_HD int64_t segment() const { return kSegment * (1 + (symbols - 1) / (kMostSegments * kSegment)); }
  ZONOCUDA_HD int64_t segments() const { return ceil_div(symbols, segment()); }
};

/// sum_k |x[k]|
template <class T>
struct AbsTerm {
  const T* x;

  template <int V>
  __device__ Pack<T, V> operator()(int64_t offset) const {
    Pack<T, V> p = load<T, V>(x + offset);
    for (int i = 0; i < V; ++i) {
      p.at[i] = p.at[i] < T(0) ? -p.at[i] : p.at[i];
    }
    return p;
  }
};

/// sum_k x[k] * y[k]
template <class T>
struct ProductTerm {
  const T* x;
  const T* y;

  template <int V>
  __device__ Pack<T, V> operator()(int64_t offset) const {
    Pack<T, V> p = load<T, V>(x + offset);
    const Pack<T, V> q = load<T, V>(y + offset);
    for (int i = 0; i < V; ++i) {
      p.at[i] *= q.at[i];
    }
    return p;
  }
};

/// partial[segment, b, n] = sum of term over the symbols of that segment. Grid: x over column groups (looped), y over
/// segments (looped); block (kLanes, kStrips). Reads each generator once: bound by memory bandwidth. Two buffers of
/// strips take turns, so that one barrier for each segment is enough: who writes a buffer again has passed the barrier
/// of the segment between, which its readers reach when they have read it.
template <class T, int V, class Term>
__global__ void sum_columns_kernel(Layout s, Term term, T* partial) {
  __shared__ T strips[2][kStrips][kLanes * V];
  const int64_t groups_per_row = s.features / V;
  const int64_t groups = s.batch * groups_per_row;
  const int64_t length = s.segment();
  int buffer = 0;
  for (int64_t base = int64_t(blockIdx.x) * kLanes; base < groups; base += int64_t(gridDim.x) * kLanes) {
    const int64_t group = base + threadIdx.x;
    const bool inside = group < groups;
    const int64_t b = inside ? group / groups_per_row : 0;
    const int64_t n = inside ? group % groups_per_row * V : 0;
    for (int64_t segment = blockIdx.y; segment * length < s.symbols; segment += gridDim.y) {
      const int64_t end = (segment + 1) * length;
      const int64_t last = end < s.symbols ? end : s.symbols;
      Pack<T, V> sum{};
      if (inside) {
        int64_t k = segment * length + threadIdx.y;
        for (; k + (kUnroll - 1) * kStrips < last; k += kUnroll * kStrips) {
          Pack<T, V> terms[kUnroll];
#pragma unroll
          for (int r = 0; r < kUnroll; ++r) {
            terms[r] = term.template operator()<V>(generator_offset(b, k + r * kStrips, n, s.symbols, s.features));
          }
#pragma unroll
          for (int r = 0; r < kUnroll; ++r) {
            for (int i = 0; i < V; ++i) {
              sum.at[i] += terms[r].at[i];
            }
          }
        }
        for (; k < last; k += kStrips) {
          const Pack<T, V> one = term.template operator()<V>(generator_offset(b, k, n, s.symbols, s.features));
          for (int i = 0; i < V; ++i) {
            sum.at[i] += one.at[i];
          }
        }
      }
      for (int i = 0; i < V; ++i) {
        strips[buffer][threadIdx.y][threadIdx.x * V + i] = sum.at[i];
      }
      __syncthreads();
      if (threadIdx.y == 0 && inside) {
        for (int strip = 1; strip < kStrips; ++strip) {
          for (int i = 0; i < V; ++i) {
            sum.at[i] += strips[buffer][strip][threadIdx.x * V + i];
          }
        }
        store<T, V>(partial + (segment * s.batch + b) * s.features + n, sum);
      }
      buffer = 1 - buffer;
    }
  }
}

/// The sum over the segments of a partial sum, for neuron i of all [batch, features].
template <class T>
__device__ T finish_sum(const T* partial, const Layout& s, int64_t i) {
  const int64_t length = s.segment(), neurons = s.neurons();
  T sum = T(0);
  for (int64_t k = 0; k < s.symbols; k += length, i += neurons) {
    sum += partial[i];
  }
  return sum;
}

/// out[b, k, n] = map(offset, b * features + n) for V columns at a time; out may be what the map reads. Grid: x over
/// column groups (looped), y over strips of rows (looped); block (kLanes, kStrips). Reads and writes each element once:
/// bound by memory bandwidth. kUnroll rows are loaded before the first is stored: for all that the compiler knows, a
/// store changes what the next load reads.
template <class T, int V, class Map>
__global__ void map_rows_kernel(Layout s, Map map, T* out) {
  const int64_t groups_per_row = s.features / V;
  const int64_t groups = s.batch * groups_per_row;
  for (int64_t group = int64_t(blockIdx.x) * kLanes + threadIdx.x; group < groups;
       group += int64_t(gridDim.x) * kLanes) {
    const int64_t b = group / groups_per_row;
    const int64_t n = group % groups_per_row * V;
    const typename Map::template Factors<V> factors = map.template factors<V>(b * s.features + n);
    const int64_t stride = int64_t(gridDim.y) * kStrips;
    int64_t k = int64_t(blockIdx.y) * kStrips + threadIdx.y;
    for (; k + (kUnroll - 1) * stride < s.symbols; k += kUnroll * stride) {
      Pack<T, V> values[kUnroll];
#pragma unroll
      for (int r = 0; r < kUnroll; ++r) {
        values[r] = map.template operator()<V>(generator_offset(b, k + r * stride, n, s.symbols, s.features), factors);
      }
#pragma unroll
      for (int r = 0; r < kUnroll; ++r) {
        store<T, V>(out + generator_offset(b, k + r * stride, n, s.symbols, s.features), values[r]);
      }
    }
    for (; k < s.symbols; k += stride) {
      const int64_t offset = generator_offset(b, k, n, s.symbols, s.features);
      store<T, V>(out + offset, map.template operator()<V>(offset, factors));
    }
  }
}

/// factor * x
template <class T>
struct ScaleMap {
  const T* x;
  const T* factor;

  template <int V>
  using Factors = Pack<T, V>;

  template <int V>
  __device__ Pack<T, V> factors(int64_t neuron) const {
    return load<T, V>(factor + neuron);
  }

  template <int V>
  __device__ Pack<T, V> operator()(int64_t offset, const Pack<T, V>& f) const {
    Pack<T, V> p = load<T, V>(x + offset);
    for (int i = 0; i < V; ++i) {
      p.at[i] = f.at[i] * p.at[i];
    }
    return p;
  }
};

}  // namespace zonocuda::cuda

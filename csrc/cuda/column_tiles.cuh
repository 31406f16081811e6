// One pass over generators [batch, symbols, features] that sums each column and then rewrites it by what the sum says:
// read once, written once, where sum_columns_kernel and map_rows_kernel read them twice.
//
// A block owns a tile: columns of 32 to 512 bytes, whole sectors of memory, with all their symbols, in shared memory.
// Its bytes are all in flight at once. The sums follow the order of columns.cuh, so that both ways give the same bits.
#pragma once

#ifdef __CUDACC__
#include <cuda_pipeline_primitives.h>
#endif

#include "columns.cuh"

namespace zonocuda::cuda {

constexpr int64_t kTileWidths[] = {512, 256, 128, 64, 32};  // bytes of a row; its lanes divide kThreads
constexpr int64_t kWideTile = 128;          // bytes of a row above which nothing is won but more bytes in flight
constexpr int64_t kSmallTile = 32 << 10;    // bytes that one block reads and writes in the time of a launch
constexpr int64_t kBlockReserve = 1 << 10;  // bytes of shared memory that the system takes from each block
constexpr int64_t kEnoughTiles = 256;       // two for each multiprocessor of an A100 (108) or H100 (132), about
constexpr int64_t kFewTiles = 64;           // half of the multiprocessors or more have nothing to do

/// Bytes of shared memory of a tile: its symbols from each of `sources` generators, a sum for each strip, and `factors`
/// numbers for each column.
inline int64_t tile_bytes(const Layout& s, int64_t width, int sources, int factors) {
  return width * (sources * s.symbols + kStrips * s.segments() + factors);
}

/// What decides between one launch and two: tile_width, or a person who measures. One: wherever a tile fits.
enum class Launches { by_rule = 0, one = 1, two = 2 };

/// Bytes of a row of a tile, or 0 where two launches are better. `item`: bytes of a number; `limit`: bytes of shared
/// memory that a block may have.
///
/// One pass moves each of `sources` generators once and their result once, two launches the sources twice: 2 against 3
/// for the forward pass, 3 against 5 for the backward one. So it is one pass wherever a tile fits: with the 227 KiB of
/// an H100 up to about 7000 symbols forward and 3500 backward, with the 163 KiB of an A100 up to 5000 and 2500.
///
/// The widest tile of which two fit on a multiprocessor, so that one is read while the other is summed or written, and
/// of which there are enough for the device; more than 128 bytes wide only while it is small, since many blocks with
/// small tiles take turns better than two with large ones. Else the narrowest, alone if need be. But a block moves no
/// more than its own multiprocessor can: where the narrowest tiles are few and tall, two launches are better, which
/// divide the symbols over the others too. Whichever it is, the bits are the same.
inline int64_t tile_width(const Layout& s, int64_t item, int sources, int factors, int64_t limit, Launches launches) {
  if (s.symbols == 0 || launches == Launches::two) {
    return 0;  // without symbols, nothing to read
  }
  const auto bytes = [&](int64_t width) { return tile_bytes(s, width, sources, factors); };
  const auto tiles = [&](int64_t width) { return ceil_div(s.neurons() * item, width); };
  for (const int64_t width : kTileWidths) {
    const int64_t most = width > kWideTile ? kSmallTile : (limit - kBlockReserve) / 2;
    if (bytes(width) <= most && tiles(width) >= kEnoughTiles) {
      return width;
    }
  }
  const int64_t width = 32;
  const bool starves = launches == Launches::by_rule && tiles(width) < kFewTiles && bytes(width) > kSmallTile;
  return bytes(width) <= limit && !starves ? width : 0;
}

#ifdef __CUDACC__
/// The dynamic shared memory of the block. (Kernels that run on a CPU are given another one.)
template <class T>
__device__ T* dynamic_shared() {
  extern __shared__ float4 dynamic_shared_memory[];
  return reinterpret_cast<T*>(dynamic_shared_memory);
}
#endif

/// A tile in shared memory, of `columns` columns.
template <class T>
struct Tile {
  T* values;   // [sources, symbols, columns]
  T* strips;   // [segments, kStrips, columns]: sums; then the first of each kStrips is the segment's
  T* factors;  // [factors, columns]
  int symbols, segment, segments, columns;

  __device__ Tile(const Layout& s, int columns, int sources)
      : values(dynamic_shared<T>()),
        symbols(int(s.symbols)),
        segment(int(s.segment())),
        segments(int(s.segments())),
        columns(columns) {
    strips = values + sources * symbols * columns;
    factors = strips + segments * kStrips * columns;
  }

  /// strips: a thread adds up every `threads`-th of the strips of its V columns.
  template <int V, class Term>
  __device__ void sum_strips(const Term& term, int column, int thread, int threads) const {
    for (int strip = thread; strip < segments * kStrips; strip += threads) {
      const int begin = strip / kStrips * segment;
      const int last = begin + segment < symbols ? begin + segment : symbols;
      Pack<T, V> sum{};
#pragma unroll 4
      for (int k = begin + strip % kStrips; k < last; k += kStrips) {
        const Pack<T, V> one = term.template operator()<V>(k * columns + column);
        for (int i = 0; i < V; ++i) {
          sum.at[i] += one.at[i];
        }
      }
      store<T, V>(strips + strip * columns + column, sum);
    }
  }

  /// The sums of the segments, from those of their strips.
  __device__ void sum_segments() const {
    for (int i = threadIdx.x; i < segments * columns; i += blockDim.x) {
      T* const of_segment = strips + i / columns * kStrips * columns + i % columns;
      T sum = of_segment[0];
      for (int strip = 1; strip < kStrips; ++strip) {
        sum += of_segment[strip * columns];
      }
      of_segment[0] = sum;
    }
  }

  /// The sum of a column, from those of the segments.
  __device__ T total(int column) const {
    T sum = T(0);
    for (int i = 0; i < segments; ++i) {
      sum += strips[i * kStrips * columns + column];
    }
    return sum;
  }
};

/// One pass over generators, as `Pass` says: their `sources`; the `term` that is summed over each column of a tile;
/// `neuron(i, sum, factors, stride)`, all that is done for neuron i, which leaves its factors behind, `stride` apart;
/// and the `map` of the tile's rows with these factors, which goes to `out`; `out` may be a source. Grid: x over tiles
/// of `columns` columns of all [batch, features] (looped); block (kThreads); dynamic shared memory: tile_bytes. Reads
/// and writes each element once: bound by memory bandwidth.
template <class T, int V, class Pass>
__global__ void one_pass_kernel(Layout s, int columns, Pass pass) {
  const Tile<T> tile(s, columns, Pass::kSources);
  const int lanes = columns / V;
  const int column = threadIdx.x % lanes * V;  // of V that the thread reads, sums and writes
  const int first = threadIdx.x / lanes, stride = blockDim.x / lanes;
  const int source_size = tile.symbols * columns;
  for (int64_t start = int64_t(blockIdx.x) * columns; start < s.neurons(); start += int64_t(gridDim.x) * columns) {
    const int64_t neuron = start + column;
    const bool inside = neuron < s.neurons();
    const int64_t offset = generator_offset(neuron / s.features, 0, neuron % s.features, s.symbols, s.features);
    for (int source = 0; inside && source < Pass::kSources; ++source) {
#pragma unroll 4
      for (int k = first; k < tile.symbols; k += stride) {
        __pipeline_memcpy_async(tile.values + source * source_size + k * columns + column,
                                pass.sources[source] + offset + k * s.features, sizeof(T) * V);
      }
    }
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncthreads();
    if (inside) {
      tile.template sum_strips<V>(pass.term(tile.values, source_size), column, first, stride);
    }
    __syncthreads();
    tile.sum_segments();
    __syncthreads();
    if (threadIdx.x < columns && start + threadIdx.x < s.neurons()) {
      pass.neuron(start + threadIdx.x, tile.total(threadIdx.x), tile.factors + threadIdx.x, columns);
    }
    __syncthreads();
    if (inside) {
      const auto map = pass.map(tile.values, source_size, tile.factors, columns);
      const auto factors = map.template factors<V>(column);
#pragma unroll 4
      for (int k = first; k < tile.symbols; k += stride) {
        store<T, V>(pass.out + offset + k * s.features, map.template operator()<V>(k * columns + column, factors));
      }
    }
    // A thread copies the next tile over what it alone has just read, but only a barrier orders copies behind reads.
    __syncthreads();
  }
}

}  // namespace zonocuda::cuda

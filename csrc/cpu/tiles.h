// How the CPU kernels divide generators [batch, symbols, features] among threads: by tiles of columns, so that every
// sum over the symbols belongs to one thread, runs in a fixed order, and finds its tile in the cache on a second pass.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../common/check.h"
#include "../math/index.h"
#include "rows.h"

namespace zonocuda::cpu {

constexpr int64_t kTileBytes = 768 * 1024;  // of generators; what a second pass should still find in a core's L2 cache
constexpr int64_t kCacheTile = 512;         // columns; narrower, short pieces of rows cost more than the cache saves
constexpr int64_t kMinTile = 64;            // columns; a few cache lines per row
constexpr int64_t kMaxTile = 2048;          // columns; the sums of a tile stay in the L1 cache
constexpr int64_t kLineColumns = 16;        // columns of a cache line, of float
constexpr int64_t kGrain = 1 << 15;         // elements below which a second thread does not pay

/// Bytes of an output from which on it is written past the caches: the next op, which reads it from its beginning,
/// would not find that in the caches any more.
constexpr int64_t kStreamedBytes = int64_t(32) << 20;

inline Writes writes_of(const Sizes& s, int64_t element_bytes) {
  const bool large = s.batch * s.symbols * s.features * element_bytes >= kStreamedBytes;
  return large ? Writes::streamed : Writes::cached;
}

/// What fits the caches, or as wide as can be where that would be too narrow; and such that every thread gets as many
/// columns as another.
inline int64_t tile_width(const Sizes& s, int64_t reread_bytes) {
  const int64_t fits = kTileBytes / std::max<int64_t>(1, s.symbols * reread_bytes);
  const int64_t wanted = fits < kCacheTile ? kMaxTile : std::min(fits, kMaxTile);
  const int64_t threads = torch::stable::get_num_threads();
  int64_t tiles = ceil_div(s.features, wanted);
  while (s.batch * tiles % threads != 0 && s.batch * tiles < 8 * threads && ceil_div(s.features, tiles) > kMinTile) {
    ++tiles;
  }
  return ceil_div(ceil_div(s.features, tiles), kLineColumns) * kLineColumns;
}

/// Calls f(b, n, width) for every tile of columns n ... n + width - 1 of batch element b, in parallel. `reread_bytes`:
/// of each generator entry, what a second pass of f reads again; 0 where f passes once, and tiles may be as wide as
/// they like.
template <class F>
void for_each_tile(const Sizes& s, int64_t reread_bytes, const F& f) {
  const int64_t width = tile_width(s, reread_bytes);
  const int64_t tiles = ceil_div(s.features, width);
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, width * s.symbols));
  torch::stable::parallel_for(0, s.batch * tiles, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t n = t % tiles * width;
      f(t / tiles, n, std::min(width, s.features - n));
    }
  });
}

}  // namespace zonocuda::cpu

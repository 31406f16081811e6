// Sums and maps of windowed generators: patches [batch, symbols, channels, rows, columns] at corners [symbols, 2].
//
// A sum over the symbols needs no atomics: a block owns a tile of the map in shared memory, finds the symbols whose
// windows touch it, and adds their patches one after another, in order.
#pragma once

#include "../math/relu.h"
#include "../math/window.h"
#include "columns.cuh"

namespace zonocuda::cuda {

constexpr int kSumPlanes = 8;    // channels of a block's tile
constexpr int kSumWidth = 32;    // columns of a tile
constexpr int kSumPitch = 37;    // from one row of a tile to the next: windows of 5 columns meet no bank conflict
constexpr int kSumListed = 256;  // symbols looked at, at once
constexpr int kSumFlight = 8;    // patches in flight for each thread

/// Rows of a tile.
template <class T>
constexpr int kSumHeight = 128 / sizeof(T);

/// How a launch divides the sum over the windows: over blockIdx.x tiles of the maps (looped), over blockIdx.y `splits`
/// of the symbols. A warp adds `warp_planes` channels; kSumPlanes / warp_planes warps make a block.
struct WindowSum {
  Windows s;
  int64_t splits, warp_planes;

  ZONOCUDA_HD int64_t groups() const { return ceil_div(s.channels, kSumPlanes); }
  ZONOCUDA_HD int64_t tiles_x() const { return ceil_div(s.width, kSumWidth); }
  ZONOCUDA_HD int64_t tiles_y(int64_t tile_height) const { return ceil_div(s.height, tile_height); }
};

/// The position of a thread's flag among the flags of its block that are set, and their number. Every thread of the
/// block takes part; `counts` holds a number for each warp.
__device__ inline int place_in_block(bool flag, int* counts, int* total) {
  const int warps = blockDim.y, warp = threadIdx.y, lane = threadIdx.x;
  int before = flag;
  for (int step = 1; step < kLanes; step *= 2) {
    const int other = __shfl_up_sync(0xffffffffu, before, step);
    before += lane >= step ? other : 0;
  }
  if (lane == kLanes - 1) {
    counts[warp] = before;
  }
  __syncthreads();
  int sum = 0, place = before - flag;
  for (int w = 0; w < warps; ++w) {
    place += w < warp ? counts[w] : 0;
    sum += counts[w];
  }
  __syncthreads();
  *total = sum;
  return place;
}

/// partial[split, b, c, y, x] = the sum of term over the windows of that split. Block (kLanes, warps): the warps list
/// the symbols that touch the tile, kSumListed at a time at most; then each adds its own channels, lane by lane
/// neighbouring numbers of a patch, so that nobody else writes where it does. Reads each number of a patch once, and
/// every corner once for each tile and group of channels: bound by memory bandwidth where the tiles of a map are few.
template <class T, class Term>
__global__ void sum_windows_kernel(WindowSum sum, Term term, const int64_t* corners, T* partial) {
  constexpr int kHeight = kSumHeight<T>;
  __shared__ T tile[kSumPlanes][kHeight][kSumPitch];
  __shared__ int64_t symbols[kSumListed];
  __shared__ int64_t rows[kSumListed];
  __shared__ int64_t columns[kSumListed];
  __shared__ int counts[kSumPlanes];
  const Windows& s = sum.s;
  const int64_t tiles = sum.tiles_y(kHeight) * sum.tiles_x();
  const int64_t first = s.symbols * blockIdx.y / sum.splits;
  const int64_t last = s.symbols * (blockIdx.y + 1) / sum.splits;
  const int threads = blockDim.y * kLanes, thread = threadIdx.y * kLanes + threadIdx.x;
  const int64_t window = s.rows * s.columns;
  for (int64_t item = blockIdx.x; item < s.batch * sum.groups() * tiles; item += gridDim.x) {
    const int64_t b = item / tiles / sum.groups();
    const int64_t c0 = item / tiles % sum.groups() * kSumPlanes;
    const int64_t y0 = item % tiles / sum.tiles_x() * kHeight;
    const int64_t x0 = item % sum.tiles_x() * kSumWidth;
    const int height = int(smaller(kHeight, s.height - y0)), width = int(smaller(kSumWidth, s.width - x0));
    const int planes = int(smaller(kSumPlanes, s.channels - c0));
    const int own = threadIdx.y * int(sum.warp_planes);  // this warp's first plane of the tile
    const int owned = planes - own < sum.warp_planes ? planes - own : int(sum.warp_planes);
    for (int i = thread; i < kSumPlanes * kHeight * kSumPitch; i += threads) {
      (&tile[0][0][0])[i] = T(0);
    }
    for (int64_t begin = first; begin < last; begin += threads) {
      const int64_t k = begin + thread;
      int64_t y = 0, x = 0;
      bool touches = false;
      if (k < last) {
        y = corners[2 * k];
        x = corners[2 * k + 1];
        touches = clip(y, s.rows, y0, y0 + height).size() > 0 && clip(x, s.columns, x0, x0 + width).size() > 0;
      }
      int listed;
      const int place = place_in_block(touches, counts, &listed);
      if (touches) {
        symbols[place] = k;
        rows[place] = y - y0;
        columns[place] = x - x0;
      }
      __syncthreads();
      for (int64_t base = 0; base < owned * window; base += kLanes) {
        const int64_t element = base + threadIdx.x;
        const bool mine = element < owned * window;
        const int plane = mine ? own + int(element / window) : 0;
        const int64_t t = element % window / s.columns, u = element % s.columns;
        for (int i = 0; i < listed; i += kSumFlight) {
          T value[kSumFlight] = {};
          int at[kSumFlight];
#pragma unroll
          for (int r = 0; r < kSumFlight; ++r) {
            at[r] = -1;
            if (mine && i + r < listed) {
              const int64_t row = rows[i + r] + t, column = columns[i + r] + u;
              if (between(0, row, height) && between(0, column, width)) {
                at[r] = (plane * kHeight + int(row)) * kSumPitch + int(column);
                const int64_t patch = (b * s.symbols + symbols[i + r]) * s.patch();
                value[r] = term.template operator()<1>(patch + (c0 + own) * window + element).at[0];
              }
            }
          }
#pragma unroll
          for (int r = 0; r < kSumFlight; ++r) {
            if (at[r] >= 0) {
              (&tile[0][0][0])[at[r]] += value[r];
            }
            __syncwarp();
          }
        }
      }
      __syncthreads();
    }
    __syncthreads();
    T* out = partial + blockIdx.y * s.batch * s.map() + (b * s.channels + c0) * s.plane();
    for (int i = thread; i < planes * height * width; i += threads) {
      const int plane = i / (height * width), row = i / width % height, column = i % width;
      out[plane * s.plane() + (y0 + row) * s.width + x0 + column] = tile[plane][row][column];
    }
    __syncthreads();
  }
}

/// sum[i] = the sum over the splits of a partial sum [splits, count], in order. A thread owns a number.
template <class T>
__global__ void add_splits_kernel(int64_t splits, int64_t count, const T* partial, T* sum) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    T total = T(0);
    for (int64_t split = 0; split < splits; ++split) {
      total += partial[split * count + i];
    }
    sum[i] = total;
  }
}

/// patches[b, k, c, t, u] = map(its offset, b * symbols + k, b, place) for an element at `place` of a single map
/// [channels, height, width], 0 for one outside. Grid: x over the elements of the patches of each batch element
/// (looped), y over strips of symbols (looped); block (kLanes, kStrips). A thread keeps its element (c, t, u) and
/// passes from symbol to symbol; what it reads of the map lies beside what its neighbours read. Reads and writes each
/// element once: bound by memory bandwidth. kUnroll elements are loaded before the first is stored, see
/// map_rows_kernel.
template <class T, class Map>
__global__ void map_windows_kernel(Windows s, const int64_t* corners, Map map, T* patches) {
  const int64_t count = s.patch();
  const int64_t groups = ceil_div(count, kLanes);
  for (int64_t group = blockIdx.x; group < s.batch * groups; group += gridDim.x) {
    const int64_t b = group / groups;
    const int64_t element = group % groups * kLanes + threadIdx.x;
    if (element >= count) {
      continue;
    }
    const int64_t c = element / (s.rows * s.columns);
    const int64_t t = element / s.columns % s.rows, u = element % s.columns;
    const int64_t stride = int64_t(gridDim.y) * kStrips;
    for (int64_t first = int64_t(blockIdx.y) * kStrips + threadIdx.y; first < s.symbols; first += kUnroll * stride) {
      T values[kUnroll] = {};
#pragma unroll
      for (int r = 0; r < kUnroll; ++r) {
        const int64_t k = first + r * stride;
        if (k < s.symbols) {
          const int64_t y = near_corner(corners[2 * k], s.rows, 0, s.height) + t;
          const int64_t x = near_corner(corners[2 * k + 1], s.columns, 0, s.width) + u;
          if (between(0, y, s.height) && between(0, x, s.width)) {
            const int64_t generator = b * s.symbols + k;
            values[r] = map(generator * count + element, generator, b, (c * s.height + y) * s.width + x);
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kUnroll; ++r) {
        const int64_t k = first + r * stride;
        if (k < s.symbols) {
          patches[(b * s.symbols + k) * count + element] = values[r];
        }
      }
    }
  }
}

}  // namespace zonocuda::cuda

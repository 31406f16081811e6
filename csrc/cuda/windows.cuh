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
template <class I>
struct WindowSumOf {
  WindowsOf<I> s;
  I splits, warp_planes;

  ZONOCUDA_HD I groups() const { return ceil_div(s.channels, I(kSumPlanes)); }
  ZONOCUDA_HD I tiles_x() const { return ceil_div(s.width, I(kSumWidth)); }
  ZONOCUDA_HD I tiles_y(I tile_height) const { return ceil_div(s.height, tile_height); }
};
using WindowSum = WindowSumOf<int64_t>;

/// A symbol's window: its corner, moved as near as it gets without another position in sight, where in memory that lies
/// on the map or tile, and where its patch begins.
template <class I>
struct alignas(16) Listed {
  I row, column, place, patch;
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
template <class T, class I, class Term>
__global__ void sum_windows_kernel(WindowSumOf<I> sum, Term term, const int64_t* corners, T* partial) {
  constexpr int kHeight = kSumHeight<T>;
  __shared__ T tile[kSumPlanes][kHeight][kSumPitch];
  __shared__ Listed<I> windows[kSumListed + kSumFlight];  // behind those that are listed, some that no tile sees
  __shared__ int counts[kSumPlanes];
  const WindowsOf<I>& s = sum.s;
  const I tiles = sum.tiles_y(kHeight) * sum.tiles_x(), window = s.rows * s.columns, patch = s.patch();
  const I first = I(int64_t(s.symbols) * blockIdx.y / sum.splits);
  const I last = I(int64_t(s.symbols) * (blockIdx.y + 1) / sum.splits);
  const int threads = blockDim.y * kLanes, thread = threadIdx.y * kLanes + threadIdx.x;
  for (I item = blockIdx.x; item < s.batch * sum.groups() * tiles; item += gridDim.x) {
    const I b = item / tiles / sum.groups();
    const I c0 = item / tiles % sum.groups() * kSumPlanes;
    const I y0 = item % tiles / sum.tiles_x() * kHeight;
    const I x0 = item % sum.tiles_x() * kSumWidth;
    const int height = int(smaller(kHeight, s.height - y0)), width = int(smaller(kSumWidth, s.width - x0));
    const int planes = int(smaller(kSumPlanes, s.channels - c0));
    const int own = threadIdx.y * int(sum.warp_planes);  // this warp's first plane of the tile
    const int owned = planes - own < sum.warp_planes ? planes - own : int(sum.warp_planes);
    for (int i = thread; i < kSumPlanes * kHeight * kSumPitch; i += threads) {
      (&tile[0][0][0])[i] = T(0);
    }
    for (I begin = first; begin < last; begin += threads) {
      const I k = begin + thread;
      Listed<I> mine{};
      bool touches = false;
      if (k < last) {
        const I row = I(near_corner(corners[2 * int64_t(k)], s.rows, y0, y0 + height) - y0);
        const I column = I(near_corner(corners[2 * int64_t(k) + 1], s.columns, x0, x0 + width) - x0);
        mine = {row, column, row * kSumPitch + column, (b * s.symbols + k) * patch};
        touches = mine.row > -s.rows && mine.row < height && mine.column > -s.columns && mine.column < width;
      }
      int listed;
      const int place = place_in_block(touches, counts, &listed);
      if (touches) {
        windows[place] = mine;
      }
      if (thread < kSumFlight) {
        windows[listed + thread] = {height, width, 0, 0};
      }
      __syncthreads();
      for (I base = 0; base < owned * window; base += kLanes) {
        const I element = base + threadIdx.x;
        const bool mine = element < owned * window;
        const int plane = mine ? own + int(element / window) : 0;
        const I t = mine ? element % window / s.columns : s.rows + kHeight, u = element % s.columns;  // or: nowhere
        const I offset = (c0 + own) * window + element, place = plane * kHeight * kSumPitch + t * kSumPitch + u;
        for (int i = 0; i < listed; i += kSumFlight) {
          T value[kSumFlight] = {};
          int at[kSumFlight];
#pragma unroll
          for (int r = 0; r < kSumFlight; ++r) {
            const Listed<I> w = windows[i + r];
            const bool inside = is_below<I>(w.row + t, height) & is_below<I>(w.column + u, width);
            at[r] = inside ? int(w.place + place) : -1;
            if (inside) {
              value[r] = term.template operator()<1>(w.patch + offset).at[0];
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
    T* out = partial + I(blockIdx.y) * s.batch * s.map() + (b * s.channels + c0) * s.plane();
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

constexpr int kMapListed = kLanes * kStrips;  // symbols that a block looks at, at once

/// Symbols in flight for a thread that owns V numbers of each.
template <int V>
constexpr int kMapFlight = V == 1 ? kUnroll : 2;

/// The windows of symbols [first, first + kMapListed) on the whole map, one for each thread of the block.
template <class I>
__device__ void list_corners(const WindowsOf<I>& s, const int64_t* corners, I first, Listed<I>* listed) {
  const int thread = threadIdx.y * kLanes + threadIdx.x;
  if (first + thread < s.symbols) {
    const I y = I(near_corner(corners[2 * int64_t(first + thread)], s.rows, 0, s.height));
    const I x = I(near_corner(corners[2 * int64_t(first + thread) + 1], s.columns, 0, s.width));
    listed[thread] = {y, x, y * s.width + x, 0};
  }
}

/// patches[b, k, c, t, u] = map(own, there) of its own number and of the one at its place of a map [channels, height,
/// width], 0 for one outside. Grid: x over V elements at a time of the patches of each batch element (looped), y over
/// lists of symbols (looped); block (kLanes, kStrips): its threads list the corners of as many symbols, then each keeps
/// its elements (c, t, u) and passes from symbol to symbol; what it reads of the map lies beside what its neighbours
/// read. Reads and writes each element once, 16 bytes at a time where V numbers take as many: bound by memory
/// bandwidth. kMapFlight symbols are loaded before the first is stored, see map_rows_kernel.
template <class T, class I, int V, class Map>
__global__ void map_windows_kernel(WindowsOf<I> s, const int64_t* corners, Map map, T* patches) {
  constexpr int kFlight = kMapFlight<V>;
  __shared__ Listed<I> listed[kMapListed];
  const I count = s.patch(), size = s.map(), groups = ceil_div(count, I(kLanes * V));
  for (I group = blockIdx.x; group < s.batch * groups; group += gridDim.x) {
    const I b = group / groups;
    const I element = ((group - b * groups) * kLanes + threadIdx.x) * V;
    I row[V], column[V], place[V];
    for (int j = 0; j < V; ++j) {
      const I own = element < count ? element + j : I(0);
      const I line = own / s.columns;
      row[j] = line % s.rows;
      column[j] = own - line * s.columns;
      place[j] = line / s.rows * s.plane() + row[j] * s.width + column[j];
    }
    for (I first = I(blockIdx.y) * kMapListed; first < s.symbols; first += I(gridDim.y) * kMapListed) {
      list_corners(s, corners, first, listed);
      __syncthreads();
      const int symbols = element < count ? int(smaller(kMapListed, s.symbols - first)) : 0;
      for (int i = threadIdx.y; i < symbols; i += kFlight * kStrips) {
        Pack<T, V> values[kFlight] = {};
#pragma unroll
        for (int r = 0; r < kFlight; ++r) {
          if (i + r * kStrips < symbols) {
            const Listed<I> w = listed[i + r * kStrips];
            const I generator = b * s.symbols + first + i + r * kStrips;
            const Pack<T, V> own = map.template own<V>(generator * count + element);
            const I there = map.map_of(b, generator) * size + w.place;
#pragma unroll
            for (int j = 0; j < V; ++j) {
              if (is_below<I>(w.row + row[j], s.height) && is_below<I>(w.column + column[j], s.width)) {
                values[r].at[j] = map(own.at[j], map.maps[there + place[j]]);
              }
            }
          }
        }
#pragma unroll
        for (int r = 0; r < kFlight; ++r) {
          if (i + r * kStrips < symbols) {
            store<T, V>(patches + (b * s.symbols + first + i + r * kStrips) * count + element, values[r]);
          }
        }
      }
      __syncthreads();
    }
  }
}

}  // namespace zonocuda::cuda

// How the CPU kernels divide windowed generators among threads. A map has one owner for every element: a thread takes
// some channels and rows of it and adds the symbols in order, so that a sum does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../common/stable.h"
#include "../math/window.h"
#include "boxes.h"
#include "tiles.h"

namespace zonocuda::cpu {

constexpr int64_t kOwnedChannels = 32;  // of a thread at least, where there are as many: whole patches stream best

/// Channels [channel, channel + channels) and rows [row, row + rows) of the map of batch element b.
struct MapPart {
  int64_t b, channel, channels, row, rows;
};

/// Calls f(part) for parts that cover every map, in parallel; at least two parts for each thread where that is
/// possible.
template <class F>
void for_each_map_part(const Windows& s, const F& f) {
  const int64_t wanted = 2 * int64_t(torch::stable::get_num_threads());
  const int64_t groups = std::max<int64_t>(1, std::min(s.channels / kOwnedChannels, ceil_div(wanted, s.batch)));
  const int64_t bands = std::min(s.height, ceil_div(wanted, s.batch * groups));
  const int64_t parts = s.batch * groups * bands;
  const int64_t work = ceil_div(s.batch * s.symbols * s.patch(), parts);
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work));
  torch::stable::parallel_for(0, parts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / bands % groups, band = i % bands;
      const int64_t channel = s.channels * group / groups, row = s.height * band / bands;
      f(MapPart{i / bands / groups, channel, s.channels * (group + 1) / groups - channel, row,
                s.height * (band + 1) / bands - row});
    }
  });
}

/// The numbers from one plane to the next of a buffer for planes of `count`: an odd number of cache lines, so that the
/// planes of a small map do not fall on the same lines of the cache.
template <class T>
int64_t plane_stride(int64_t count) {
  constexpr int64_t line = 64 / sizeof(T);
  return (ceil_div(count, line) | 1) * line;
}

/// sum[b, c, y, x] = the sum over the symbols, in order, of what add(patch offset, map, box) adds to the map.
template <class T, class Add>
void sum_windows(const Windows& s, const int64_t* corners, T* sum, const Add& add) {
  if (s.batch * s.map() == 0) {
    return;
  }
  for_each_map_part(s, [&](const MapPart& part) {
    const int64_t stride = plane_stride<T>(part.rows * s.width);
    std::vector<T> planes(part.channels * stride);
    for (int64_t k = 0; k < s.symbols; ++k) {
      const Span y = clip(corners[2 * k], s.rows, part.row, part.row + part.rows);
      const Span x = clip(corners[2 * k + 1], s.columns, 0, s.width);
      if (y.size() > 0 && x.size() > 0) {
        const int64_t row = corners[2 * k] + y.first - part.row, column = corners[2 * k + 1] + x.first;
        const int64_t patch = (part.b * s.symbols + k) * s.patch() + (part.channel * s.rows + y.first) * s.columns;
        add(patch + x.first, planes.data() + row * s.width + column,
            Box{part.channels, y.size(), x.size(), s.rows * s.columns, s.columns, stride, s.width});
      }
    }
    T* out = sum + (part.b * s.channels + part.channel) * s.plane() + part.row * s.width;
    for (int64_t c = 0; c < part.channels; ++c) {
      std::copy_n(planes.data() + c * stride, part.rows * s.width, out + c * s.plane());
    }
  });
}

/// Maps [batch, channels, height, width] to read windows from: a copy with plane_stride where the windows read more
/// than the maps hold, else the maps themselves.
template <class T>
class WindowSource {
 public:
  WindowSource(const Windows& s, const T* maps) : maps_(maps), stride_(s.plane()), channels_(s.channels) {
    if (s.symbols * s.rows * s.columns > s.plane()) {
      stride_ = plane_stride<T>(s.plane());
      copy_.resize(s.batch * s.channels * stride_);
      for (int64_t plane = 0; plane < s.batch * s.channels; ++plane) {
        std::copy_n(maps + plane * s.plane(), s.plane(), copy_.data() + plane * stride_);
      }
      maps_ = copy_.data();
    }
  }

  int64_t stride() const { return stride_; }
  const T* map(int64_t b) const { return maps_ + b * channels_ * stride_; }

 private:
  const T* maps_;
  int64_t stride_, channels_;
  std::vector<T> copy_;
};

/// Zeros in a patch [channels, rows, columns] outside the box [y, x] of every channel.
template <class T>
void clear_outside(const Windows& s, const Span& y, const Span& x, T* patch) {
  if (y.size() == 0 || x.size() == 0) {
    std::fill_n(patch, s.patch(), T(0));
    return;
  }
  for (int64_t c = 0; c < s.channels; ++c) {
    T* const rows = patch + c * s.rows * s.columns;
    std::fill_n(rows, y.first * s.columns, T(0));
    for (int64_t row = y.first; row < y.last; ++row) {
      std::fill_n(rows + row * s.columns, x.first, T(0));
      std::fill_n(rows + row * s.columns + x.last, s.columns - x.last, T(0));
    }
    std::fill_n(rows + y.last * s.columns, (s.rows - y.last) * s.columns, T(0));
  }
}

/// Every number of patches [batch, symbols, ...], in parallel over (batch, symbol): zero outside the map, and inside
/// what write(b, k, patch offset, map offset, box) writes; the map offset is within its first plane, and the planes of
/// the map are `plane` numbers apart.
template <class T, class Write>
void fill_patches(const Windows& s, const int64_t* corners, int64_t plane, T* patches, const Write& write) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, s.patch()));
  torch::stable::parallel_for(0, s.batch * s.symbols, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t k = i % s.symbols;
      const Span y = clip(corners[2 * k], s.rows, 0, s.height);
      const Span x = clip(corners[2 * k + 1], s.columns, 0, s.width);
      if (y.size() < s.rows || x.size() < s.columns) {
        clear_outside(s, y, x, patches + i * s.patch());
      }
      if (y.size() > 0 && x.size() > 0) {
        const int64_t place = (corners[2 * k] + y.first) * s.width + corners[2 * k + 1] + x.first;
        write(i / s.symbols, k, i * s.patch() + y.first * s.columns + x.first, place,
              Box{s.channels, y.size(), x.size(), s.rows * s.columns, s.columns, plane, s.width});
      }
    }
  });
}

}  // namespace zonocuda::cpu

// A request of host_kernels.cpp: a kernel, its launch and its arguments. Included there, behind the kernels, in a
// namespace without a name.
#pragma once

/// One argument array, exactly as long as it may be used, with redzones of AddressSanitizer on both sides.
struct Array {
  std::string type, role;
  size_t count = 0, skip = 0;
  std::string given;  // its bytes as they came
  std::unique_ptr<char[]> bytes;

  size_t item() const {
    return type == "int8" ? 1 : type == "float16" ? 2 : type == "float32" || type == "int32" ? 4 : 8;
  }
  void reset() {
    bytes = std::make_unique_for_overwrite<char[]>(given.size());
    std::memcpy(bytes.get(), given.data(), given.size());
  }
};

struct Request {
  std::string kernel, dtype;
  int vector = 1;
  bool narrow = false;  // indices of 32 bits, in kernels that have them
  bool last_block_only = false;
  dim3 grid, block;
  size_t shared = 0;  // bytes of dynamic shared memory
  std::vector<int64_t> integers;
  std::vector<double> reals;
  std::vector<Array> arrays;

  bool read(std::istream& in) {
    std::string line;
    if (!std::getline(in, line)) {
      return false;
    }
    std::istringstream head(line);
    head >> kernel >> dtype >> vector >> narrow >> last_block_only >> grid.x >> grid.y >> block.x >> block.y >> shared;
    read_list(head, integers, [](std::istream& s, int64_t& i) { s >> i; });
    read_list(head, reals, [](std::istream& s, double& r) {
      std::string text;  // a stream does not read inf and nan
      s >> text;
      r = std::strtod(text.c_str(), nullptr);
    });
    read_list(head, arrays, [](std::istream& s, Array& a) { s >> a.type >> a.role >> a.count >> a.skip; });
    for (Array& a : arrays) {
      a.given.resize(a.count * a.item());
      in.read(a.given.data(), std::streamsize(a.given.size()));
    }
    if (!head || !in) {
      host_cuda::fail("malformed request");
    }
    return true;
  }

  template <class X, class F>
  static void read_list(std::istream& in, std::vector<X>& list, F read_one) {
    size_t count = 0;
    in >> count;
    list.resize(count);
    for (X& x : list) {
      read_one(in, x);
    }
  }

  /// The address that the kernel gets as its i-th array.
  template <class P>
  P* at(size_t i) const {
    const Array& a = arrays.at(i);
    if (a.role == "null") {
      return nullptr;
    }
    constexpr bool whole = std::is_integral_v<P>;
    if (a.item() != sizeof(P) || a.type.starts_with("int") != whole) {
      host_cuda::fail("an array has another type than its kernel wants");
    }
    return reinterpret_cast<P*>(reinterpret_cast<uintptr_t>(a.bytes.get()) - a.skip * sizeof(P));
  }

  /// Symbols, whose order counts as that of numbers without a sign.
  unsigned long long* ends(size_t i) const { return reinterpret_cast<unsigned long long*>(at<int64_t>(i)); }

  int64_t integer(size_t i) const { return integers.at(i); }
  Layout layout() const { return {integer(0), integer(1), integer(2)}; }
  DiagonalSizes diagonal() const { return {integer(0), integer(1), integer(2), integer(3)}; }
  Windows windows() const {
    return {integer(0), integer(1), integer(2), integer(3), integer(4), integer(5), integer(6)};
  }
  /// Integers 7 and 8: splits, and the planes of a warp.
  template <class I>
  WindowSumOf<I> window_sum() const {
    return {cast_sizes<I>(windows()), I(integer(7)), I(integer(8))};
  }
  ConvAxis axis(size_t first) const {
    return {integer(first),     integer(first + 1), integer(first + 2),
            integer(first + 3), integer(first + 4), integer(first + 5)};
  }
  Im2col im2col() const { return {integer(0), integer(1), axis(2), axis(8), axis(14)}; }
  PoolAxis pool_axis(size_t first) const {
    return {integer(first),     integer(first + 1), integer(first + 2),
            integer(first + 3), integer(first + 4), integer(first + 5)};
  }
  Pool pool() const { return {integer(0), integer(1), pool_axis(2), pool_axis(8)}; }
  TieWeights weights() const { return {reals.at(0), reals.at(1), reals.at(2)}; }
  DiagonalConv convolution() const {
    return {integer(0), integer(1), integer(2), integer(3), integer(4), axis(5), axis(11)};
  }

  /// Arrays `first` on: center, slope, the given bounds (null: tied, own); then outputs, the first of which is the
  /// center's memory where `in_place`.
  template <class T>
  ReluForward<T> relu(size_t first, bool in_place) const {
    const size_t out = first + (in_place ? 3 : 4);
    return {at<T>(first),   at<T>(first + 1), at<T>(first + 2), at<T>(first + 3), at<T>(in_place ? first : out),
            at<T>(out + 1), at<T>(out + 2),   at<T>(out + 3)};
  }

  /// Arrays `first` on: gradients of center and offset, center, lower, upper, slope (null: tied); then outputs.
  /// Integers 3 and 4: the rule on the kink, and whether bounds are given.
  template <class T>
  ReluGrad<T> relu_grad(size_t first) const {
    return {at<T>(first),     at<T>(first + 1), at<T>(first + 2), at<T>(first + 3), at<T>(first + 4),
            at<T>(first + 5), Kink(integer(3)), T(reals.at(0)),   integer(4) != 0,  at<T>(first + 6),
            at<T>(first + 7), at<T>(first + 8), at<T>(first + 9)};
  }

  /// Arrays 0 to 4: v, lower, upper, and the slopes of both sides (null: tied); integers 3 to 5: whether these are per
  /// row, and whether the first ones serve both signs.
  template <class T>
  DualArgs<T> dual() const {
    return {integer(0),
            integer(1),
            integer(2),
            at<T>(0),
            at<T>(1),
            at<T>(2),
            DualSide<T>{at<T>(3), integer(3) != 0},
            DualSide<T>{at<T>(4), integer(4) != 0},
            integer(5) != 0};
  }

  /// Arrays 0 to 4: v, the slope of the lower line, the offsets below and above, the slope of the upper line (null:
  /// that of the lower one). Integers 3 to 6: which of these four are for single entries.
  template <class T>
  LinesArgs<T> lines() const {
    return {integer(0),
            integer(1),
            integer(2),
            at<T>(0),
            LinePart<T>{at<T>(1), integer(3) != 0},
            LinePart<T>{at<T>(2), integer(4) != 0},
            LinePart<T>{at<T>(3), integer(5) != 0},
            LinePart<T>{at<T>(4), integer(6) != 0}};
  }

  /// Arrays `first` on: the gradients of image, low and high; then outputs.
  template <class T>
  LinesGrad<T> lines_grad(size_t first) const {
    return {at<T>(first),     at<T>(first + 1), at<T>(first + 2), at<T>(first + 3),
            at<T>(first + 4), at<T>(first + 5), at<T>(first + 6), at<T>(first + 7)};
  }

  /// Arrays 5 and 6: splits and multipliers (null: zeros).
  template <class T>
  SplitArgs<T> split() const {
    return {dual<T>(), at<int8_t>(5), at<T>(6)};
  }

  /// Arrays `first` on: the gradients of image, low and high; then outputs. Integer 6: the rule on the kink.
  template <class T>
  DualGrad<T> dual_grad(size_t first) const {
    return {at<T>(first),     at<T>(first + 1), at<T>(first + 2), Kink(integer(6)), T(reals.at(0)),
            at<T>(first + 3), at<T>(first + 4), at<T>(first + 5), at<T>(first + 6), at<T>(first + 7)};
  }

  template <class... P, class... A>
  void launch(void (*kernel)(P...), A... args) const {
    host_cuda::launch(grid, block, shared, kernel, args...);
  }
};

/// Calls f with the element type.
template <class F>
void typed(const Request& r, F f) {
  r.dtype == "float32" ? f.template operator()<float>() : f.template operator()<double>();
}

/// Calls f with the element type, which may be 16 bits wide.
template <class F>
void typed_or_half(const Request& r, F f) {
  r.dtype == "float16" ? f.template operator()<_Float16>() : typed(r, f);
}

/// Calls f with the element type and the vector width: one element, or 16 bytes.
template <class F>
void vectorised(const Request& r, F f) {
  typed(r, [&]<class T>() { r.vector == 1 ? f.template operator()<T, 1>() : f.template operator()<T, kVector<T>>(); });
}

/// Calls f with the element type, and whether a side of the dual rows has slopes for single entries.
template <class F>
void by_row(const Request& r, F f) {
  typed(r, [&]<class T>() {
    r.integer(3) || r.integer(4) ? f.template operator()<T, true>() : f.template operator()<T, false>();
  });
}

/// Calls f with the element type and the type of the indices.
template <class F>
void indexed(const Request& r, F f) {
  typed(r, [&]<class T>() { with_index(r.narrow, [&]<class I>(I) { f.template operator()<T, I>(); }); });
}

/// Calls f with the element type, the type of the indices and the vector width.
template <class F>
void indexed_vectors(const Request& r, F f) {
  vectorised(r, [&]<class T, int V>() { with_index(r.narrow, [&]<class I>(I) { f.template operator()<T, I, V>(); }); });
}

// A program that runs one kernel after another on the CPU, for the tests in Python.
//
// A request on stdin: one line
//   kernel dtype vector narrow last_block_only grid.x grid.y block.x block.y shared, then counted lists: integers,
//   reals, and arrays as type role count skip
// followed by the bytes of the arrays. An array of role "in" or "out" holds the last `count` elements of one that has
// `skip` elements more before them: kernels get the address of the whole, so that a small array stands for the end of a
// huge one. Role "null" is a null pointer. The answer on stdout: the line "ok" and the bytes of the "out" arrays.
//
// Each kernel runs twice, with the threads and blocks in opposite orders, and must write the same bits both times.
// Anything wrong ends the program with a message on stderr.

#include <unistd.h>

#include <cstdint>
#include <iostream>
#include <limits>
#include <map>
#include <sstream>
#include <string>

#include "host_cuda.h"

// Internal linkage: see host_cuda.h. What the .cuh files include from the standard library is included above.
namespace {
#include "../../csrc/cuda/column_tiles.cuh"
#include "../../csrc/cuda/columns.cuh"
#include "../../csrc/cuda/concretize.cuh"
#include "../../csrc/cuda/diagonal_conv.cuh"
#include "../../csrc/cuda/diagonal_linear.cuh"
#include "../../csrc/cuda/dual_lines.cuh"
#include "../../csrc/cuda/dual_relu.cuh"
#include "../../csrc/cuda/dual_split.cuh"
#include "../../csrc/cuda/elementary.cuh"
#include "../../csrc/cuda/error_block.cuh"
#include "../../csrc/cuda/im2col.cuh"
#include "../../csrc/cuda/nonsmooth_max.cuh"
#include "../../csrc/cuda/nonsmooth_max_pool2d.cuh"
#include "../../csrc/cuda/nonsmooth_maximum.cuh"
#include "../../csrc/cuda/nonsmooth_relu.cuh"
#include "../../csrc/cuda/relu.cuh"
#include "../../csrc/cuda/relu_relaxation.cuh"
#include "../../csrc/cuda/scale.cuh"
#include "../../csrc/cuda/window_dense.cuh"
#include "../../csrc/cuda/window_radius.cuh"
#include "../../csrc/cuda/window_scale.cuh"
#include "../../csrc/cuda/windows.cuh"
#include "faulty_kernels.cuh"

using namespace zonocuda;
using namespace zonocuda::cuda;

constexpr unsigned kSeconds = 120;  // for one kernel

#include "host_request.h"

using Run = void (*)(const Request&);
using F = float;

#include "host_faults.h"

const std::map<std::string, Run>& kernels() {
  static const std::map<std::string, Run> table = {
      {"sum_columns_kernel/AbsTerm",
       [](const Request& r) {
         vectorised(r, [&]<class T, int V>() {
           r.launch(sum_columns_kernel<T, V, AbsTerm<T>>, r.layout(), AbsTerm<T>{r.at<T>(0)}, r.at<T>(1));
         });
       }},
      {"sum_columns_kernel/ProductTerm",
       [](const Request& r) {
         vectorised(r, [&]<class T, int V>() {
           r.launch(sum_columns_kernel<T, V, ProductTerm<T>>, r.layout(), ProductTerm<T>{r.at<T>(0), r.at<T>(1)},
                    r.at<T>(2));
         });
       }},
      {"map_rows_kernel/ScaleMap",
       [](const Request& r) {
         vectorised(r, [&]<class T, int V>() {
           r.launch(map_rows_kernel<T, V, ScaleMap<T>>, r.layout(), ScaleMap<T>{r.at<T>(0), r.at<T>(1)}, r.at<T>(2));
         });
       }},
      {"map_rows_kernel/ScaleMap/in_place",
       [](const Request& r) {
         vectorised(r, [&]<class T, int V>() {
           r.launch(map_rows_kernel<T, V, ScaleMap<T>>, r.layout(), ScaleMap<T>{r.at<T>(0), r.at<T>(1)}, r.at<T>(0));
         });
       }},
      {"map_rows_kernel/SignMap",
       [](const Request& r) {
         vectorised(r, [&]<class T, int V>() {
           r.launch(map_rows_kernel<T, V, SignMap<T>>, r.layout(), SignMap<T>{r.at<T>(0), r.at<T>(1)}, r.at<T>(2));
         });
       }},
      {"map_rows_kernel/ReluGradMap",
       [](const Request& r) {
         vectorised(r, [&]<class T, int V>() {
           r.launch(map_rows_kernel<T, V, ReluGradMap<T>>, r.layout(),
                    ReluGradMap<T>{r.at<T>(0), r.at<T>(1), r.at<T>(2), r.at<T>(3)}, r.at<T>(4));
         });
       }},
      {"concretize_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(concretize_kernel<T>, r.layout(), r.at<T>(0), r.at<T>(1), r.at<T>(2), r.at<T>(3));
         });
       }},
      {"concretize_backward_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(concretize_backward_kernel<T>, r.integer(0), r.at<T>(0), r.at<T>(1), r.at<T>(2), r.at<T>(3));
         });
       }},
      {"relu_kernel",
       [](const Request& r) {
         typed(r,
               [&]<class T>() { r.launch(relu_kernel<T>, r.layout(), r.relu<T>(2, false), r.at<T>(0), r.at<T>(1)); });
       }},
      {"relu_kernel/in_place",
       [](const Request& r) {
         typed(r, [&]<class T>() { r.launch(relu_kernel<T>, r.layout(), r.relu<T>(2, true), r.at<T>(0), r.at<T>(1)); });
       }},
      {"relu_backward_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(relu_backward_kernel<T>, r.layout(), r.relu_grad<T>(3), r.at<T>(0), r.at<T>(1), r.at<T>(2));
         });
       }},
      {"one_pass_kernel/ReluPass",
       [](const Request& r) {
         vectorised(r, [&]<class T, int V>() {
           r.launch(one_pass_kernel<T, V, ReluPass<T>>, r.layout(), int(r.integer(3)),
                    ReluPass<T>{{r.at<T>(0)}, r.at<T>(1), r.relu<T>(2, false)});
         });
       }},
      {"one_pass_kernel/ReluPass/in_place",
       [](const Request& r) {
         vectorised(r, [&]<class T, int V>() {
           r.launch(one_pass_kernel<T, V, ReluPass<T>>, r.layout(), int(r.integer(3)),
                    ReluPass<T>{{r.at<T>(0)}, r.at<T>(0), r.relu<T>(1, true)});
         });
       }},
      {"one_pass_kernel/ReluGradPass",
       [](const Request& r) {
         vectorised(r, [&]<class T, int V>() {
           r.launch(one_pass_kernel<T, V, ReluGradPass<T>>, r.layout(), int(r.integer(5)),
                    ReluGradPass<T>{{r.at<T>(0), r.at<T>(1)}, r.at<T>(2), r.relu_grad<T>(3)});
         });
       }},
      // No kernel: what the launch decides. Array 0: the bytes of a row of a tile, and of the tile.
      {"tile_width",
       [](const Request& r) {
         const int sources = int(r.integer(4)), factors = int(r.integer(5));
         int64_t* const found = r.at<int64_t>(0);
         found[0] = tile_width(r.layout(), r.integer(3), sources, factors, r.integer(6), Launches(r.integer(7)));
         found[1] = tile_bytes(r.layout(), found[0], sources, factors);
       }},
      {"relu_relaxation_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(relu_relaxation_kernel<T>, r.integer(0), r.at<T>(0), r.at<T>(1), r.at<T>(2), r.at<T>(3),
                    r.at<T>(4));
         });
       }},
      {"relu_relaxation_backward_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(relu_relaxation_backward_kernel<T>, r.integer(0),
                    RelaxationGradArgs<T>{r.at<T>(0), r.at<T>(1), r.at<T>(2), r.at<T>(3), r.at<T>(4),
                                          Kink(r.integer(1)), T(r.reals.at(0)), r.at<T>(5), r.at<T>(6), r.at<T>(7)});
         });
       }},
      {"dual_relu_kernel",
       [](const Request& r) {
         by_row(r, [&]<class T, bool kPerRow>() {
           r.launch(dual_relu_kernel<T, kPerRow>, r.dual<T>(), int(r.integer(6)), r.at<T>(5), r.at<T>(6), r.at<T>(7));
         });
       }},
      {"add_parts_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(add_parts_kernel<T>, r.integer(0), r.integer(1), r.at<T>(0), r.at<T>(1), r.at<T>(2), r.at<T>(3));
         });
       }},
      {"dual_relu_backward_kernel",
       [](const Request& r) {
         by_row(r, [&]<class T, bool kPerRow>() {
           r.launch(dual_relu_backward_kernel<T, kPerRow>, r.dual<T>(), r.dual_grad<T>(5), r.at<T>(13));
         });
       }},
      {"dual_relu_finish_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(dual_relu_finish_kernel<T>, r.dual<T>(), r.dual_grad<T>(5), static_cast<const T*>(r.at<T>(13)));
         });
       }},
      {"dual_lines_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           auto run = [&]<bool kPerRow>() {
             r.launch(dual_lines_kernel<T, kPerRow>, r.lines<T>(), int(r.integer(7)), r.at<T>(5), r.at<T>(6),
                      r.at<T>(7));
           };
           r.integer(3) || r.integer(4) || r.integer(5) || r.integer(6) ? run.template operator()<true>()
                                                                        : run.template operator()<false>();
         });
       }},
      {"dual_lines_backward_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(dual_lines_backward_kernel<T>, r.lines<T>(), r.lines_grad<T>(5), r.at<T>(13));
         });
       }},
      {"dual_lines_finish_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(dual_lines_finish_kernel<T>, r.lines<T>(), r.lines_grad<T>(5), static_cast<const T*>(r.at<T>(13)));
         });
       }},
      {"dual_split_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(dual_split_kernel<T>, r.split<T>(), int(r.integer(6)), r.at<T>(7), r.at<T>(8));
         });
       }},
      {"dual_split_backward_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(dual_split_backward_kernel<T>, r.split<T>(), r.dual_grad<T>(7), r.at<T>(15), r.integer(7) != 0,
                    r.at<T>(16));
         });
       }},
      {"scale_backward_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() { r.launch(scale_backward_kernel<T>, r.layout(), r.at<T>(0), r.at<T>(1)); });
       }},
      {"diagonal_linear_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(diagonal_linear_kernel<T>, r.diagonal(), r.at<T>(0), r.at<int64_t>(1), r.at<T>(2), r.at<T>(3));
         });
       }},
      {"diagonal_linear_coefficients_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(diagonal_linear_coefficients_kernel<T>, r.diagonal(), r.at<T>(0), r.at<int64_t>(1), r.at<T>(2),
                    r.at<T>(3));
         });
       }},
      {"find_symbols_kernel",
       [](const Request& r) { r.launch(find_symbols_kernel, r.diagonal(), r.at<int64_t>(0), r.ends(1), r.ends(2)); }},
      {"diagonal_linear_weight_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(diagonal_linear_weight_kernel<T>, r.diagonal(), r.at<T>(0), r.at<T>(1), r.at<int64_t>(2), r.ends(3),
                    r.ends(4), r.at<T>(5));
         });
       }},
      {"error_block_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(error_block_kernel<T>, r.integer(0), r.integer(1), r.integer(2), r.at<T>(0), r.at<int64_t>(1),
                    r.at<T>(2));
         });
       }},
      {"error_block_backward_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(error_block_backward_kernel<T>, r.integer(0), r.integer(1), r.integer(2), r.at<T>(0),
                    r.at<int64_t>(1), r.at<T>(2));
         });
       }},
      {"sum_windows_kernel/AbsTerm",
       [](const Request& r) {
         indexed(r, [&]<class T, class I>() {
           r.launch(sum_windows_kernel<T, I, AbsTerm<T>>, r.window_sum<I>(), AbsTerm<T>{r.at<T>(0)}, r.at<int64_t>(1),
                    r.at<T>(2));
         });
       }},
      {"sum_windows_kernel/ProductTerm",
       [](const Request& r) {
         indexed(r, [&]<class T, class I>() {
           r.launch(sum_windows_kernel<T, I, ProductTerm<T>>, r.window_sum<I>(), ProductTerm<T>{r.at<T>(0), r.at<T>(1)},
                    r.at<int64_t>(2), r.at<T>(3));
         });
       }},
      {"add_splits_kernel",
       [](const Request& r) {
         typed(r,
               [&]<class T>() { r.launch(add_splits_kernel<T>, r.integer(0), r.integer(1), r.at<T>(0), r.at<T>(1)); });
       }},
      {"map_windows_kernel/WindowSignMap",
       [](const Request& r) {
         indexed_vectors(r, [&]<class T, class I, int V>() {
           r.launch(map_windows_kernel<T, I, V, WindowSignMap<T>>, cast_sizes<I>(r.windows()), r.at<int64_t>(2),
                    WindowSignMap<T>{r.at<T>(0), r.at<T>(1)}, r.at<T>(3));
         });
       }},
      {"map_windows_kernel/WindowScaleMap",
       [](const Request& r) {
         indexed_vectors(r, [&]<class T, class I, int V>() {
           r.launch(map_windows_kernel<T, I, V, WindowScaleMap<T>>, cast_sizes<I>(r.windows()), r.at<int64_t>(2),
                    WindowScaleMap<T>{r.at<T>(0), r.at<T>(1)}, r.at<T>(3));
         });
       }},
      {"map_windows_kernel/WindowScaleMap/in_place",
       [](const Request& r) {
         indexed_vectors(r, [&]<class T, class I, int V>() {
           r.launch(map_windows_kernel<T, I, V, WindowScaleMap<T>>, cast_sizes<I>(r.windows()), r.at<int64_t>(2),
                    WindowScaleMap<T>{r.at<T>(0), r.at<T>(1)}, r.at<T>(0));
         });
       }},
      {"map_windows_kernel/WindowGatherMap",
       [](const Request& r) {
         indexed_vectors(r, [&]<class T, class I, int V>() {
           r.launch(map_windows_kernel<T, I, V, WindowGatherMap<T>>, cast_sizes<I>(r.windows()), r.at<int64_t>(1),
                    WindowGatherMap<T>{r.at<T>(0)}, r.at<T>(2));
         });
       }},
      {"window_dense_kernel",
       [](const Request& r) {
         indexed_vectors(r, [&]<class T, class I, int V>() {
           r.launch(window_dense_kernel<T, I, V>, cast_sizes<I>(r.windows()), r.at<int64_t>(1), r.at<T>(0), r.at<T>(2));
         });
       }},
      {"diagonal_conv_kernel",
       [](const Request& r) {
         indexed(r, [&]<class T, class I>() {
           r.launch(diagonal_conv_kernel<T, I>, cast_sizes<I>(r.convolution()), r.at<T>(0), r.at<int64_t>(1),
                    r.at<T>(2), r.at<T>(3));
         });
       }},
      {"diagonal_conv_coefficients_kernel",
       [](const Request& r) {
         indexed(r, [&]<class T, class I>() {
           r.launch(diagonal_conv_coefficients_kernel<T, I>, cast_sizes<I>(r.convolution()), r.at<T>(0),
                    r.at<int64_t>(1), r.at<T>(2), r.at<T>(3));
         });
       }},
      {"diagonal_conv_weight_kernel",
       [](const Request& r) {
         indexed(r, [&]<class T, class I>() {
           r.launch(diagonal_conv_weight_kernel<T, I>, cast_sizes<I>(r.convolution()), r.integer(17), r.at<T>(0),
                    r.at<T>(1), r.at<int64_t>(2), r.at<T>(3));
         });
       }},
      {"im2col_kernel",
       [](const Request& r) {
         indexed(r, [&]<class T, class I>() {
           r.launch(im2col_kernel<T, I>, cast_sizes<I>(r.im2col()), r.at<T>(0), r.at<T>(1));
         });
       }},
      {"im2col_backward_kernel",
       [](const Request& r) {
         indexed(r, [&]<class T, class I>() {
           r.launch(im2col_backward_kernel<T, I>, cast_sizes<I>(r.im2col()), r.at<T>(0), r.at<T>(1));
         });
       }},
      // No kernels: whether 32 bits hold the indices. Array 0: the answer; the last integer: the limit.
      {"is_narrow/Windows",
       [](const Request& r) { *r.at<int64_t>(0) = is_narrow(r.windows(), r.integer(7), r.integer(8)); }},
      {"is_narrow/DiagonalConv",
       [](const Request& r) { *r.at<int64_t>(0) = is_narrow(r.convolution(), r.integer(17), r.integer(18)); }},
      {"is_narrow/Im2col", [](const Request& r) { *r.at<int64_t>(0) = is_narrow(r.im2col(), r.integer(20)); }},
      {"elementary_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(elementary_kernel<T>, r.integer(0), r.at<T>(0), Function(r.integer(1)), r.reals.at(0),
                    Rounding(r.integer(2)), r.at<T>(1));
         });
       }},
      {"elementary_backward_kernel",
       [](const Request& r) {
         typed(r, [&]<class T>() {
           r.launch(elementary_backward_kernel<T>, r.integer(0), r.at<T>(0), r.at<T>(1), Function(r.integer(1)),
                    r.reals.at(0), r.at<T>(2));
         });
       }},
      {"nonsmooth_relu_kernel",
       [](const Request& r) {
         typed_or_half(r, [&]<class T>() {
           r.launch(nonsmooth_relu_kernel<T>, r.integer(0), r.at<T>(0), r.reals.at(0), r.at<T>(1));
         });
       }},
      {"nonsmooth_relu_backward_kernel",
       [](const Request& r) {
         typed_or_half(r, [&]<class T>() {
           r.launch(nonsmooth_relu_backward_kernel<T>, r.integer(0), r.at<T>(0), r.at<T>(1), r.reals.at(0),
                    r.reals.at(1), r.at<T>(2));
         });
       }},
      {"nonsmooth_maximum_kernel",
       [](const Request& r) {
         typed_or_half(r, [&]<class T>() {
           r.launch(nonsmooth_maximum_kernel<T>, r.integer(0), r.at<T>(0), r.at<T>(1), r.at<T>(2), r.at<int8_t>(3));
         });
       }},
      {"nonsmooth_maximum_backward_kernel",
       [](const Request& r) {
         typed_or_half(r, [&]<class T>() {
           r.launch(nonsmooth_maximum_backward_kernel<T>, r.integer(0), r.at<T>(0), r.at<int8_t>(1), r.reals.at(0),
                    r.at<T>(2), r.at<T>(3));
         });
       }},
      {"nonsmooth_max_kernel",
       [](const Request& r) {
         typed_or_half(r, [&]<class T>() {
           r.launch(nonsmooth_max_kernel<T>, r.integer(0), r.integer(1), r.integer(2), r.at<T>(0), r.at<T>(1),
                    r.at<int32_t>(2));
         });
       }},
      {"nonsmooth_max_backward_kernel",
       [](const Request& r) {
         typed_or_half(r, [&]<class T>() {
           r.launch(nonsmooth_max_backward_kernel<T>, r.integer(0), r.integer(1), r.integer(2), r.at<T>(0),
                    r.at<int32_t>(1), r.weights(), r.at<T>(2));
         });
       }},
      {"nonsmooth_max_pool2d_kernel",
       [](const Request& r) {
         typed_or_half(r, [&]<class T>() {
           r.launch(nonsmooth_max_pool2d_kernel<T>, r.pool(), r.at<T>(0), r.at<T>(1), r.at<int32_t>(2));
         });
       }},
      {"nonsmooth_max_pool2d_backward_kernel",
       [](const Request& r) {
         typed_or_half(r, [&]<class T>() {
           r.launch(nonsmooth_max_pool2d_backward_kernel<T>, r.pool(), r.at<T>(0), r.at<int32_t>(1), r.weights(),
                    r.at<T>(2));
         });
       }},
  };
  return table;
}

/// Runs the kernel in both orders and compares; the results stay in the arrays.
void run(Request& r) {
  const auto& table = faults().contains(r.kernel) ? faults() : kernels();
  const auto entry = table.find(r.kernel);
  if (entry == table.end() || (r.dtype != "float16" && r.dtype != "float32" && r.dtype != "float64")) {
    host_cuda::fail("unknown kernel or dtype");
  }
  alarm(kSeconds);  // a kernel that loops for ever ends the program
  std::vector<std::string> results;
  for (bool reverse : {false, true}) {
    host_cuda::schedule = {reverse, r.last_block_only};
    for (Array& a : r.arrays) {
      a.reset();
    }
    entry->second(r);
    for (size_t i = 0; i < r.arrays.size(); ++i) {
      const Array& a = r.arrays[i];
      const std::string now(a.bytes.get(), a.given.size());
      if (a.role == "in" && now != a.given) {
        host_cuda::fail("the kernel writes to an input");
      }
      if (!reverse) {
        results.push_back(now);
      } else if (now != results[i]) {
        host_cuda::fail("the result depends on the order of the threads");
      }
    }
  }
  alarm(0);
}

}  // namespace

int main() {
  for (Request r; r.read(std::cin); r = {}) {
    run(r);
    std::cout << "ok\n";
    for (const Array& a : r.arrays) {
      if (a.role == "out") {
        std::cout.write(a.bytes.get(), std::streamsize(a.given.size()));
      }
    }
    std::cout.flush();
  }
}

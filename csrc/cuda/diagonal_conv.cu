#include <tuple>
#include <vector>

#include "diagonal_conv.cuh"
#include "windows_launch.h"

namespace zonocuda::cuda {
namespace {

constexpr int64_t kSymbolsPerSplit = 2 * kConvListed;

/// Splits of the symbols for the gradient of the weight; depends on the shape alone.
int64_t weight_splits(const DiagonalConv& s, int64_t blocks) {
  return std::clamp<int64_t>(std::min(ceil_div(kTargetBlocks, blocks), s.symbols / kSymbolsPerSplit), 1, kMaxSplits);
}

template <class T>
void grad_weight(const char* op, const DiagonalConv& s, const Tensor& grad, const Tensor& coefficients,
                 const Tensor& index, Tensor& result, cudaStream_t stream) {
  const int64_t blocks = s.channels * ceil_div(s.group_outputs() * s.y.kernel * s.x.kernel, kConvListed);
  if (blocks == 0 || s.batch * s.symbols == 0) {
    return;  // it is zero already
  }
  const int64_t splits = weight_splits(s, blocks);
  Tensor partial = splits == 1 ? result : empty_like_sizes({splits, s.weights()}, result);
  const dim3 grid(blocks_for(blocks, 1), static_cast<unsigned>(splits));
  with_index(is_narrow(s, splits), [&](auto i) {
    using I = decltype(i);
    diagonal_conv_weight_kernel<T, I><<<grid, dim3(kLanes, kStrips), 0, stream>>>(
        cast_sizes<I>(s), splits, grad.const_data_ptr<T>(), coefficients.const_data_ptr<T>(),
        index.const_data_ptr<int64_t>(), partial.mutable_data_ptr<T>());
  });
  check_launch(op);
  if (splits > 1) {
    add_splits_kernel<T><<<blocks_for(s.weights(), kThreads), kThreads, 0, stream>>>(
        splits, s.weights(), partial.const_data_ptr<T>(), result.mutable_data_ptr<T>());
    check_launch(op);
  }
}

}  // namespace

Tensor diagonal_conv(const Tensor& coefficients, const Tensor& index, const Tensor& weight,
                     std::vector<int64_t> input_size, std::vector<int64_t> stride, std::vector<int64_t> padding,
                     std::vector<int64_t> dilation, int64_t groups, std::vector<int64_t> output_size) {
  DiagonalConvForward out =
      prepare_diagonal_conv(coefficients, index, weight, {input_size, stride, padding, dilation, output_size, groups});
  const OnDeviceOf device(coefficients);
  const DiagonalConv& s = out.s;
  dispatch_dtype("diagonal_conv", coefficients.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    if (s.batch * s.symbols * s.patch() == 0) {
      return;
    }
    const ConvTiles<int64_t> tiles(s);
    const int64_t elements = s.batch * tiles.chunks * tiles.pieces;
    const int64_t lists = std::clamp<int64_t>(ceil_div(4 * kTargetBlocks, elements), 1,
                                              std::min<int64_t>(ceil_div(s.symbols, kConvListed), 65535));
    const dim3 grid(blocks_for(elements, 1), static_cast<unsigned>(lists));
    with_index(is_narrow(s), [&](auto i) {
      using I = decltype(i);
      diagonal_conv_kernel<T, I><<<grid, dim3(kLanes, kStrips), 0, device.stream()>>>(
          cast_sizes<I>(s), coefficients.const_data_ptr<T>(), index.const_data_ptr<int64_t>(),
          weight.const_data_ptr<T>(), out.patches.mutable_data_ptr<T>());
    });
    check_launch("diagonal_conv");
  });
  return out.patches;
}

std::tuple<Tensor, Tensor> diagonal_conv_backward(const Tensor& grad, const Tensor& coefficients, const Tensor& index,
                                                  const Tensor& weight, std::vector<int64_t> input_size,
                                                  std::vector<int64_t> stride, std::vector<int64_t> padding,
                                                  std::vector<int64_t> dilation, int64_t groups,
                                                  std::vector<int64_t> output_size, bool needs_weight) {
  const char* op = "diagonal_conv_backward";
  DiagonalConvBackward out = prepare_diagonal_conv_backward(
      grad, coefficients, index, weight, {input_size, stride, padding, dilation, output_size, groups}, needs_weight);
  const OnDeviceOf device(coefficients);
  const DiagonalConv& s = out.s;
  dispatch_dtype(op, coefficients.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    if (s.batch * s.symbols > 0) {
      with_index(is_narrow(s), [&](auto i) {
        using I = decltype(i);
        diagonal_conv_coefficients_kernel<T, I>
            <<<blocks_for(s.batch * s.symbols, kStrips), dim3(kLanes, kStrips), 0, device.stream()>>>(
                cast_sizes<I>(s), grad.const_data_ptr<T>(), index.const_data_ptr<int64_t>(), weight.const_data_ptr<T>(),
                out.grad_coefficients.mutable_data_ptr<T>());
      });
      check_launch(op);
    }
    if (needs_weight) {
      grad_weight<T>(op, s, grad, coefficients, index, out.grad_weight, device.stream());
    }
  });
  return {out.grad_coefficients, out.grad_weight};
}

STABLE_TORCH_LIBRARY_IMPL(zonocuda, CUDA, m) {
  m.impl("diagonal_conv", TORCH_BOX(&diagonal_conv));
  m.impl("_diagonal_conv_backward", TORCH_BOX(&diagonal_conv_backward));
}

}  // namespace zonocuda::cuda

// What zonocuda uses of LibTorch's stable ABI.
#pragma once

// The stable ABI of torch 2.11: one binary for this and every later torch.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

namespace zonocuda {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

/// Calls f(T{}) with the C++ type of a floating-point dtype that the kernels are built for.
template <class F>
void dispatch_dtype(const char* op, ScalarType dtype, F f) {
  switch (dtype) {
    case ScalarType::Float:
      return f(float{});
    case ScalarType::Double:
      return f(double{});
    default:
      STD_TORCH_CHECK(false, op, ": dtype must be float32 or float64, got ", torch::headeronly::toString(dtype));
  }
}

/// As dispatch_dtype, for the ops that have 16-bit kernels as well.
template <class F>
void dispatch_dtype_or_half(const char* op, ScalarType dtype, F f) {
  switch (dtype) {
    case ScalarType::Float:
      return f(float{});
    case ScalarType::Double:
      return f(double{});
    case ScalarType::Half:
      return f(torch::headeronly::Half{});
    case ScalarType::BFloat16:
      return f(torch::headeronly::BFloat16{});
    default:
      STD_TORCH_CHECK(false, op, ": dtype must be float16, bfloat16, float32 or float64, got ",
                      torch::headeronly::toString(dtype));
  }
}

}  // namespace zonocuda

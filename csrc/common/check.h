// Checks shared by the CPU and CUDA entry points. A message names the op, the argument and the values.
#pragma once

#include <initializer_list>
#include <sstream>
#include <string>

#include "huge_pages.h"
#include "stable.h"

namespace zonocuda {

inline std::string format_shape(const Tensor& t) {
  std::ostringstream out;
  out << '[';
  for (int64_t d = 0; d < t.dim(); ++d) {
    out << (d ? ", " : "") << t.size(d);
  }
  out << ']';
  return out.str();
}

/// One tensor argument: its name in messages, and the sizes that it must have (-1: any).
struct Argument {
  const char* name;
  const Tensor& tensor;
  std::initializer_list<int64_t> sizes;
  const char* layout;  // the sizes in words, such as "[batch, symbols, features]"
};

inline bool has_sizes(const Tensor& t, std::initializer_list<int64_t> sizes) {
  if (t.dim() != static_cast<int64_t>(sizes.size())) {
    return false;
  }
  int64_t d = 0;
  for (int64_t size : sizes) {
    if (size >= 0 && t.size(d) != size) {
      return false;
    }
    ++d;
  }
  return true;
}

/// Shape, contiguity, and agreement of device and dtype with `first`, another tensor of the op.
inline void check_argument(const char* op, const Argument& a, const Tensor& first) {
  STD_TORCH_CHECK(has_sizes(a.tensor, a.sizes), op, ": ", a.name, " must have shape ", a.layout, ", got ",
                  format_shape(a.tensor));
  STD_TORCH_CHECK(a.tensor.is_contiguous(), op, ": ", a.name, " must be contiguous");
  STD_TORCH_CHECK(a.tensor.device() == first.device(), op, ": ", a.name, " must be on the device of the other tensors");
  STD_TORCH_CHECK(a.tensor.scalar_type() == first.scalar_type(), op, ": ", a.name,
                  " must have the other tensors' dtype ", torch::headeronly::toString(first.scalar_type()), ", got ",
                  torch::headeronly::toString(a.tensor.scalar_type()));
}

inline void check_index(const char* op, const Tensor& index, int64_t symbols, const Tensor& first) {
  STD_TORCH_CHECK(has_sizes(index, {symbols}), op, ": index must have shape [symbols] = [", symbols, "], got ",
                  format_shape(index));
  STD_TORCH_CHECK(index.scalar_type() == ScalarType::Long, op, ": index must have dtype int64, got ",
                  torch::headeronly::toString(index.scalar_type()));
  STD_TORCH_CHECK(index.is_contiguous(), op, ": index must be contiguous");
  STD_TORCH_CHECK(index.device() == first.device(), op, ": index must be on the device of the other tensors");
}

/// The sizes of generators [batch, symbols, features].
struct Sizes {
  int64_t batch, symbols, features;

  bool empty() const { return batch == 0 || features == 0; }
};

inline Sizes check_generators(const char* op, const Tensor& generators) {
  STD_TORCH_CHECK(has_sizes(generators, {-1, -1, -1}), op,
                  ": generators must have shape [batch, symbols, features], got ", format_shape(generators));
  STD_TORCH_CHECK(generators.is_contiguous(), op, ": generators must be contiguous");
  return {generators.size(0), generators.size(1), generators.size(2)};
}

/// That an op which writes into `written` does not change another of its arguments with it.
inline void check_apart(const char* op, const char* written_name, const Tensor& written, const char* other_name,
                        const Tensor& other) {
  const char* a = static_cast<const char*>(written.const_data_ptr());
  const char* b = static_cast<const char*>(other.const_data_ptr());
  const int64_t a_bytes = written.numel() * written.element_size(), b_bytes = other.numel() * other.element_size();
  STD_TORCH_CHECK(a_bytes == 0 || b_bytes == 0 || a + a_bytes <= b || b + b_bytes <= a, op, ": ", written_name,
                  " is written in place and must not share memory with ", other_name);
}

/// The tensor, whose memory is fresh.
inline Tensor in_huge_pages(Tensor fresh) {
  if (fresh.is_cpu()) {
    prefer_huge_pages(fresh.const_data_ptr(), fresh.numel() * fresh.element_size());
  }
  return fresh;
}

inline Tensor empty_like_sizes(std::initializer_list<int64_t> sizes, const Tensor& like) {
  return in_huge_pages(
      torch::stable::new_empty(like, torch::headeronly::IntHeaderOnlyArrayRef(sizes.begin(), sizes.size())));
}

}  // namespace zonocuda

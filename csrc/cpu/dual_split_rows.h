// The formulas of math/dual_split.h for a piece of a row, vectorised and compiled for several instruction sets.
#pragma once

#include <cstdint>

namespace zonocuda::cpu {

/// A piece of a row, and what belongs to its entries. The slopes of either sign are given or tied_slopes.
template <class T>
struct SplitPiece {
  const T* v;
  const int8_t* split;
  const T *beta, *lower, *upper, *negative, *nonnegative;
  int64_t width;
};

/// The gradients of the entries of a piece: of v, beta (may be null), lam of either side, and mu where v < 0.
/// `finished`: that of the nonnegative side is the gradient of the slopes themselves, each an entry's own.
template <class T>
struct SplitPieceGrads {
  T *v, *beta, *negative, *nonnegative, *offset;
  bool finished;
};

#define ZONOCUDA_DECLARE_SPLIT_ROWS(T)                                       \
  void tied_slopes(const T* lower, const T* upper, int64_t width, T* slope); \
  /* adds low to the lanes */                                                \
  void split_steps(const SplitPiece<T>& piece, T* image, T* low);            \
  void split_steps_backward(const SplitPiece<T>& piece, const T* grad_image, T grad_low, const SplitPieceGrads<T>& out);

ZONOCUDA_DECLARE_SPLIT_ROWS(float)
ZONOCUDA_DECLARE_SPLIT_ROWS(double)
#undef ZONOCUDA_DECLARE_SPLIT_ROWS

}  // namespace zonocuda::cpu

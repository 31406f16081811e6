// Loops over what a window and its map have in common: a box of planes x rows x columns elements, at other strides in
// the patch than in the map. Compiled for several instruction sets and, as windows are narrow, for every width up
// to 16.
#pragma once

#include <cstdint>

namespace zonocuda::cpu {

/// Element (p, r, j) lies at p * patch_plane + r * patch_row + j of the patch, and of the map likewise.
struct Box {
  int64_t planes, rows, columns;
  int64_t patch_plane, patch_row;
  int64_t map_plane, map_row;
};

#define ZONOCUDA_DECLARE_BOXES(T)                                            \
  /* map += |patch| */                                                       \
  void add_abs(const Box& box, const T* patch, T* map);                      \
  /* map += a * b, both patches */                                           \
  void add_products(const Box& box, const T* a, const T* b, T* map);         \
  /* map += factor * patch */                                                \
  void add_scaled(const Box& box, T factor, const T* patch, T* map);         \
  /* out = map * patch; out is a patch too */                                \
  void multiply(const Box& box, const T* patch, const T* map, T* out);       \
  /* out = map * sign(patch) */                                              \
  void multiply_signs(const Box& box, const T* patch, const T* map, T* out); \
  /* out = factor * patch; out is a patch too */                             \
  void scale(const Box& box, T factor, const T* patch, T* out);              \
  void copy_to_map(const Box& box, const T* patch, T* map);                  \
  void copy_to_patch(const Box& box, const T* map, T* patch);                \
  /* sum of patch * map, in an order that depends on the box alone */        \
  T dot(const Box& box, const T* patch, const T* map);

ZONOCUDA_DECLARE_BOXES(float)
ZONOCUDA_DECLARE_BOXES(double)
#undef ZONOCUDA_DECLARE_BOXES

}  // namespace zonocuda::cpu

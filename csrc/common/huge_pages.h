// Fresh memory in large pages: one page fault for 2 MiB instead of one for 4 KiB.
#pragma once

#include <cstdint>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace zonocuda {

constexpr std::uintptr_t kHugePage = std::uintptr_t(2) << 20;
constexpr int64_t kHugeBytes = int64_t(8) << 20;  // below, the C library hands out memory that it has had before

/// Asks the system for large pages where `bytes` of host memory at `data` have none yet; it may say no. Only pages that
/// lie inside are asked for, so that no more memory is taken.
inline void prefer_huge_pages([[maybe_unused]] const void* data, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes >= kHugeBytes) {
    const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(data) + kHugePage - 1) / kHugePage * kHugePage;
    const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(data) + bytes) / kHugePage * kHugePage;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#endif
}

}  // namespace zonocuda

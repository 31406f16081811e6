// Runs CUDA kernel bodies on the CPU, for tests: include this first, then the .cuh files inside an anonymous namespace.
//
// Blocks run one after another. Each CUDA thread of a block is a fiber, and one fiber runs at a time, from one barrier
// to the next, in the order of the thread numbers or in the reverse order (`schedule`). So a run repeats exactly, and a
// missing __syncthreads shows: in one of the two orders the reader comes before the writer.
//
// Shared memory is static. AddressSanitizer guards it only where it has internal linkage (hence the anonymous
// namespace), and the list of its arrays is what AddressSanitizer registers; they are filled with NaN before each
// block, so that a value that was never written, or was left by another block, spoils the result. This needs g++ and
// -Wl,--wrap=__asan_register_globals. Dynamic shared memory lies in the heap, exactly as long as the launch says, and
// is filled in the same way. What a thread copies asynchronously arrives when it waits for it, and not before.
//
// What fails, instead of hanging: a thread that returns while others wait at a barrier, threads that wait at different
// barriers, a warp operation that lanes of its mask never reach, a copy that nobody waits for, and a launch that CUDA
// would refuse.
#pragma once

#include <sanitizer/common_interface_defs.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <source_location>
#include <string_view>
#include <type_traits>
#include <vector>

#ifndef __SANITIZE_ADDRESS__
#error "host_cuda.h needs -fsanitize=address"
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

struct alignas(16) float4 {
  float x, y, z, w;
};

struct alignas(8) float2 {
  float x, y;
};

struct alignas(16) double2 {
  double x, y;
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;  // one fiber runs at a time: no need for thread_local
constexpr int warpSize = 32;

namespace host_cuda {

using Site = std::source_location;

inline bool same(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() && std::string_view(a.file_name()) == b.file_name();
}

/// Which threads go first, and whether only the last block of a grid runs (for grids too large to run).
struct Schedule {
  bool reverse = false;
  bool last_block_only = false;
};

inline Schedule schedule;

[[noreturn]] inline void fail(const char* what, dim3 thread = {}, const Site* at = nullptr) {
  std::fprintf(stderr, "host_cuda: %s", what);
  if (at) {
    std::fprintf(stderr, " (thread %u,%u,%u of block %u,%u,%u at %s:%u)", thread.x, thread.y, thread.z, blockIdx.x,
                 blockIdx.y, blockIdx.z, at->file_name(), unsigned(at->line()));
  }
  std::fputc('\n', stderr);
  std::_Exit(3);
}

// ---- Shared memory -------------------------------------------------------------------------------------------------

struct SharedArray {
  char* begin;
  size_t size;
};

inline std::vector<SharedArray>& shared_arrays() {
  static std::vector<SharedArray> arrays;
  return arrays;
}

constexpr size_t kMaxDynamic = 227 << 10;  // bytes of a block on sm_90

inline std::unique_ptr<char[]> dynamic;  // of the running block
inline size_t dynamic_size = 0;

/// Every byte 0xff: a NaN in float and double, -1 in integers.
inline void poison_shared() {
  std::memset(dynamic.get(), 0xff, dynamic_size);
  for (const SharedArray& a : shared_arrays()) {
    std::memset(a.begin, 0xff, a.size);
  }
}

// ---- Threads -------------------------------------------------------------------------------------------------------

enum class State { ready, at_block_barrier, at_warp_barrier, returned };

/// An asynchronous copy that has not arrived; a negative `group`: it is in none yet.
struct Copy {
  void* to;
  const void* from;
  size_t size;
  int64_t group;
};

struct Thread {
  static constexpr size_t kStack = 128 << 10;

  ucontext_t context{};
  std::unique_ptr<char[]> stack = std::make_unique_for_overwrite<char[]>(kStack);
  void* fake_stack = nullptr;  // of AddressSanitizer
  dim3 index;
  unsigned lane_mask = 0;  // what it waits for at a warp barrier
  State state = State::returned;
  Site site;
  unsigned char mail[16] = {};  // what a shuffle hands to other lanes
  std::vector<Copy> copies;     // in flight
  int64_t groups = 0;           // of copies, so far
};

/// The threads of the running block. The stacks stay from one block to the next.
class Block {
 public:
  void run(dim3 size, const std::function<void()>& body) {
    body_ = &body;
    count_ = size_t(size.x) * size.y * size.z;
    while (threads_.size() < count_) {
      start(*threads_.emplace_back(std::make_unique<Thread>()));
    }
    for (size_t i = 0; i < count_; ++i) {
      threads_[i]->index = {unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / size.x / size.y)};
      threads_[i]->state = State::ready;
    }
    do {
      for (size_t i = 0; i < count_; ++i) {
        current_ = schedule.reverse ? count_ - 1 - i : i;
        if (self().state == State::ready) {
          resume(self());
        }
      }
    } while (release());
  }

  /// Called by a fiber: leaves it until the barrier is released.
  void wait(State state, unsigned lane_mask, Site site) {
    Thread& t = self();
    t.state = state;
    t.lane_mask = lane_mask;
    t.site = site;
    __sanitizer_start_switch_fiber(&t.fake_stack, main_stack_, main_stack_size_);
    swapcontext(&t.context, &main_);
    __sanitizer_finish_switch_fiber(t.fake_stack, nullptr, nullptr);
  }

  Thread& self() { return *threads_[current_]; }
  unsigned lane() const { return current_ % warpSize; }

  /// The thread of another lane of this warp; null where the block ends before it.
  Thread* peer(unsigned lane) {
    const size_t i = current_ / warpSize * warpSize + lane;
    return i < count_ ? threads_[i].get() : nullptr;
  }

 private:
  static void enter();

  void start(Thread& t) {
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = t.stack.get();
    t.context.uc_stack.ss_size = Thread::kStack;
    makecontext(&t.context, &Block::enter, 0);
  }

  void resume(Thread& t) {
    threadIdx = t.index;
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, t.stack.get(), Thread::kStack);
    swapcontext(&main_, &t.context);
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
  }

  /// Every thread has run as far as it can: opens the barriers that are complete. False once all have returned.
  bool release() {
    const Thread *waiting = nullptr, *returned = nullptr;
    bool opened = false;
    for (current_ = 0; current_ < count_; ++current_) {
      const Thread& t = self();
      if (t.state == State::returned) {
        returned = &t;
      } else if (t.state == State::at_warp_barrier) {
        opened = release_warp(t.lane_mask, t.site) || opened;
      } else if (t.state == State::at_block_barrier) {
        waiting = &t;
      }
    }
    if (opened) {
      return true;
    }
    for (size_t i = 0; i < count_; ++i) {
      const Thread& t = *threads_[i];
      if (t.state == State::at_warp_barrier) {
        fail("a warp operation waits for lanes that do not take part", t.index, &t.site);
      }
      if (waiting && t.state == State::at_block_barrier && !same(t.site, waiting->site)) {
        fail("threads of a block wait at different barriers", t.index, &t.site);
      }
    }
    if (waiting && returned) {
      fail("a thread waits at a barrier that others have left by returning", waiting->index, &waiting->site);
    }
    for (size_t i = 0; waiting && i < count_; ++i) {
      threads_[i]->state = State::ready;
    }
    return waiting != nullptr;
  }

  /// Opens the warp barrier of the current thread if all lanes of the mask are there.
  bool release_warp(unsigned mask, const Site& site) {
    for (unsigned l = 0; l < unsigned(warpSize); ++l) {
      const Thread* t = mask >> l & 1 ? peer(l) : nullptr;
      if (t && (t->state != State::at_warp_barrier || t->lane_mask != mask || !same(t->site, site))) {
        return false;
      }
    }
    for (unsigned l = 0; l < unsigned(warpSize); ++l) {
      if (Thread* t = mask >> l & 1 ? peer(l) : nullptr) {
        t->state = State::ready;
      }
    }
    return true;
  }

  std::vector<std::unique_ptr<Thread>> threads_;
  size_t count_ = 0, current_ = 0, main_stack_size_ = 0;
  const void* main_stack_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  ucontext_t main_{};
};

inline Block block;

/// Where a fiber starts; it runs one body after another and never ends.
inline void Block::enter() {
  __sanitizer_finish_switch_fiber(nullptr, &block.main_stack_, &block.main_stack_size_);
  for (;;) {
    (*block.body_)();
    if (!block.self().copies.empty()) {
      fail("a thread returns before its copies have arrived");
    }
    block.wait(State::returned, 0, Site::current());
  }
}

/// Runs kernel<<<grid, size, shared>>>(args...), block by block. Arguments are converted as a launch converts them.
template <class... P, class... A>
void launch(dim3 grid, dim3 size, size_t shared, void (*kernel)(P...), A... args) {
  const uint64_t threads = uint64_t(size.x) * size.y * size.z;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  if (threads == 0 || threads > 1024 || size.z > 64) {
    fail("invalid block size");
  }
  if (blocks == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    fail("invalid grid size");
  }
  if (shared > kMaxDynamic) {
    fail("too much dynamic shared memory");
  }
  dynamic = std::make_unique_for_overwrite<char[]>(shared);
  dynamic_size = shared;
  gridDim = grid;
  blockDim = size;
  const std::function<void()> body = [&] { kernel(args...); };
  for (uint64_t i = 0; i < (schedule.last_block_only ? 1 : blocks); ++i) {
    const uint64_t b = schedule.reverse || schedule.last_block_only ? blocks - 1 - i : i;
    blockIdx = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
    poison_shared();
    block.run(size, body);
  }
}

/// What AddressSanitizer is told about a global variable: the head of its __asan_global.
struct SanitizedGlobal {
  struct Location {
    const char* file;
    int line, column;
  };
  char* begin;
  size_t size, size_with_redzone;
  const char *name, *module;
  size_t has_dynamic_init;
  const Location* location;
  size_t odr_indicator;
};

}  // namespace host_cuda

extern "C" {
extern char __bss_start[], _end[];
void __real___asan_register_globals(host_cuda::SanitizedGlobal* globals, size_t count);

/// Notes the uninitialised variables of .cuh files: the shared arrays.
inline void __attribute__((used)) __wrap___asan_register_globals(host_cuda::SanitizedGlobal* globals, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const host_cuda::SanitizedGlobal& g = globals[i];
    if (g.location && std::string_view(g.location->file).ends_with(".cuh") && g.begin >= __bss_start &&
        g.begin < _end) {
      host_cuda::shared_arrays().push_back({g.begin, g.size});
    }
  }
  __real___asan_register_globals(globals, count);  // last: it makes what was just read unreadable
}
}

#include "host_device.h"

// What kernels call, on the CPU: the end of host_cuda.h.
#pragma once

inline void __syncthreads(host_cuda::Site site = host_cuda::Site::current()) {
  host_cuda::block.wait(host_cuda::State::at_block_barrier, 0, site);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, host_cuda::Site site = host_cuda::Site::current()) {
  if (!(mask >> host_cuda::block.lane() & 1)) {
    host_cuda::fail("a lane is not in its own mask", threadIdx, &site);
  }
  host_cuda::block.wait(host_cuda::State::at_warp_barrier, mask, site);
}

namespace host_cuda {

/// What lane `from` holds; the lanes of a warp exchange values between two barriers of the warp.
template <class T>
T shuffle(unsigned mask, T value, unsigned from, Site site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(Thread::mail));
  std::memcpy(block.self().mail, &value, sizeof(T));
  __syncwarp(mask, site);
  const Thread* peer = block.peer(from);
  if (!peer || !(mask >> from & 1)) {
    fail("a shuffle reads from a lane outside its mask", threadIdx, &site);
  }
  std::memcpy(&value, peer->mail, sizeof(T));
  __syncwarp(mask, site);
  return value;
}

/// The first lane of the own segment of `width` lanes.
inline int segment(int width) { return int(block.lane()) / width * width; }

}  // namespace host_cuda

// Where the source of a shuffle lies outside the segment of `width` lanes, a lane gets its own value.

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize,
              host_cuda::Site site = host_cuda::Site::current()) {
  return host_cuda::shuffle(mask, value, unsigned(host_cuda::segment(width) + (lane & (width - 1))), site);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 host_cuda::Site site = host_cuda::Site::current()) {
  const unsigned own = host_cuda::block.lane();
  const bool inside = own >= delta + host_cuda::segment(width);
  return host_cuda::shuffle(mask, value, inside ? own - delta : own, site);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   host_cuda::Site site = host_cuda::Site::current()) {
  const unsigned own = host_cuda::block.lane();
  const bool inside = own + delta < unsigned(host_cuda::segment(width) + width);
  return host_cuda::shuffle(mask, value, inside ? own + delta : own, site);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize,
                  host_cuda::Site site = host_cuda::Site::current()) {
  const unsigned own = host_cuda::block.lane();
  const bool inside = (own ^ unsigned(lanes)) < unsigned(host_cuda::segment(width) + width);
  return host_cuda::shuffle(mask, value, inside ? own ^ unsigned(lanes) : own, site);
}

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  *address += value;
  return old;
}

template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  const T old = *address;
  *address = value < old ? value : old;
  return old;
}

// ---- Dynamic shared memory and asynchronous copies into it ---------------------------------------------------------

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(host_cuda::dynamic.get());
}

inline void __pipeline_memcpy_async(void* to, const void* from, size_t size,
                                    host_cuda::Site site = host_cuda::Site::current()) {
  if (size != 4 && size != 8 && size != 16) {
    host_cuda::fail("an asynchronous copy of a size that CUDA does not know", threadIdx, &site);
  }
  if (reinterpret_cast<uintptr_t>(to) % size != 0 || reinterpret_cast<uintptr_t>(from) % size != 0) {
    host_cuda::fail("an asynchronous copy of misaligned memory", threadIdx, &site);
  }
  host_cuda::block.self().copies.push_back({to, from, size, -1});
}

inline void __pipeline_commit() {
  host_cuda::Thread& t = host_cuda::block.self();
  for (host_cuda::Copy& c : t.copies) {
    c.group = c.group < 0 ? t.groups : c.group;
  }
  ++t.groups;
}

/// All groups of copies but the last `prior` arrive.
inline void __pipeline_wait_prior(size_t prior) {
  host_cuda::Thread& t = host_cuda::block.self();
  std::erase_if(t.copies, [&](const host_cuda::Copy& c) {
    const bool arrives = c.group >= 0 && c.group + int64_t(prior) < t.groups;
    if (arrives) {
      std::memcpy(c.to, c.from, c.size);
    }
    return arrives;
  });
}

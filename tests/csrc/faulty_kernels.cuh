// Kernels with one planted mistake each, and correct ones for what no kernel uses yet: the tests of host_cuda.h itself.
#pragma once

#include <cstdint>

namespace zonocuda::faulty {

/// Correct: out[i] = sum of the 32 x of its warp, by every kind of shuffle in turn (they must agree), and the total.
__global__ void warp_sums(const float* x, float* out, float* total) {
  const unsigned all = 0xffffffffu;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  float down = x[i], across = x[i], up = x[i];
  for (int step = 16; step > 0; step /= 2) {
    down += __shfl_down_sync(all, down, step);
    across += __shfl_xor_sync(all, across, step);
    const float below = __shfl_up_sync(all, up, 16 / step);
    up += threadIdx.x % warpSize >= unsigned(16 / step) ? below : 0.0f;
  }
  const float first = __shfl_sync(all, down, 0);
  const float last = __shfl_sync(all, up, warpSize - 1);
  out[i] = first == across && last == across ? across : -1.0f;
  if (threadIdx.x % warpSize == 0) {
    atomicAdd(total, across);
  }
}

/// Correct: out[i] = 2 x[i], four numbers at a time.
__global__ void double_vectors(const float* x, float* out) {
  const int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
  float4 v = *reinterpret_cast<const float4*>(x + i);
  v = {2 * v.x, 2 * v.y, 2 * v.z, 2 * v.w};
  *reinterpret_cast<float4*>(out + i) = v;
}

/// x + 1 is no address of four numbers.
__global__ void misaligned_load(const float* x, float* out) {
  const float4 v = *reinterpret_cast<const float4*>(x + 1);
  out[threadIdx.x] = v.x;
}

/// Reads one element past x.
__global__ void read_past_end(const float* x, float* out, int64_t count) {
  const int64_t i = threadIdx.x;
  out[i] = i + 1 <= count ? x[i + 1] : 0.0f;
}

/// No test against count: the last block writes past out.
__global__ void write_past_end(const float* x, float* out, int64_t count) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  out[i] = i < count ? x[i] : 0.0f;
}

/// Writes column 32 of 32, which is column 0 of the next row.
__global__ void shared_row_overflow(const float* x, float* out) {
  __shared__ float tile[4][32];
  tile[threadIdx.x / 32][threadIdx.x % 32 + 1] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x / 32][threadIdx.x % 32];
}

/// Writes past a shared array through a pointer.
__global__ void shared_overflow(const float* x, float* out) {
  __shared__ float tile[32];
  float* volatile p = tile;         // volatile: the compiler forgets how long it is
  p[threadIdx.x] = x[threadIdx.x];  // 64 threads
  out[threadIdx.x] = p[threadIdx.x];
}

/// Only the first block writes the shared value; the others see what must not be there.
__global__ void unwritten_shared(const float* x, float* out) {
  __shared__ float value;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    value = x[0];
  }
  __syncthreads();
  out[int64_t(blockIdx.x) * blockDim.x + threadIdx.x] = value;
}

/// Reverses x; the barrier between the write and the read is missing.
__global__ void no_barrier_before_read(const float* x, float* out) {
  __shared__ float values[64];
  values[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}

/// Adds up chunks of 64; the barrier between the read and the next write is missing.
__global__ void no_barrier_before_write(const float* x, float* out, int64_t chunks) {
  __shared__ float values[64];
  for (int64_t c = 0; c < chunks; ++c) {
    values[threadIdx.x] = x[c * 64 + threadIdx.x];
    __syncthreads();
    for (int j = 0; threadIdx.x == 0 && j < 64; ++j) {
      out[0] += values[j];
    }
  }
}

/// Reverses x, but the threads of the last half return before the barrier.
__global__ void early_return(const float* x, float* out) {
  __shared__ float values[64];
  if (threadIdx.x >= 32) {
    return;
  }
  values[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = values[31 - threadIdx.x];
}

/// Both branches have a barrier of their own.
__global__ void two_barriers(const float* x, float* out) {
  __shared__ float values[64];
  values[threadIdx.x] = x[threadIdx.x];
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = values[63 - threadIdx.x];
}

/// The upper half of the warp takes no part in a shuffle that names it.
__global__ void absent_lanes(const float* x, float* out) {
  float v = x[threadIdx.x];
  if (threadIdx.x < 16) {
    v += __shfl_xor_sync(0xffffffffu, v, 1);
  }
  out[threadIdx.x] = v;
}

/// Correct: out = x through dynamic shared memory, in two groups of asynchronous copies.
__global__ void copy_through_shared(const float* x, float* out) {
  float* const tile = dynamic_shared<float>();
  const int count = blockDim.x;
  for (int half = 0; half < 2; ++half) {
    __pipeline_memcpy_async(tile + half * count + threadIdx.x, x + half * count + threadIdx.x, sizeof(float));
    __pipeline_commit();
  }
  for (int half = 0; half < 2; ++half) {
    __pipeline_wait_prior(1 - half);
    __syncthreads();
    const int i = (half + 1) * count - 1 - threadIdx.x;
    out[i] = tile[i];
  }
}

/// Reads a copy that has not arrived.
__global__ void read_before_arrival(const float* x, float* out) {
  float* const tile = dynamic_shared<float>();
  __pipeline_memcpy_async(tile + threadIdx.x, x + threadIdx.x, sizeof(float));
  __pipeline_commit();
  out[threadIdx.x] = tile[threadIdx.x];
  __pipeline_wait_prior(0);
}

/// Nobody waits for the copy.
__global__ void copy_left_behind(const float* x, float* out) {
  __pipeline_memcpy_async(dynamic_shared<float>() + threadIdx.x, x + threadIdx.x, sizeof(float));
  __pipeline_commit();
  out[threadIdx.x] = 0.0f;
}

/// Waits for its own copy, and reads that of another thread without a barrier.
__global__ void no_barrier_after_copy(const float* x, float* out) {
  float* const tile = dynamic_shared<float>();
  __pipeline_memcpy_async(tile + threadIdx.x, x + threadIdx.x, sizeof(float));
  __pipeline_commit();
  __pipeline_wait_prior(0);
  out[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

/// Copies four numbers from an address that is not one of four numbers.
__global__ void misaligned_copy(const float* x, float* out) {
  __pipeline_memcpy_async(dynamic_shared<float>(), x + 1, 4 * sizeof(float));
  __pipeline_commit();
  __pipeline_wait_prior(0);
  out[threadIdx.x] = 0.0f;
}

/// Copies past the end of dynamic shared memory.
__global__ void dynamic_overflow(const float* x, float* out) {
  float* const tile = dynamic_shared<float>();
  __pipeline_memcpy_async(tile + threadIdx.x + 1, x + threadIdx.x, sizeof(float));
  __pipeline_commit();
  __pipeline_wait_prior(0);
  out[threadIdx.x] = tile[threadIdx.x + 1];
}

/// out[0] is whoever came last.
__global__ void unordered_writes(const float* x, float* out) { out[0] = x[threadIdx.x]; }

/// Writes to an input.
__global__ void writes_input(float* x, float* out) { out[threadIdx.x] = x[threadIdx.x]++; }

/// The element number in 32 bits.
__global__ void narrow_index(const float* x, float* out, int64_t count) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) {
    out[i] = x[i];
  }
}

}  // namespace zonocuda::faulty

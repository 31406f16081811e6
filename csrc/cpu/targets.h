// The instruction sets that the CPU kernels are compiled for. The loader picks the widest that the machine has.
// Contraction is off in every clone, so that all of them, and the CUDA kernels, round alike.
#pragma once

// g++ has a dispatcher for the levels of x86-64 from version 12 on, and for single features in older ones. clang is
// left without clones: version 14 calls a clone of another file wrongly. The address sanitizer cannot start in
// dispatchers, which run before it does.
#if !defined(__x86_64__) || !defined(__GNUC__) || defined(__clang__) || defined(__SANITIZE_ADDRESS__)
#define ZONOCUDA_LOOP_CLONES
#elif __GNUC__ < 12
#define ZONOCUDA_WIDEST "avx512f"
#define ZONOCUDA_WIDER "avx2"
#define ZONOCUDA_LOOP_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ZONOCUDA_WIDEST "x86-64-v4"
#define ZONOCUDA_WIDER "x86-64-v3"
#define ZONOCUDA_LOOP_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif

// What the clones call is inlined into them: a function of its own would be compiled for the oldest machine.
#define ZONOCUDA_INLINE __attribute__((always_inline)) inline

namespace zonocuda::cpu {

/// The widest instruction set of this machine that the CPU kernels have a clone for.
inline const char* instruction_set() {
#ifdef ZONOCUDA_WIDEST
  __builtin_cpu_init();
  if (__builtin_cpu_supports(ZONOCUDA_WIDEST)) {
    return ZONOCUDA_WIDEST " (AVX-512)";
  }
  if (__builtin_cpu_supports(ZONOCUDA_WIDER)) {
    return ZONOCUDA_WIDER " (AVX2)";
  }
#endif
  return "default";
}

}  // namespace zonocuda::cpu

// What this processor can run. By itself: built alone it tells the build which variants are of use.
#include "processor.h"

#include <cstring>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

int32_t limner_supports(const char* name) {
#if defined(__x86_64__)
  // These also ask whether the operating system saves the wide registers.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (std::strcmp(name, "avx2") == 0) return avx2;
#if defined(__clang__) || __GNUC__ >= 12
  if (std::strcmp(name, "avxvnni") == 0) return avx2 && __builtin_cpu_supports("avxvnni");
#endif
  if (std::strcmp(name, "avx512vnni") == 0) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
  }
#elif defined(__aarch64__) && defined(__linux__)
  if (std::strcmp(name, "neon") == 0) return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__aarch64__) && defined(__APPLE__)
  if (std::strcmp(name, "neon") == 0) return 1;  // every Apple processor of this kind has it
#endif
  return std::strcmp(name, "portable") == 0;
}

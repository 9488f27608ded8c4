#include "limner.h"

#include <cstring>

#include "simd.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

using namespace limner;

const char* limner_instruction_set() { return kInstructionSet; }

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

void limner_set_threads(int32_t threads, int32_t pin) { set_pool(threads, pin != 0); }
int32_t limner_threads() { return pool().threads(); }

Plan* limner_plan_new() { return new Plan; }
void limner_plan_free(Plan* plan) { delete plan; }
void limner_plan_run(Plan* plan) {
  std::lock_guard<std::mutex> turn(pool().turn());
  plan->run();
}
int64_t limner_plan_size(const Plan* plan) { return static_cast<int64_t>(plan->size()); }
int64_t limner_plan_meetings(const Plan* plan) { return static_cast<int64_t>(plan->meetings()); }

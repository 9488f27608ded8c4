#include "limner.h"

#include "simd.h"

using namespace limner;

const char* limner_instruction_set() { return kInstructionSet; }

void limner_set_threads(int32_t threads, int32_t pin) { set_pool(threads, pin != 0); }
int32_t limner_threads() { return pool().threads(); }

PlanMemory* limner_memory_new() { return new PlanMemory; }
void limner_memory_free(PlanMemory* memory) { delete memory; }
Plan* limner_plan_new(PlanMemory* memory) { return new Plan(memory); }
void limner_plan_free(Plan* plan) { delete plan; }
void limner_plan_run(Plan* plan) {
  std::lock_guard<std::mutex> turn(pool().turn());
  plan->run();
}
int64_t limner_plan_size(const Plan* plan) { return static_cast<int64_t>(plan->size()); }
int64_t limner_plan_meetings(const Plan* plan) { return static_cast<int64_t>(plan->meetings()); }

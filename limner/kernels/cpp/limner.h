// The C interface that Python calls. Sizes are in elements unless they say bytes; tensors are
// row-major. Arguments are checked by the caller.
//
// `plan` is the plan being captured: the kernels are appended to it, and run. Without one (null) they
// only run.
#pragma once
#include <cstdint>

#include "plan.h"

#if defined(_WIN32)
#define LIMNER_API extern "C" __declspec(dllexport)
#else
#define LIMNER_API extern "C" __attribute__((visibility("default")))
#endif

LIMNER_API const char* limner_instruction_set();
// Whether this processor can run code made for `name`: "avx512vnni", "avxvnni", "avx2", "neon" ...
LIMNER_API int32_t limner_supports(const char* name);
LIMNER_API void limner_set_threads(int32_t threads, int32_t pin);
LIMNER_API int32_t limner_threads();

LIMNER_API limner::Plan* limner_plan_new();
LIMNER_API void limner_plan_free(limner::Plan* plan);
LIMNER_API void limner_plan_run(limner::Plan* plan);
LIMNER_API int64_t limner_plan_size(const limner::Plan* plan);
LIMNER_API int64_t limner_plan_meetings(const limner::Plan* plan);

// output (tokens, outputs) = input (tokens, inputs; rows `stride` apart) x weight^T + bias (or null).
LIMNER_API void limner_linear_quantized(limner::Plan* plan, const float* input, int64_t tokens,
                                        int64_t inputs, int64_t stride, const uint8_t* codes,
                                        const uint16_t* scales, int32_t bits, int32_t has_minimum,
                                        const float* bias, float* output, int64_t outputs);
// The same of float32 or bfloat16 weights, values[block][input][16].
LIMNER_API void limner_linear_float(limner::Plan* plan, const float* input, int64_t tokens,
                                    int64_t inputs, int64_t stride, const void* weights,
                                    int32_t is_bfloat, const float* bias, float* output,
                                    int64_t outputs);

// Number by number over (rows, columns); inputs have strides, outputs none.
LIMNER_API void limner_add(limner::Plan* plan, const float* a, int64_t a_stride, const float* b,
                           int64_t b_stride, float* output, int64_t rows, int64_t columns);
LIMNER_API void limner_multiply(limner::Plan* plan, const float* a, int64_t a_stride,
                                const float* b, int64_t b_stride, float* output, int64_t rows,
                                int64_t columns);
// activation(gate) * up; `kind` numbers Activation in vector_math.h.
LIMNER_API void limner_gated(limner::Plan* plan, int32_t kind, const float* gate,
                             int64_t gate_stride, const float* up, int64_t up_stride,
                             float* output, int64_t rows, int64_t columns);
LIMNER_API void limner_activation(limner::Plan* plan, int32_t kind, const float* input,
                                  int64_t stride, float* output, int64_t rows, int64_t columns);
// cap * tanh(scale * input / cap), or scale * input where the cap is 0.
LIMNER_API void limner_scale(limner::Plan* plan, float scale, float cap, const float* input,
                             int64_t stride, float* output, int64_t rows, int64_t columns);

// Root-mean-square normalisation, or with `centred` layer normalisation; weight, bias may be null.
LIMNER_API void limner_normalise(limner::Plan* plan, const float* input, int64_t stride,
                                 const float* weight, const float* bias, float epsilon,
                                 int32_t centred, float* output, int64_t rows, int64_t columns);

// Rows of a table (vocabulary, columns) by number; a number outside it gives NaN.
LIMNER_API void limner_lookup(limner::Plan* plan, const float* table, const int64_t* tokens,
                              float* output, int64_t count, int64_t vocabulary, int64_t columns);
LIMNER_API void limner_lookup_packed(limner::Plan* plan, const uint8_t* codes,
                                     const uint16_t* scales, int32_t bits, int32_t has_minimum,
                                     const int64_t* tokens, float* output, int64_t count,
                                     int64_t vocabulary, int64_t columns);

// cosine, sine (count, pairs) of positions x frequency, times gain.
LIMNER_API void limner_angles(limner::Plan* plan, const int64_t* positions, const float* frequency,
                              float gain, float* cosine, float* sine, int64_t count,
                              int64_t pairs);
// Heads (count, head_count, width), tokens `stride` apart, turned by angles (count, pairs).
LIMNER_API void limner_rotate(limner::Plan* plan, const float* heads, int64_t stride,
                              const float* cosine, const float* sine, int32_t interleaved,
                              float* output, int64_t count, int64_t head_count, int64_t width,
                              int64_t pairs);

// Index of the largest number of each row, the first of equals; a NaN counts as the largest.
LIMNER_API void limner_argmax(limner::Plan* plan, const float* input, int64_t stride,
                              int64_t* output, int64_t rows, int64_t columns);

// Queries (tokens, heads, key_width) over a cache. Strides: of pages, heads and slots (0 where 16
// slots are interleaved), then bytes of the whole tensor. `pages` (texts, pages_each) may be null: page i is then text i.
LIMNER_API void limner_attend(limner::Plan* plan, const float* queries, int64_t query_stride,
                              float* keys, const int64_t* key_strides, float* values,
                              const int64_t* value_strides, const int32_t* pages,
                              int64_t pages_each, int64_t page_size, const int64_t* texts,
                              const int64_t* positions, float scale, float softcap, int64_t window,
                              float* output, int64_t tokens, int64_t heads, int64_t key_heads,
                              int64_t key_width, int64_t value_width);
// Writes heads (count, head_count, width), tokens `stride` apart, to their places in a cache.
LIMNER_API void limner_store(limner::Plan* plan, const float* heads, int64_t stride, float* cache,
                             const int64_t* strides, const int32_t* pages, int64_t pages_each,
                             int64_t page_size, const int64_t* texts, const int64_t* positions,
                             int64_t count, int64_t head_count, int64_t width);

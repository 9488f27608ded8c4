// The C interface that Python calls. Sizes are in elements unless they say bytes; tensors are
// row-major. Arguments are checked by the caller.
//
// `plan` is the plan being captured: the kernels are appended to it, and run. Without one (null) they
// only run.
#pragma once
#include <cstdint>

#include "plan.h"
#include "processor.h"

LIMNER_API const char* limner_instruction_set();
LIMNER_API void limner_set_threads(int32_t threads, int32_t pin);
LIMNER_API int32_t limner_threads();

// Memory that several plans may share, of which one runs at a time; null: each has its own.
LIMNER_API limner::PlanMemory* limner_memory_new();
LIMNER_API void limner_memory_free(limner::PlanMemory* memory);
LIMNER_API limner::Plan* limner_plan_new(limner::PlanMemory* memory);
LIMNER_API void limner_plan_free(limner::Plan* plan);
LIMNER_API void limner_plan_run(limner::Plan* plan);
LIMNER_API int64_t limner_plan_size(const limner::Plan* plan);
LIMNER_API int64_t limner_plan_meetings(const limner::Plan* plan);

// output (tokens, outputs) = input (tokens, inputs; rows `stride` apart) x weight^T + bias (or null).
// `bits` 8, 6 or 4, `scale_form` 0 halves, 1 with minima, 2 super-blocks: see packed_weights.h.
LIMNER_API void limner_linear_quantized(limner::Plan* plan, const float* input, int64_t tokens,
                                        int64_t inputs, int64_t stride, const void* codes,
                                        const void* scales, int32_t bits, int32_t scale_form,
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

// `output` (2 x rows, columns): the input, and below it what rounding it to int8 in groups of 32
// leaves over. Columns are a multiple of 32.
LIMNER_API void limner_with_remainder(limner::Plan* plan, const float* input, int64_t stride,
                                      float* output, int64_t rows, int64_t columns);

// Root-mean-square normalisation, or with `centred` layer normalisation; weight, bias may be null.
LIMNER_API void limner_normalise(limner::Plan* plan, const float* input, int64_t stride,
                                 const float* weight, const float* bias, float epsilon,
                                 int32_t centred, float* output, int64_t rows, int64_t columns);

// Rows of a table (vocabulary, columns) by number; a number outside it gives NaN.
LIMNER_API void limner_lookup(limner::Plan* plan, const float* table, const int64_t* tokens,
                              float* output, int64_t count, int64_t vocabulary, int64_t columns);
LIMNER_API void limner_lookup_packed(limner::Plan* plan, const void* codes, const void* scales,
                                     int32_t bits, int32_t scale_form,
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
// A column of each row drawn in proportion to e^(number / temperature): the first at which the sum,
// in order, exceeds `numbers` (in [0, 1)) of the whole. At temperature 0 the argmax. -1 where the
// largest number of the row is not finite.
LIMNER_API void limner_draw(limner::Plan* plan, const float* input, int64_t stride,
                            const float* temperatures, const double* numbers, int64_t* output,
                            int64_t rows, int64_t columns);

// Queries (tokens, heads, key_width) over a cache. Strides: of pages, heads and slots (0 where 16
// slots are interleaved), then bytes of the whole tensor. `pages` (texts, pages_each) may be null: page
// i is then text i. Caches are float32, or int8 with scales (pages, heads, slots): keys interleaved.
LIMNER_API void limner_attend(limner::Plan* plan, const float* queries, int64_t query_stride,
                              void* keys, float* key_scales, const int64_t* key_strides,
                              void* values, float* value_scales, const int64_t* value_strides, const int32_t* pages,
                              int64_t pages_each, int64_t page_size, const int64_t* texts,
                              const int64_t* positions, float scale, float softcap, int64_t window,
                              float* output, int64_t tokens, int64_t heads, int64_t key_heads,
                              int64_t key_width, int64_t value_width);
// Writes heads (count, head_count, width), tokens `stride` apart, to their places in a cache.
LIMNER_API void limner_store(limner::Plan* plan, const float* heads, int64_t stride, void* cache,
                             float* scales, const int64_t* strides, const int32_t* pages, int64_t pages_each,
                             int64_t page_size, const int64_t* texts, const int64_t* positions,
                             int64_t count, int64_t head_count, int64_t width);

// The products of formats without a minimum, and the choice of one.
#include "limner.h"
#include "product.h"

namespace limner {
namespace {

AppendProduct product_of(int32_t bits, int32_t scales) {
  if (bits == 8) return append_quantised_product<EightBits>;
  if (bits == 6) return append_quantised_product<SixBits>;
  return scales == 0 ? append_quantised_product<FourBits> : product_with_minimum(scales == 2);
}

}  // namespace
}  // namespace limner

using namespace limner;

void limner_linear_quantized(Plan* plan, const float* input, int64_t tokens, int64_t inputs,
                             int64_t stride, const void* codes, const void* scales, int32_t bits,
                             int32_t scale_form, const float* bias, float* output,
                             int64_t outputs) {
  const Rows rows{input, tokens, inputs, stride};
  product_of(bits, scale_form)(plan, rows, codes, scales, bias, output, outputs);
}

// Calls every kernel on memory of exactly the size it may touch, for the address and
// undefined-behaviour sanitizers to watch. Sizes are odd on purpose.
#include <cmath>
#include <cstdio>
#include <vector>

#include "limner.h"

using limner::Plan;
using Floats = std::vector<float>;
using Places = std::vector<int64_t>;

namespace {

Floats numbers(int64_t count) {
  Floats out(static_cast<size_t>(count));
  for (size_t i = 0; i < out.size(); i++) out[i] = std::sin(static_cast<float>(i) * 0.7f);
  return out;
}

void linear(Plan* plan, int64_t tokens, int64_t outputs, int64_t groups) {
  const int64_t inputs = 32 * groups, padded = (outputs + 31) / 32 * 32;
  const Floats input = numbers(tokens * inputs), bias = numbers(outputs);
  Floats output = numbers(tokens * outputs);
  // Bits, form of the scales, and bytes of scales of one group of 16 rows.
  const int forms[][3] = {{8, 0, 32}, {4, 0, 32}, {4, 1, 64}, {4, 2, 40}, {6, 2, 36}};
  for (const auto& [bits, form, scale_bytes] : forms) {
    if (form == 2 && groups % 8 != 0) continue;
    const std::vector<uint8_t> codes(static_cast<size_t>(padded * inputs * bits / 8), 0x93);
    const std::vector<uint8_t> scales(static_cast<size_t>(padded / 16 * groups * scale_bytes), 0x1C);
    limner_linear_quantized(plan, input.data(), tokens, inputs, inputs, codes.data(),
                            scales.data(), bits, form, bias.data(), output.data(), outputs);
    const Places rows{0, outputs - 1, -1, outputs};
    Floats found = numbers(4 * inputs);
    limner_lookup_packed(plan, codes.data(), scales.data(), bits, form, rows.data(),
                         found.data(), 4, outputs, inputs);
  }
  const int64_t narrow = inputs - 3;
  const Floats weights = numbers(padded * narrow);
  const std::vector<uint16_t> halves(static_cast<size_t>(padded * narrow), 0x3F80);
  limner_linear_float(plan, input.data(), tokens, narrow, inputs, weights.data(), 0, bias.data(),
                      output.data(), outputs);
  limner_linear_float(plan, input.data(), tokens, narrow, inputs, halves.data(), 1, nullptr,
                      output.data(), outputs);
}

void elementwise(Plan* plan, int64_t rows, int64_t columns) {
  const Floats a = numbers(rows * columns), b = numbers(rows * columns), gain = numbers(columns);
  Floats out = numbers(rows * columns);
  limner_add(plan, a.data(), columns, b.data(), columns, out.data(), rows, columns);
  limner_multiply(plan, a.data(), columns, b.data(), columns, out.data(), rows, columns);
  for (int kind = 0; kind < 7; kind++) {
    limner_activation(plan, kind, a.data(), columns, out.data(), rows, columns);
    limner_gated(plan, kind, a.data(), columns, b.data(), columns, out.data(), rows, columns);
  }
  limner_scale(plan, 2.0f, 30.0f, a.data(), columns, out.data(), rows, columns);
  for (int centred : {0, 1}) {
    limner_normalise(plan, a.data(), columns, gain.data(), gain.data(), 1e-5f, centred, out.data(),
                     rows, columns);
  }
  Places best(static_cast<size_t>(rows));
  limner_argmax(plan, a.data(), columns, best.data(), rows, columns);
  const std::vector<double> half(static_cast<size_t>(rows), 0.5);
  limner_draw(plan, a.data(), columns, b.data(), half.data(), best.data(), rows, columns);
  const Places picked{0, rows - 1};
  Floats found = numbers(2 * columns);
  limner_lookup(plan, a.data(), picked.data(), found.data(), 2, rows, columns);
}

void rotary(Plan* plan, int64_t tokens, int64_t heads, int64_t width, int64_t pairs) {
  Places positions;
  for (int64_t i = 0; i < tokens; i++) positions.push_back(i);
  const Floats frequency = numbers(pairs), in = numbers(tokens * heads * width);
  Floats cosine = numbers(tokens * pairs), sine = cosine, out = in;
  limner_angles(plan, positions.data(), frequency.data(), 1.0f, cosine.data(), sine.data(), tokens,
                pairs);
  for (int interleaved : {0, 1}) {
    limner_rotate(plan, in.data(), heads * width, cosine.data(), sine.data(), interleaved,
                  out.data(), tokens, heads, width, pairs);
  }
}

// Two texts in pages of `page` slots that are handed out in reverse.
void attention(Plan* plan, int64_t length, int64_t key_heads, int64_t group, int64_t width,
               int64_t value_width, int64_t page, bool interleaved) {
  const int64_t each = (length + page - 1) / page, heads = key_heads * group;
  std::vector<int32_t> pages;
  for (int64_t i = 2 * each; i > 0; i--) pages.push_back(static_cast<int32_t>(i - 1));
  Floats keys = numbers(2 * each * key_heads * page * width);
  Floats values = numbers(2 * each * key_heads * page * value_width);
  const auto bytes = [](const Floats& all) { return static_cast<int64_t>(all.size() * 4); };
  const int64_t key_strides[] = {key_heads * page * width, page * width, interleaved ? 0 : width,
                                 bytes(keys)};
  const int64_t value_strides[] = {key_heads * page * value_width, page * value_width, value_width,
                                   bytes(values)};
  const Places texts(static_cast<size_t>(length), 1);
  Places positions;
  for (int64_t i = 0; i < length; i++) positions.push_back(i);
  positions.back() = each * page;  // one outside the cache
  const Floats query = numbers(length * heads * width);
  Floats out = numbers(length * heads * value_width);
  limner_store(plan, query.data(), heads * width, keys.data(), nullptr, key_strides, pages.data(),
               each, page, texts.data(), positions.data(), length, key_heads, width);
  for (int64_t tokens : {length, int64_t{1}}) {
    limner_attend(plan, query.data(), heads * width, keys.data(), nullptr, key_strides, values.data(),
                  nullptr, value_strides, pages.data(), each, page, texts.data(), positions.data() + length - tokens,
                  0.3f, 20.0f, 50, out.data(), tokens, heads, key_heads, width, value_width);
  }
}

// One text in one page of int8.
void attention_int8(Plan* plan, int64_t length, int64_t width, int64_t value_width) {
  const int64_t slots = (length + 15) / 16 * 16;
  std::vector<int8_t> keys(static_cast<size_t>(slots * width));
  std::vector<int8_t> values(static_cast<size_t>(slots * value_width));
  Floats key_scales(static_cast<size_t>(slots)), value_scales = key_scales;
  const int64_t key_strides[] = {slots * width, slots * width, 0, slots * width};
  const int64_t value_strides[] = {slots * value_width, slots * value_width, value_width,
                                   slots * value_width};
  const Places texts(static_cast<size_t>(length), 0);
  Places positions;
  for (int64_t i = 0; i < length; i++) positions.push_back(i);
  const Floats query = numbers(length * 3 * width), value = numbers(length * value_width);
  Floats out = numbers(length * 3 * value_width);
  limner_store(plan, query.data(), 3 * width, keys.data(), key_scales.data(), key_strides, nullptr,
               1, slots, texts.data(), positions.data(), length, 1, width);
  limner_store(plan, value.data(), value_width, values.data(), value_scales.data(), value_strides,
               nullptr, 1, slots, texts.data(), positions.data(), length, 1, value_width);
  for (int64_t tokens : {length, int64_t{1}}) {
    limner_attend(plan, query.data(), 3 * width, keys.data(), key_scales.data(), key_strides,
                  values.data(), value_scales.data(), value_strides, nullptr, 1, slots,
                  texts.data(), positions.data() + length - tokens, 0.3f, 0.0f, 0, out.data(),
                  tokens, 3, 1, width, value_width);
  }
}

void everything(Plan* plan) {
  for (int64_t tokens : {1, 5, 13, 37}) {
    linear(plan, tokens, 50, 23);
    linear(plan, tokens, 50, 24);
  }
  linear(plan, 2, 1, 1);
  elementwise(plan, 3, 77);
  elementwise(plan, 1, 1);
  rotary(plan, 3, 2, 21, 9);
  attention(plan, 150, 2, 3, 17, 33, 7, false);
  attention(plan, 90, 1, 5, 20, 16, 32, true);
  attention_int8(plan, 70, 17, 33);
}

}  // namespace

int main() {
  for (int threads : {1, 3}) {
    limner_set_threads(threads, 0);
    everything(nullptr);
  }
  std::printf("%s: clean\n", limner_instruction_set());
  return 0;
}

// Sums, products, activations: number by number over rows of the same shape.
#include "limner.h"
#include "partition.h"
#include "token_tiles.h"
#include "vector_math.h"

namespace limner {
namespace {

struct Add {
  Floats operator()(Floats a, Floats b) const { return a + b; }
};
struct Multiply {
  Floats operator()(Floats a, Floats b) const { return a * b; }
};
template <Activation kKind>
struct Gate {
  Floats operator()(Floats gate, Floats up) const { return activate<kKind>(gate) * up; }
};
template <Activation kKind>
struct Activate {
  Floats operator()(Floats a, Floats) const { return activate<kKind>(a); }
};

// cap * tanh(scale * a / cap), or scale * a without a cap.
struct ScaleAndCap {
  float scale, cap;
  Floats operator()(Floats a, Floats) const {
    const Floats scaled = a * broadcast(scale);
    if (cap == 0.0f) return scaled;
    return broadcast(cap) * hyperbolic_tangent(scaled / broadcast(cap));
  }
};

// Divided by columns as linear layers divide their outputs, so that no thread waits in between.
template <class Operation>
struct Elementwise {
  Rows first, second;
  float* output;
  Operation operation;

  std::vector<Access> accesses() const {
    const int64_t columns = first.columns, bytes = first.count * columns * 4;
    return {reads(first.data, first.bytes(), Split::kColumns, columns),
            reads(second.data, second.bytes(), Split::kColumns, columns),
            writes(output, bytes, Split::kColumns, columns)};
  }

  void operator()(Worker& worker) const {
    const Range blocks = share_columns(worker, first.columns);
    for (int64_t row = 0; row < first.count; row++) {
      for (int64_t block = blocks.begin; block < blocks.end; block++) {
        const int64_t column = block * kLanes, left = first.columns - column;
        const Floats a = load_first(first.data + row * first.stride + column, left);
        const Floats b = load_first(second.data + row * second.stride + column, left);
        store_first(output + row * first.columns + column, operation(a, b), left);
      }
    }
  }
};

template <class Operation>
void submit(Plan* plan, const Rows& first, const Rows& second, float* output,
            Operation operation = {}) {
  Submission submission(plan);
  submission.append(Elementwise<Operation>{first, second, output, operation});
}

template <template <Activation> class Operation>
void submit_activation(Plan* plan, int32_t kind, const Rows& a, const Rows& b, float* output) {
  switch (static_cast<Activation>(kind)) {
    case Activation::kRelu:
      return submit<Operation<Activation::kRelu>>(plan, a, b, output);
    case Activation::kReluSquared:
      return submit<Operation<Activation::kReluSquared>>(plan, a, b, output);
    case Activation::kGelu:
      return submit<Operation<Activation::kGelu>>(plan, a, b, output);
    case Activation::kGeluTanh:
      return submit<Operation<Activation::kGeluTanh>>(plan, a, b, output);
    case Activation::kQuickGelu:
      return submit<Operation<Activation::kQuickGelu>>(plan, a, b, output);
    case Activation::kSilu:
      return submit<Operation<Activation::kSilu>>(plan, a, b, output);
    case Activation::kTanh:
      return submit<Operation<Activation::kTanh>>(plan, a, b, output);
  }
}

}  // namespace
}  // namespace limner

using namespace limner;

void limner_add(Plan* plan, const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                float* output, int64_t rows, int64_t columns) {
  submit<Add>(plan, {a, rows, columns, a_stride}, {b, rows, columns, b_stride}, output);
}

void limner_multiply(Plan* plan, const float* a, int64_t a_stride, const float* b,
                     int64_t b_stride, float* output, int64_t rows, int64_t columns) {
  submit<Multiply>(plan, {a, rows, columns, a_stride}, {b, rows, columns, b_stride}, output);
}

void limner_gated(Plan* plan, int32_t kind, const float* gate, int64_t gate_stride, const float* up,
                  int64_t up_stride, float* output, int64_t rows, int64_t columns) {
  submit_activation<Gate>(plan, kind, {gate, rows, columns, gate_stride},
                          {up, rows, columns, up_stride}, output);
}

void limner_activation(Plan* plan, int32_t kind, const float* input, int64_t stride, float* output,
                       int64_t rows, int64_t columns) {
  const Rows input_rows{input, rows, columns, stride};
  submit_activation<Activate>(plan, kind, input_rows, input_rows, output);
}

void limner_with_remainder(Plan* plan, const float* input, int64_t stride, float* output,
                           int64_t rows, int64_t columns) {
  Submission submission(plan);
  append_remainder(submission, {input, rows, columns, stride}, output);
}

void limner_scale(Plan* plan, float scale, float cap, const float* input, int64_t stride,
                  float* output, int64_t rows, int64_t columns) {
  const Rows input_rows{input, rows, columns, stride};
  submit<ScaleAndCap>(plan, input_rows, input_rows, output, {scale, cap});
}

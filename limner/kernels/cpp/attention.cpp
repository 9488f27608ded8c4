// Attention of queries over a paged cache, for one new token a text or many, and writing to it.
//
// N tokens, H query heads, K key heads, W head width. Each token says which text it belongs to and
// its position there, and sees the keys of that text up to its own. The keys of all tokens must be
// in the cache before.
//
// A row's softmax is put together block by block of 64 keys, in order. With many tokens one thread
// takes a few tokens of a text and goes through the blocks. With few, blocks are dealt to threads
// and a second kernel puts the parts together in the same order: the numbers are the same to the bit.
#include <algorithm>

#include "attention_block.h"
#include "limner.h"
#include "paged_cache.h"

namespace limner {
namespace {

struct Attention {
  const float* queries;  // [N][H][W], tokens query_stride apart
  PagedCache keys, values;
  PageTable table;
  const int64_t* texts;      // [N]
  const int64_t* positions;  // [N]
  float* output;             // [N][H][W of values]
  float* parts;              // null where one thread goes through all blocks of a row
  int64_t tokens, heads, key_heads, key_width, value_width, query_stride;
  Scoring scoring;

  int64_t group() const { return heads / key_heads; }
  int64_t part_floats() const { return value_width + 2; }
  int64_t max_blocks() const { return blocks_of(table.capacity(), kKeyBlock); }
  int64_t part_bytes() const { return tokens * heads * max_blocks() * part_floats() * 4; }
  int64_t query_bytes() const { return ((tokens - 1) * query_stride + heads * key_width) * 4; }
  int64_t output_bytes() const { return tokens * heads * value_width * 4; }
  float* part(int64_t token, int64_t head, int64_t block) const {
    return parts + ((token * heads + head) * max_blocks() + block) * part_floats();
  }
  // A position outside the cache gives NaN, because a plan cannot raise an error.
  bool valid(int64_t token) const {
    return positions[token] >= 0 && positions[token] < table.capacity();
  }
  int64_t first_key(int64_t token) const {
    return scoring.window == 0 ? 0 : std::max<int64_t>(0, positions[token] + 1 - scoring.window);
  }
  int64_t first_block(int64_t token) const { return first_key(token) / kKeyBlock; }
  int64_t end_block(int64_t token) const {
    return valid(token) ? positions[token] / kKeyBlock + 1 : 0;
  }

  // A number a token's head, where there are `width` bytes.
  int64_t scale_bytes(const PagedCache& cache) const {
    const int64_t width = &cache == &keys ? key_width : value_width;
    return cache.rounded() ? cache.bytes / width * 4 : 0;
  }

  std::vector<Access> inputs() const {
    return {reads(queries, query_bytes()),  reads(keys.data, keys.bytes),
            reads(values.data, values.bytes), reads(keys.scales, scale_bytes(keys)),
            reads(values.scales, scale_bytes(values)), reads(texts, tokens * 8),
            reads(positions, tokens * 8)};
  }

  // The query rows of `count` tokens that share key head `head`, scaled, token by token.
  void load_queries(AttentionScratch& scratch, int64_t token, int64_t count, int64_t head) const {
    const Floats scale = broadcast(scoring.scale);
    for (int64_t row = 0; row < count * group(); row++) {
      const float* from = queries + (token + row / group()) * query_stride +
                          (head * group() + row % group()) * key_width;
      float* to = scratch.queries + row * key_width;
      for (int64_t i = 0; i < key_width; i += kLanes) {
        const int64_t left = key_width - i;
        store_first(to + i, load_first(from + i, left) * scale, left);
      }
    }
  }

  // Where the keys and values of a block are.
  void point(AttentionScratch& scratch, int64_t text, int64_t begin, int64_t seen,
             int64_t head) const {
    for (int64_t j = 0; j < seen; j += keys.interleaved() ? kLanes : 1) {
      if (keys.interleaved()) {
        scratch.key_vectors[j / kLanes] = keys.lane(table, text, begin + j, head, key_width);
      } else {
        scratch.key_rows[j] = keys.at(table, text, begin + j, head);
      }
    }
    for (int64_t j = 0; j < seen; j++) {
      scratch.value_rows[j] = values.at(table, text, begin + j, head);
    }
  }

  // The same of int8 numbers, which become floats in scratch.
  void widen(AttentionScratch& scratch, int64_t text, int64_t begin, int64_t seen,
             int64_t head) const {
    for (int64_t j = 0; j < seen; j += kLanes) {
      float* to = scratch.keys + j * key_width;
      scratch.key_vectors[j / kLanes] = to;
      const int8_t* from =
          keys.codes() + keys.lane_place(table, text, begin + j, head, key_width);
      const Floats scales = load(keys.scale(table, text, begin + j, head, key_heads));
      for (int64_t i = 0; i < key_width * kLanes; i += kLanes) {
        store(to + i, load_bytes(from + i) * scales);
      }
    }
    const int64_t padded = blocks_of(value_width, kLanes) * kLanes;
    for (int64_t j = 0; j < seen; j++) {
      float* to = scratch.values + j * padded;
      scratch.value_rows[j] = to;
      const int8_t* from = values.codes() + values.place(table, text, begin + j, head);
      const float scale = *values.scale(table, text, begin + j, head, key_heads);
      const int64_t whole = value_width / kLanes * kLanes;
      for (int64_t i = 0; i < whole; i += kLanes) {
        store(to + i, load_bytes(from + i) * broadcast(scale));
      }
      for (int64_t i = whole; i < value_width; i++) to[i] = static_cast<float>(from[i]) * scale;
    }
  }

  // Where the keys of a block are that is worked on next.
  void announce(AttentionScratch& scratch, int64_t token, int64_t head, int64_t number) const {
    scratch.next_keys.begin(key_width * kLanes);
    if (keys.rounded() || !keys.interleaved() || !valid(token)) return;
    const int64_t begin = number * kKeyBlock;
    const int64_t seen = std::min(kKeyBlock, positions[token] + 1 - begin);
    for (int64_t j = 0; j < seen; j += kLanes) {
      scratch.next_keys.add(keys.lane(table, texts[token], begin + j, head, key_width));
    }
  }

  // One block of keys for the rows of `count` tokens from `token`, all of one text.
  void block(AttentionScratch& scratch, int64_t token, int64_t count, int64_t head,
             int64_t number) const {
    const int64_t begin = number * kKeyBlock;
    const int64_t last = positions[token + count - 1];
    const int64_t seen = std::min(kKeyBlock, last + 1 - begin);
    if (keys.rounded()) {
      widen(scratch, texts[token], begin, seen, head);
    } else {
      point(scratch, texts[token], begin, seen, head);
    }
    for (int64_t row = 0; row < count * group(); row++) {
      const int64_t each = token + row / group();
      const int64_t first = std::max<int64_t>(0, first_key(each) - begin);
      scratch.visible[row] = {std::min(first, kKeyBlock),
                              std::clamp<int64_t>(positions[each] + 1 - begin, 0, seen)};
    }
    attend_block(scratch,
                 {count * group(), seen, key_width, value_width, keys.interleaved()}, scoring);
  }
};

// Many tokens: a tile of neighbours of one text, one key head, all its blocks.
struct AttendTiles {
  Attention a;

  // As many tokens as share the keys, but enough tiles for each thread to get as much as another.
  int64_t tiles(const Worker& worker) const {
    constexpr int64_t kEach = 8;
    const int64_t most = std::max<int64_t>(1, kMaxRows / a.group());
    const int64_t wanted = blocks_of(kEach * worker.count, a.key_heads);
    return std::min(a.tokens, std::max(blocks_of(a.tokens, most), wanted));
  }

  std::vector<Access> accesses() const {
    std::vector<Access> list = a.inputs();
    list.push_back(writes(a.output, a.output_bytes()));
    return list;
  }

  void operator()(Worker& worker) const {
    AttentionScratch scratch;
    scratch.reserve(worker.scratch, a.key_width, a.value_width);
    const int64_t count = tiles(worker), units = count * a.key_heads;
    Piece last{};
    // Later tokens see more keys: tiles are dealt one by one, not in runs.
    for (int64_t unit = worker.index; unit < units; unit += worker.count) {
      const int64_t tile = unit / a.key_heads;
      const int64_t begin = a.tokens * tile / count, end = a.tokens * (tile + 1) / count;
      for (int64_t token = begin; token < end;) {
        const Piece piece{token, run_length(token, end), unit % a.key_heads};
        if (last.count > 0) run(scratch, last, piece);
        last = piece;
        token += piece.count;
      }
    }
    if (last.count > 0) run(scratch, last, last);
  }

 private:
  // Neighbours of one text, and the key head whose queries they are.
  struct Piece {
    int64_t token, count, head;
  };

  // How many tokens from `token` on follow one another in one text.
  int64_t run_length(int64_t token, int64_t end) const {
    int64_t count = 1;
    while (token + count < end && a.texts[token + count] == a.texts[token] &&
           a.positions[token + count] == a.positions[token] + count) {
      count++;
    }
    return a.valid(token) && a.valid(token + count - 1) ? count : 1;
  }

  // `next` is fetched meanwhile.
  void run(AttentionScratch& scratch, const Piece& piece, const Piece& next) const {
    const int64_t token = piece.token, count = piece.count, head = piece.head;
    const int64_t rows = count * a.group(), width = a.value_width;
    std::fill(scratch.running, scratch.running + rows, Running{-kInfinity, 0.0f});
    std::fill(scratch.sums, scratch.sums + rows * width, 0.0f);
    a.load_queries(scratch, token, count, head);
    const int64_t end = a.end_block(token + count - 1);
    for (int64_t number = a.first_block(token); number < end; number++) {
      if (number + 1 < end) {
        a.announce(scratch, token + count - 1, head, number + 1);
      } else {
        const int64_t later = next.token + next.count - 1;
        a.announce(scratch, later, next.head, a.first_block(later));
      }
      a.block(scratch, token, count, head, number);
      for (int64_t row = 0; row < rows; row++) {
        merge(scratch.running[row], scratch.sums + row * width, scratch.block[row],
              scratch.mixed + row * width, width);
      }
    }
    for (int64_t row = 0; row < rows; row++) {
      const int64_t each = token + row / a.group();
      float* to = a.output + (each * a.heads + head * a.group() + row % a.group()) * width;
      normalise(scratch.running[row], scratch.sums + row * width, to, width);
      if (!a.valid(each)) std::fill(to, to + width, kNaN);
    }
  }
};

// Few tokens: every (token, key head, block) is a piece of work.
struct AttendParts {
  Attention a;

  std::vector<Access> accesses() const {
    std::vector<Access> list = a.inputs();
    list.push_back(writes(a.parts, a.part_bytes()));
    return list;
  }

  void operator()(Worker& worker) const {
    AttentionScratch scratch;
    scratch.reserve(worker.scratch, a.key_width, a.value_width);
    int64_t total = 0, passed = 0;
    for (int64_t token = 0; token < a.tokens; token++) total += pieces(token);
    const Range mine = worker.share(total);
    for (int64_t token = 0; token < a.tokens; token++) {
      const int64_t begin = std::max(mine.begin - passed, int64_t{0});
      const int64_t end = std::min(mine.end - passed, pieces(token));
      for (int64_t piece = begin; piece < end; piece++) run(scratch, token, piece, piece == begin);
      passed += pieces(token);
    }
  }

 private:
  int64_t blocks(int64_t token) const {
    return std::max<int64_t>(0, a.end_block(token) - a.first_block(token));
  }
  int64_t pieces(int64_t token) const { return blocks(token) * a.key_heads; }

  void run(AttentionScratch& scratch, int64_t token, int64_t piece, bool first) const {
    const int64_t head = piece / blocks(token);
    const int64_t number = a.first_block(token) + piece % blocks(token);
    if (first || piece % blocks(token) == 0) a.load_queries(scratch, token, 1, head);
    a.block(scratch, token, 1, head, number);
    for (int64_t row = 0; row < a.group(); row++) {
      float* part = a.part(token, head * a.group() + row, number);
      part[0] = scratch.block[row].peak;
      part[1] = scratch.block[row].total;
      const float* mixed = scratch.mixed + row * a.value_width;
      std::copy(mixed, mixed + a.value_width, part + 2);
    }
  }
};

struct JoinParts {
  Attention a;

  std::vector<Access> accesses() const {
    return {reads(a.parts, a.part_bytes()), reads(a.positions, a.tokens * 8),
            writes(a.output, a.output_bytes())};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(a.tokens * a.heads);
    float* sums = static_cast<float*>(
        worker.scratch.reserve(static_cast<size_t>(a.value_width) * sizeof(float)));
    for (int64_t unit = mine.begin; unit < mine.end; unit++) {
      const int64_t token = unit / a.heads, head = unit % a.heads;
      Running running{-kInfinity, 0.0f};
      std::fill(sums, sums + a.value_width, 0.0f);
      for (int64_t number = a.first_block(token); number < a.end_block(token); number++) {
        const float* part = a.part(token, head, number);
        merge(running, sums, {part[0], part[1]}, part + 2, a.value_width);
      }
      float* to = a.output + unit * a.value_width;
      normalise(running, sums, to, a.value_width);
      if (!a.valid(token)) std::fill(to, to + a.value_width, kNaN);
    }
  }
};

// Writes the keys or values of new tokens to their places.
struct Store {
  Rows heads;  // columns: one token's heads side by side
  PagedCache cache;
  PageTable table;
  const int64_t* texts;
  const int64_t* positions;
  int64_t head_count;

  std::vector<Access> accesses() const {
    const int64_t units = heads.count * head_count;
    const int64_t scale_bytes = cache.rounded() ? cache.bytes / width() * 4 : 0;
    return {reads(heads.data, heads.bytes(), Split::kHeads, units),
            reads(texts, heads.count * 8), reads(positions, heads.count * 8),
            writes(cache.data, cache.bytes), writes(cache.scales, scale_bytes)};
  }

  void operator()(Worker& worker) const {
    const Range mine = worker.share(heads.count * head_count);
    for (int64_t unit = mine.begin; unit < mine.end; unit++) {
      const int64_t token = unit / head_count, head = unit % head_count;
      // Nowhere to write outside the cache; attention then shows it.
      if (positions[token] < 0 || positions[token] >= table.capacity()) continue;
      const float* from = heads.data + token * heads.stride + head * width();
      if (cache.rounded()) {
        put_rounded(from, texts[token], positions[token], head, worker);
      } else {
        put(from, texts[token], positions[token], head);
      }
    }
  }

 private:
  int64_t width() const { return heads.columns / head_count; }

  void put(const float* from, int64_t text, int64_t position, int64_t head) const {
    if (cache.interleaved()) {
      float* to = cache.lane(table, text, position, head, width());
      for (int64_t i = 0; i < width(); i++) to[i * kLanes] = from[i];
    } else {
      std::copy(from, from + width(), cache.at(table, text, position, head));
    }
  }

  void put_rounded(const float* from, int64_t text, int64_t position, int64_t head,
                   Worker& worker) const {
    const int64_t padded = blocks_of(width(), kLanes) * kLanes;
    int8_t* codes = static_cast<int8_t*>(worker.scratch.reserve(static_cast<size_t>(padded)));
    *cache.scale(table, text, position, head, head_count) = round_head(from, codes);
    if (cache.interleaved()) {
      int8_t* to = cache.codes() + cache.lane_place(table, text, position, head, width());
      for (int64_t i = 0; i < width(); i++) to[i * kLanes] = codes[i];
    } else {
      std::copy(codes, codes + width(), cache.codes() + cache.place(table, text, position, head));
    }
  }

  // A head's numbers as int8, and their scale. One that is not finite makes the scale not-a-number.
  float round_head(const float* from, int8_t* codes) const {
    Ints bits = broadcast(0);
    for (int64_t i = 0; i < width(); i += kLanes) {
      bits = maximum(bits, bits_of(magnitude(load_first(from + i, width() - i))));
    }
    const int32_t most = largest(bits);
    float peak;
    std::memcpy(&peak, &most, sizeof peak);
    const bool finite = most < 0x7F800000, large = peak >= 0x1p-119f;
    for (int64_t i = 0; i < width(); i += kLanes) {
      const Floats inverse = broadcast(finite && large ? 127.0f / peak : 0.0f);
      const Ints rounded = to_nearest(load_first(from + i, width() - i) * inverse);
      store_int8(codes + i, finite && large ? rounded : broadcast(0));
    }
    return finite ? (large ? peak / 127.0f : 0.0f) : kNaN;
  }
};

}  // namespace
}  // namespace limner

using namespace limner;

void limner_attend(Plan* plan, const float* queries, int64_t query_stride, void* keys,
                   float* key_scales, const int64_t* key_strides, void* values,
                   float* value_scales, const int64_t* value_strides,
                   const int32_t* pages, int64_t pages_each, int64_t page_size,
                   const int64_t* texts, const int64_t* positions, float scale, float softcap,
                   int64_t window, float* output, int64_t tokens, int64_t heads,
                   int64_t key_heads, int64_t key_width, int64_t value_width) {
  const PagedCache key_cache{static_cast<float*>(keys), key_strides[0], key_strides[1],
                             key_strides[2], key_strides[3], key_scales};
  const PagedCache value_cache{static_cast<float*>(values), value_strides[0], value_strides[1],
                               value_strides[2], value_strides[3], value_scales};
  Attention a{queries, key_cache, value_cache, {pages, pages_each, page_size}, texts, positions,
              output,  nullptr,   tokens,      heads, key_heads, key_width, value_width,
              query_stride, {scale, softcap, window}};
  Submission submission(plan);
  // Enough pieces for some dozens of threads; beyond, parts would only cost memory.
  constexpr int64_t kFewPieces = 16;
  if (tokens * key_heads > kFewPieces) {
    submission.append(AttendTiles{a});
    return;
  }
  a.parts = static_cast<float*>(submission.between(static_cast<size_t>(a.part_bytes())));
  submission.append(AttendParts{a});
  submission.append(JoinParts{a});
}

void limner_store(Plan* plan, const float* heads, int64_t stride, void* cache, float* scales,
                  const int64_t* strides, const int32_t* pages, int64_t pages_each,
                  int64_t page_size, const int64_t* texts, const int64_t* positions, int64_t count,
                  int64_t head_count, int64_t width) {
  Submission submission(plan);
  submission.append(Store{{heads, count, head_count * width, stride},
                          {static_cast<float*>(cache), strides[0], strides[1], strides[2],
                           strides[3], scales},
                          {pages, pages_each, page_size},
                          texts,
                          positions,
                          head_count});
}

// Keys and values in pages: where the cache keeps what a token of a text left there.
#pragma once
#include <cstdint>

#include "plan.h"
#include "token_tiles.h"

namespace limner {

// Which pages hold each text, in order. Without a table page i is the whole of text i: a contiguous
// cache is the special case of one long page a text.
struct PageTable {
  const int32_t* pages;  // [texts][pages_each], or null
  int64_t pages_each, page_size;

  int64_t capacity() const { return pages_each * page_size; }
  int64_t page(int64_t text, int64_t position) const {
    return pages == nullptr ? text : pages[text * pages_each + position / page_size];
  }
};

// One tensor of keys or values. The numbers of a token's head follow one another, or they are
// interleaved with those of its 15 neighbours ([slots / 16][width][16], slot_stride 0): attention
// scores 16 keys at a time and then need not turn them around.
//
// With `scales` [pages][heads][slots] the numbers are int8, each head of a token having its scale.
struct PagedCache {
  float* data;
  int64_t page_stride, head_stride, slot_stride, bytes;
  float* scales = nullptr;

  bool interleaved() const { return slot_stride == 0; }
  bool rounded() const { return scales != nullptr; }
  int8_t* codes() const { return reinterpret_cast<int8_t*>(data); }
  int64_t place(const PageTable& table, int64_t text, int64_t position, int64_t number) const {
    return table.page(text, position) * page_stride + number * head_stride +
           position % table.page_size * slot_stride;
  }
  // The first number of a position in an interleaved page; the next is 16 further.
  int64_t lane_place(const PageTable& table, int64_t text, int64_t position, int64_t number,
                     int64_t width) const {
    const int64_t slot = position % table.page_size;
    return place(table, text, position, number) + slot / 16 * width * 16 + slot % 16;
  }
  float* at(const PageTable& table, int64_t text, int64_t position, int64_t number) const {
    return data + place(table, text, position, number);
  }
  float* lane(const PageTable& table, int64_t text, int64_t position, int64_t number,
              int64_t width) const {
    return data + lane_place(table, text, position, number, width);
  }
  float* scale(const PageTable& table, int64_t text, int64_t position, int64_t number,
               int64_t heads) const {
    const int64_t page = table.page(text, position);
    return scales + (page * heads + number) * table.page_size + position % table.page_size;
  }
};

}  // namespace limner

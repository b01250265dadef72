// Start positions of the LMS suffixes of a text: those of type S right after one of type L (see sais.hpp).
#pragma once

#include <cstdint>

namespace infinigram::build {

// Positions in a part of the text; unfinished table entries also use the sign.
using Position = std::int32_t;

// Calls `visit(positions, count)` with blocks of the LMS positions of a text from right to left.
template <typename Symbol, typename Visit>
void for_lms(const Symbol* text, Position size, Visit visit) {
  constexpr Position block_size = 2048;
  Position block[block_size];
  Position filled = 0;
  unsigned is_s = 0;
  Symbol next = text[size - 1];
  for (Position at = size - 2; at >= 0; --at) {
    const Symbol here = text[at];
    const unsigned here_s = static_cast<unsigned>(here < next) | (static_cast<unsigned>(here == next) & is_s);
    block[filled] = at + 1;
    filled += static_cast<Position>(is_s & (here_s ^ 1U));  // no branch: types are effectively random
    is_s = here_s;
    next = here;
    if (filled == block_size) {
      visit(block, filled);
      filled = 0;
    }
  }
  visit(block, filled);
}

}  // namespace infinigram::build

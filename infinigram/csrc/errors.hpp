// Errors that a caller can fix; the module maps them to limbeck.infinigram.errors.BadIndex and BadQuery.
#pragma once

#include <stdexcept>

namespace infinigram {

struct BadIndex : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct BadQuery : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace infinigram

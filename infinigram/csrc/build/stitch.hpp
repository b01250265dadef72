// The table of a text from sorted parts and the gaps between their suffixes: all files are read and written sequentially.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "build/merge.hpp"
#include "build/sorted_file.hpp"
#include "build/text.hpp"

namespace infinigram::build {

// One part, and the number of later suffixes that precede its next suffix.
class Stitched {
 public:
  Stitched(const SortedFile& part, const File* gaps)
      : part_(part), entries_(part.file()), gaps_(gaps == nullptr ? nullptr : std::make_unique<FileReader>(*gaps)) {
    read_gap();
  }

  // Whether the next suffix, among those from this part on, starts after the part.
  bool next_is_behind() {
    if (gap_ == 0) return false;
    --gap_;
    return true;
  }

  std::uint64_t next() {
    const std::uint64_t position = part_.begin() + part_.checked(entries_.next<Position>());
    read_gap();
    return position;
  }

  bool ended() const { return gap_ == 0 && entries_.ended() && (gaps_ == nullptr || gaps_->ended()); }

 private:
  void read_gap() {
    if (gaps_ == nullptr) return;
    gap_ = gaps_->next<Byte>();
    if (gap_ == 255) gap_ = gaps_->next<std::uint64_t>();
  }

  const SortedFile& part_;
  FileReader entries_;
  std::unique_ptr<FileReader> gaps_;
  std::uint64_t gap_ = 0;
};

// `gaps` has a file for each part but the last. Raises BadIndex if the files contradict each other.
inline void stitch(const Text& text, const std::vector<std::unique_ptr<SortedFile>>& parts,
                   const std::vector<std::unique_ptr<File>>& gaps, const File& table, std::atomic<std::uint64_t>& done,
                   const std::atomic<bool>& stopped) {
  constexpr std::uint64_t every = std::uint64_t{1} << 16;
  std::vector<Stitched> order;
  for (std::size_t part = 0; part < parts.size(); ++part) {
    order.emplace_back(*parts[part], part < gaps.size() ? gaps[part].get() : nullptr);
  }
  TableWriter writer(table, text, 0);
  for (std::uint64_t rank = 0; rank < text.tokens(); ++rank) {
    std::size_t part = 0;
    while (order[part].next_is_behind()) ++part;
    writer.put(order[part].next());
    if (rank % every == every - 1) {
      done += every;
      if (stopped) return;
    }
  }
  for (std::size_t part = 0; part < order.size(); ++part) {
    if (!order[part].ended()) parts[part]->fail();
  }
  done += text.tokens() % every;
  writer.flush();
}

}  // namespace infinigram::build

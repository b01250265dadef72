#include "search/shard.hpp"

namespace infinigram {

namespace {

// What is checked when a shard is opened: all of a small one, so that any damage is found; of a large one, enough to detect
// foreign, swapped and wrongly typed files.
constexpr std::uint64_t kWhole = std::uint64_t{1} << 16;
constexpr std::uint64_t kSpotChecks = 128;
constexpr std::uint64_t kComparedBytes = 4096;

std::uint64_t check_step(std::uint64_t items) { return items <= kWhole ? 1 : items / kSpotChecks; }

std::string number(std::uint64_t value) { return std::to_string(value); }

}  // namespace

template <typename Token>
Shard<Token>::Shard(const ShardFiles& files, Load load, bool accelerate)
    : text_(files.text, load), table_(files.table, load), offset_(files.offset, load), removed_(files.removed) {
  if (!files.metadata.empty()) metadata_ = FileBytes(files.metadata, Load::kMap);
  if (!files.metaoff.empty()) metaoff_ = FileBytes(files.metaoff, Load::kMap);
  check_sizes(files);
  check_documents();
  check_order();
  make_keys(files, load, accelerate);
}

template <typename Token>
void Shard<Token>::check_sizes(const ShardFiles& files) {
  const std::string width = number(kWidth);
  if (text_.size() == 0) throw BadIndex(files.text + " is empty; it is truncated, or the build had no documents");
  if (text_.size() % kWidth != 0) {
    throw BadIndex(files.text + " has " + number(text_.size()) + " bytes, not whole tokens of " + width +
                   "; it is truncated, or the token dtype is wrong");
  }
  tokens_ = text_.size() / kWidth;
  if (token(0) != separator<Token>) {
    throw BadIndex(files.text + " does not begin with a separator of " + width +
                   " bytes; it is not the text of an index, or the token dtype is wrong");
  }
  // in the official layout, the entries of a one-byte text have zero bytes
  entry_bytes_ = table_.size() / tokens_;
  const std::uint64_t needed = text_.size() == 1 ? 0 : static_cast<std::uint64_t>(infinigram::entry_bytes(text_.size()));
  if (table_.size() % tokens_ != 0 || entry_bytes_ < needed || entry_bytes_ > 8) {
    throw BadIndex(files.table + " has " + number(table_.size()) + " bytes and cannot be the suffix array of " + files.text + " (" +
                   number(tokens_) + " tokens); one of them is truncated or belongs to another index, or the token dtype is wrong");
  }
  entry_mask_ = entry_bytes_ == 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * entry_bytes_)) - 1;
  wide_ranks_ = entry_bytes_ == 0 || table_.size() < 8 ? 0 : (table_.size() - 8) / entry_bytes_ + 1;
  if (offset_.size() == 0 || offset_.size() % 8 != 0) {
    throw BadIndex(files.offset + " has " + number(offset_.size()) + " bytes, not a multiple of 8; it is truncated");
  }
  documents_ = offset_.size() / 8;
  if (files.metadata.empty() != files.metaoff.empty()) {
    throw BadIndex(files.text + " needs both metadata and metaoff; one of the two files is missing");
  }
  if (!files.metaoff.empty() && metaoff_.size() != offset_.size()) {
    throw BadIndex(files.metaoff + " describes " + number(metaoff_.size() / 8) + " documents and " + files.offset + " " +
                   number(documents_) + "; one of them is truncated or belongs to another index");
  }
  if (!removed_.empty() && removed_.back() >= documents_) {
    throw BadIndex("removed.ig lists document " + number(removed_.back()) + ", but " + files.text + " has only " +
                   number(documents_) + " documents; they belong to different indexes");
  }
}

template <typename Token>
void Shard<Token>::check_documents() const {
  if (offset(0) != 0) throw BadIndex(offset_.path() + " does not begin with 0; it is not a list of document offsets");
  const std::uint64_t step = check_step(documents_);
  for (std::uint64_t document = 0; document < documents_; document += step) place(document);
  const Place last = place(documents_ - 1);
  const std::uint64_t until = std::min(last.end, last.begin + (std::uint64_t{1} << 20));
  for (std::uint64_t at = last.begin; at < until; ++at) {
    if (token(at) == separator<Token>) {
      throw BadIndex(offset_.path() + " ends before the documents of " + text_.path() + "; it is truncated");
    }
  }
}

template <typename Token>
void Shard<Token>::check_order() const {
  const std::uint64_t step = check_step(tokens_);
  for (std::uint64_t rank = 0; rank < tokens_; rank += step) {
    const std::uint64_t here = pointer(rank);
    if (rank + 1 == tokens_) break;
    const std::uint64_t next = pointer(rank + 1);
    const std::uint64_t bytes = std::min({kComparedBytes, text_.size() - here, text_.size() - next});
    const int order = std::memcmp(text_.data() + here, text_.data() + next, bytes);
    if (order > 0 || here == next || (order == 0 && bytes < kComparedBytes && here < next)) {
      throw BadIndex(table_.path() + " does not sort " + text_.path() + " (ranks " + number(rank) + " and " + number(rank + 1) +
                     "); the files belong to different indexes, or the token dtype is wrong");
    }
  }
}

template <typename Token>
void Shard<Token>::make_keys(const ShardFiles& files, Load load, bool accelerate) {
  samples_ = (tokens_ + kStride - 1) / kStride;
  if (!files.keys.empty()) {
    key_file_ = FileBytes(files.keys, load);
    if (key_file_.size() != samples_ * 8) {
      throw BadIndex(files.keys + " has " + number(key_file_.size()) + " bytes and cannot hold the keys of " + files.table +
                     "; delete it and the keys are recomputed on opening");
    }
    // the mapping starts at a page boundary, hence aligned
    keys_ = reinterpret_cast<const std::uint64_t*>(key_file_.data());
  } else if (!accelerate) {
    samples_ = 0;
  } else {
    constexpr std::uint64_t kAhead = 24;
    own_keys_.resize(samples_);
    std::vector<std::uint64_t> pointers(kAhead);
    for (std::uint64_t sample = 0; sample < samples_ + kAhead; ++sample) {
      std::uint64_t& slot = pointers[sample % kAhead];
      if (sample >= kAhead) own_keys_[sample - kAhead] = key_at(slot);
      if (sample >= samples_) continue;
      slot = pointer(sample * kStride);
      prefetch_text(slot);
    }
    keys_ = own_keys_.data();
  }
}

template <typename Token>
void Shard<Token>::set_first_tokens(const TokenCounts& counts) {
  const auto last = std::find_if(counts.begin(), counts.end(), [](const auto& one) { return one.first == separator<Token>; });
  const std::uint64_t separators = last == counts.end() ? 0 : static_cast<std::uint64_t>(last->second);
  if (separators != documents_) {
    throw BadIndex(text_.path() + " has " + number(separators) + " separators, but " + offset_.path() + " has " + number(documents_) +
                   " offsets; one of them is damaged or belongs to another index");
  }
  constexpr std::uint64_t kMostIds = std::uint64_t{1} << 24;  // beyond any vocabulary; excludes the four-byte separator
  std::uint64_t ids = 0;
  for (const auto& [token, count] : counts) {
    if (token < kMostIds) ids = std::max(ids, token + 1);
  }
  std::vector<Token> sorted(ids);
  for (std::uint64_t id = 0; id < ids; ++id) sorted[id] = static_cast<Token>(id);
  std::sort(sorted.begin(), sorted.end(), [](Token a, Token b) { return order_key(a) < order_key(b); });
  first_tokens_.assign(ids, Range{0, 0});
  std::uint64_t rank = 0;
  auto next = counts.begin();
  for (const Token token : sorted) {
    for (; next != counts.end() && order_key(static_cast<Token>(next->first)) < order_key(token); ++next) {
      rank += static_cast<std::uint64_t>(next->second);
    }
    const bool present = next != counts.end() && next->first == token;
    const std::uint64_t end = present ? rank + static_cast<std::uint64_t>(next->second) : rank;
    first_tokens_[token] = {rank, end};
  }
}

template <typename Token>
std::uint64_t Shard<Token>::offset(std::uint64_t document) const {
  return load_entry(offset_.data() + document * 8, 8);
}

template <typename Token>
Place Shard<Token>::place(std::uint64_t document) const {
  const std::uint64_t begin = offset(document);
  const std::uint64_t end = document + 1 < documents_ ? offset(document + 1) : text_.size();
  if (begin >= end || end > text_.size() || begin % kWidth != 0 || end % kWidth != 0 ||
      token(begin / kWidth) != separator<Token>) {
    throw BadIndex(offset_.path() + " places document " + number(document) + " at bytes " + number(begin) + " to " +
                   number(end) + ", which contradicts " + text_.path() + "; one of them is damaged or belongs to another index");
  }
  return {document, begin / kWidth + 1, end / kWidth};
}

template <typename Token>
Place Shard<Token>::place_at(std::uint64_t position_tokens) const {
  const std::uint64_t at = position_tokens * kWidth;
  std::uint64_t low = 0;
  std::uint64_t high = documents_;
  while (high - low > 1) {
    const std::uint64_t middle = low + (high - low) / 2;
    (offset(middle) <= at ? low : high) = middle;
  }
  const Place found = place(low);
  if (position_tokens + 1 < found.begin || position_tokens >= found.end) {
    throw BadIndex(offset_.path() + " is not ascending near document " + number(low) + "; it is damaged");
  }
  return found;
}

template <typename Token>
std::uint64_t Shard<Token>::metadata_offset(std::uint64_t document) const {
  return load_entry(metaoff_.data() + document * 8, 8);
}

template <typename Token>
std::string Shard<Token>::metadata(std::uint64_t document) const {
  if (!has_metadata()) return "";
  const std::uint64_t begin = metadata_offset(document);
  const std::uint64_t end = document + 1 < documents_ ? metadata_offset(document + 1) : metadata_.size();
  if (begin > end || end > metadata_.size()) {
    throw BadIndex(metaoff_.path() + " places the metadata of document " + number(document) + " at bytes " +
                   number(begin) + " to " + number(end) + ", beyond " + metadata_.path() + "; one of them is damaged");
  }
  return std::string(reinterpret_cast<const char*>(metadata_.data()) + begin, end - begin);
}

template <typename Token>
void Shard<Token>::bad_entry(std::uint64_t rank, std::uint64_t entry) const {
  throw BadIndex(table_.path() + " holds " + number(entry) + " at rank " + number(rank) + ", which is not a token position in " +
                 text_.path() + "; the table is damaged or belongs to another index: verify or rebuild it");
}

template class Shard<std::uint8_t>;
template class Shard<std::uint16_t>;
template class Shard<std::uint32_t>;

}  // namespace infinigram

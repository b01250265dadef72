// One shard: its text, suffix array, documents and sampled keys, with every access checked against the file size.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "errors.hpp"
#include "files.hpp"
#include "tokens.hpp"

namespace infinigram {

// A half-open range of ranks in the suffix array.
struct Range {
  std::uint64_t begin;
  std::uint64_t end;
  std::uint64_t size() const { return end - begin; }
};

// A document of a shard: its number in the shard and its token range (from the start of the text, without the separator).
struct Place {
  std::uint64_t document = 0;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// The paths of a shard's files; an empty path means that there is no such file.
struct ShardFiles {
  std::string text, table, offset, metadata, metaoff, keys;
  std::vector<std::uint64_t> removed;  // numbers of removed documents, ascending
};

using TokenCounts = std::vector<std::pair<std::uint64_t, std::int64_t>>;  // (token id, occurrences)

// Every kStride-th suffix has its first eight bytes in the sampled keys.
inline constexpr std::uint64_t kStride = 64;

template <typename Token>
class Shard {
 public:
  static constexpr std::uint64_t kWidth = sizeof(Token);

  // `accelerate` computes the sampled keys if there is no file of them.
  Shard(const ShardFiles& files, Load load, bool accelerate);

  std::uint64_t tokens() const { return tokens_; }
  std::uint64_t text_bytes() const { return text_.size(); }
  std::uint64_t documents() const { return documents_; }
  const std::vector<std::uint64_t>& removed() const { return removed_; }
  const Byte* text() const { return text_.data(); }
  const std::string& path() const { return text_.path(); }

  Token token(std::uint64_t position_tokens) const { return load_token<Token>(text_.data() + position_tokens * kWidth); }

  // The byte offset that the suffix array holds at a rank; throws BadIndex if it is not a valid offset.
  std::uint64_t pointer(std::uint64_t rank) const {
    std::uint64_t entry;
    if (rank < wide_ranks_) [[likely]] {
      std::memcpy(&entry, table_.data() + rank * entry_bytes_, 8);
      entry &= entry_mask_;
    } else {
      entry = load_entry(table_.data() + rank * entry_bytes_, static_cast<int>(entry_bytes_));
    }
    if (entry >= text_.size() || entry % kWidth != 0) [[unlikely]] bad_entry(rank, entry);
    return entry;
  }
  void prefetch_entry(std::uint64_t rank) const { __builtin_prefetch(table_.data() + rank * entry_bytes_); }
  void prefetch_text(std::uint64_t pointer_bytes) const { __builtin_prefetch(text_.data() + pointer_bytes); }

  std::uint64_t key_at(std::uint64_t pointer_bytes) const {
    return suffix_key(text_.data() + pointer_bytes, text_.size() - pointer_bytes);
  }

  const std::uint64_t* keys() const { return keys_; }
  std::uint64_t samples() const { return samples_; }
  std::uint64_t entry_bytes() const { return entry_bytes_; }
  // The ranks of the suffixes that begin with a token, if the table of first tokens is set (an absent token then has an empty range at
  // its insertion point).
  bool first_token(Token token, Range& ranks) const {
    if (token >= first_tokens_.size()) return false;
    ranks = first_tokens_[token];
    return true;
  }
  // Builds that table from the counts of every token, ascending in byte order.
  void set_first_tokens(const TokenCounts& counts);

  // The document whose separator or tokens are at a position; throws BadIndex if the offsets contradict the text.
  Place place_at(std::uint64_t position_tokens) const;
  Place place(std::uint64_t document) const;
  bool is_removed(std::uint64_t document) const {
    return !removed_.empty() && std::binary_search(removed_.begin(), removed_.end(), document);
  }
  bool has_metadata() const { return metadata_.data() != nullptr; }
  std::string metadata(std::uint64_t document) const;

  // Occurrences of every token that occurs, ascending by byte order; computed on first use.
  template <typename Compute>
  const TokenCounts& unigrams(Compute compute) const {
    std::call_once(*unigrams_once_, [&] { unigrams_ = compute(); });
    return unigrams_;
  }

 private:
  [[noreturn]] void bad_entry(std::uint64_t rank, std::uint64_t entry) const;
  std::uint64_t offset(std::uint64_t document) const;
  std::uint64_t metadata_offset(std::uint64_t document) const;
  void check_sizes(const ShardFiles& files);
  void check_documents() const;
  void check_order() const;
  void make_keys(const ShardFiles& files, Load load, bool accelerate);

  FileBytes text_, table_, offset_, metadata_, metaoff_, key_file_;
  std::uint64_t tokens_ = 0;
  std::uint64_t documents_ = 0;
  std::uint64_t entry_bytes_ = 0;
  std::uint64_t entry_mask_ = 0;
  std::uint64_t wide_ranks_ = 0;  // ranks below it can be read as eight bytes without leaving the file
  std::vector<std::uint64_t> removed_;
  std::vector<std::uint64_t> own_keys_;
  const std::uint64_t* keys_ = nullptr;
  std::uint64_t samples_ = 0;
  std::vector<Range> first_tokens_;  // by id
  std::unique_ptr<std::once_flag> unigrams_once_ = std::make_unique<std::once_flag>();
  mutable TokenCounts unigrams_;
};

extern template class Shard<std::uint8_t>;
extern template class Shard<std::uint16_t>;
extern template class Shard<std::uint32_t>;

}  // namespace infinigram

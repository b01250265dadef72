// Batches: flat ids and offsets in, arrays out; run on the pool without the GIL.
#pragma once

#include "bindings/engine.hpp"

namespace infinigram {

template <typename Token>
py::tuple next_tokens_batch(const Engine<Token>& engine, const Batch<Token>& batch) {
  std::vector<NextTokens> all(batch.size());
  unlocked([&] {
    parallel_for(batch.size(), 8, [&](std::size_t begin, std::size_t end) {
      for (std::size_t q = begin; q < end; ++q) all[q] = next_tokens<Token>(engine, batch[q]);
    });
  });
  Numbers prompt_counts(static_cast<py::ssize_t>(batch.size()));
  Numbers offsets(static_cast<py::ssize_t>(batch.size()) + 1);
  std::int64_t total = 0;
  for (std::size_t q = 0; q < batch.size(); ++q) {
    offsets.mutable_data()[q] = total;
    prompt_counts.mutable_data()[q] = all[q].prompt_count;
    total += static_cast<std::int64_t>(all[q].counts.size());
  }
  offsets.mutable_data()[batch.size()] = total;
  Numbers ids(total);
  Numbers counts(total);
  std::int64_t* id = ids.mutable_data();
  std::int64_t* count = counts.mutable_data();
  for (const NextTokens& next : all) {
    for (const auto& [token, occurrences] : next.counts) {
      *id++ = static_cast<std::int64_t>(token);
      *count++ = occurrences;
    }
  }
  return py::make_tuple(prompt_counts, offsets, ids, counts);
}

template <typename Token>
py::tuple infgram_prob_batch(const Engine<Token>& engine, std::vector<std::vector<Token>> prompts) {
  const auto size = static_cast<py::ssize_t>(prompts.size());
  Numbers lengths(size), counts(size), continued(size);
  std::int64_t* const length = lengths.mutable_data();
  std::int64_t* const count = counts.mutable_data();
  std::int64_t* const after = continued.mutable_data();
  unlocked([&] {
    parallel_for(prompts.size(), 64, [&](std::size_t begin, std::size_t end) {
      std::vector<Query<Token>> queries(end - begin);
      for (std::size_t q = begin; q < end; ++q) {
        const Prompt<Token> prompt(prompts[q], engine.reversed());
        const SuffixMatch match = longest_suffix(engine, prompt);
        length[q] = static_cast<std::int64_t>(match.tokens);
        count[q] = match.count;
        after[q] = 0;
        queries[q - begin] = prompt.continued(match.tokens);
      }
      count_all<Token>(engine, queries, after + begin);
    });
  });
  return py::make_tuple(lengths, counts, continued);
}

// Texts of a batch, each scored independently; flat arrays as long as the ids.
template <typename Token>
py::tuple score_batch(const Engine<Token>& engine, const Batch<Token>& batch) {
  const auto size = static_cast<py::ssize_t>(batch.flat.size());
  Numbers suffix_tokens(size), prompt_counts(size), continuation_counts(size);
  std::array<std::int64_t*, 3> to = {suffix_tokens.mutable_data(), prompt_counts.mutable_data(), continuation_counts.mutable_data()};
  unlocked([&] {
    parallel_for(batch.size(), 1, [&](std::size_t begin, std::size_t end) {
      for (std::size_t q = begin; q < end; ++q) {
        const Scores scores = score<Token>(engine, batch[q]);
        std::copy(scores.suffix_tokens.begin(), scores.suffix_tokens.end(), to[0] + batch.offsets[q]);
        std::copy(scores.prompt_counts.begin(), scores.prompt_counts.end(), to[1] + batch.offsets[q]);
        std::copy(scores.continuation_counts.begin(), scores.continuation_counts.end(), to[2] + batch.offsets[q]);
      }
    });
  });
  return py::make_tuple(suffix_tokens, prompt_counts, continuation_counts);
}

template <typename Token>
Numbers longest_matches_batch(const Engine<Token>& engine, const Batch<Token>& batch) {
  Numbers ends(static_cast<py::ssize_t>(batch.flat.size()));
  std::int64_t* const to = ends.mutable_data();
  unlocked([&] {
    parallel_for(batch.size(), 1, [&](std::size_t begin, std::size_t end) {
      for (std::size_t q = begin; q < end; ++q) {
        const std::vector<std::size_t> matches = longest_matches<Token>(engine, batch[q]);
        std::copy(matches.begin(), matches.end(), to + batch.offsets[q]);
      }
    });
  });
  return ends;
}

template <typename Token>
py::tuple find_batch(const Engine<Token>& engine, const Batch<Token>& batch) {
  const std::vector<Query<Token>> queries = batch.queries();
  const auto shards = static_cast<py::ssize_t>(engine.main());
  Numbers ranges({static_cast<py::ssize_t>(batch.size()), shards, py::ssize_t{2}});
  Numbers counts(static_cast<py::ssize_t>(batch.size()));
  std::int64_t* const range = ranges.mutable_data();
  std::int64_t* const count = counts.mutable_data();
  std::fill_n(count, batch.size(), 0);
  unlocked([&] {
    parallel_for(batch.size(), 2048, [&](std::size_t begin, std::size_t end) {
      const std::span<const Query<Token>> part(queries.data() + begin, end - begin);
      search_all<Token>(engine, part, engine.main(), Want::kRange, [&](std::size_t q, std::size_t s, const Search<Token>& search) {
        std::int64_t* const at = range + ((begin + q) * engine.main() + s) * 2;
        at[0] = static_cast<std::int64_t>(search.range().begin);
        at[1] = static_cast<std::int64_t>(search.range().end);
        if (!engine.any_removed()) count[begin + q] += at[1] - at[0];
      });
      if (engine.any_removed()) count_all<Token>(engine, part, count + begin);
    });
  });
  return py::make_tuple(counts, ranges);
}

template <typename Token>
void bind_batches(py::class_<Engine<Token>>& engine_class) {
  using E = Engine<Token>;
  engine_class
      .def("count_batch",
           [](const E& engine, py::handle ids, py::handle offsets) {
             const Batch<Token> batch(engine, ids, offsets);
             const std::vector<Query<Token>> queries = batch.queries();
             Numbers counts(static_cast<py::ssize_t>(batch.size()));
             std::int64_t* const to = counts.mutable_data();
             std::fill_n(to, batch.size(), 0);
             unlocked([&] { count_batch<Token>(engine, queries, to); });
             return counts;
           })
      .def("find_batch", [](const E& engine, py::handle ids, py::handle offsets) { return find_batch(engine, Batch<Token>(engine, ids, offsets)); })
      .def("prob_batch",
           [](const E& engine, py::handle ids, py::handle offsets, py::handle next) {
             std::vector<Token> continuations;
             read_ids(next, continuations);
             std::vector<std::vector<Token>> prompts = read_prompts(ids, offsets, continuations);
             std::vector<Query<Token>> queries;
             for (std::vector<Token>& tokens : prompts) {
               const Prompt<Token> prompt(tokens, engine.reversed());
               queries.push_back(prompt.suffix(prompt.tokens()));
               queries.push_back(prompt.continued(prompt.tokens()));
             }
             Numbers counts({static_cast<py::ssize_t>(prompts.size()), py::ssize_t{2}});  // [queries, prompt and continuation]
             std::int64_t* const to = counts.mutable_data();
             std::fill_n(to, queries.size(), 0);
             unlocked([&] { count_batch<Token>(engine, queries, to); });
             return counts;
           })
      .def("infgram_prob_batch",
           [](const E& engine, py::handle ids, py::handle offsets, py::handle next) {
             std::vector<Token> continuations;
             read_ids(next, continuations);
             return infgram_prob_batch(engine, read_prompts(ids, offsets, continuations));
           })
      .def("next_tokens_batch",
           [](const E& engine, py::handle ids, py::handle offsets) { return next_tokens_batch(engine, Batch<Token>(engine, ids, offsets)); })
      .def("score_batch",
           [](const E& engine, py::handle ids, py::handle offsets) { return score_batch(engine, Batch<Token>(engine, ids, offsets)); })
      .def("longest_matches_batch", [](const E& engine, py::handle ids, py::handle offsets) {
        return longest_matches_batch(engine, Batch<Token>(engine, ids, offsets));
      });
}

}  // namespace infinigram

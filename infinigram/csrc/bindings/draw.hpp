// Samples occurrences for a batch of queries.
#pragma once

#include "bindings/engine.hpp"
#include "search/sample.hpp"

namespace infinigram {

// Per query its count and the result of `draw`, concatenated: (counts, offsets into the hits, hits).
template <typename Token>
py::tuple draw_batch(const Engine<Token>& engine, const Batch<Token>& batch, const Sampling& how) {
  std::vector<Drawn> drawn(batch.size());
  unlocked([&] {
    parallel_for(batch.size(), 32, [&](std::size_t begin, std::size_t end) {
      for (std::size_t q = begin; q < end; ++q) drawn[q] = draw_hits<Token>(engine, batch[q], how);
    });
  });
  std::vector<std::int64_t> counts, offsets{0};
  std::vector<Hit> hits;
  for (const Drawn& one : drawn) {
    counts.push_back(one.count);
    hits.insert(hits.end(), one.hits.begin(), one.hits.end());
    offsets.push_back(static_cast<std::int64_t>(hits.size()));
  }
  return py::make_tuple(to_array(counts), to_array(offsets), hits_array(hits));
}

template <typename Token>
void bind_draws(py::class_<Engine<Token>>& engine_class) {
  using E = Engine<Token>;
  engine_class.def("draw_batch", [](const E& engine, py::handle ids, py::handle offsets, std::uint64_t limit, std::uint64_t skip,
                                    std::uint64_t seed, bool replacement, bool distinct) {
    return draw_batch(engine, Batch<Token>(engine, ids, offsets), {limit, skip, seed, replacement, distinct});
  });
}

}  // namespace infinigram

// The methods of an engine of one token width as exposed to Python: ids in, numbers, tuples and arrays out.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/arguments.hpp"
#include "search/cnf.hpp"
#include "search/cnf_official.hpp"
#include "search/next.hpp"
#include "search/spans.hpp"
#include "search/suffix.hpp"

namespace infinigram {

namespace py = pybind11;

using Numbers = py::array_t<std::int64_t>;

// Queries up to this length keep the GIL: releasing and reacquiring it would cost more than the query.
inline constexpr std::size_t kShortQuery = 4096;

template <typename Work>
auto unlocked(Work work) {
  const py::gil_scoped_release release;
  return work();
}

template <typename Values>
Numbers to_array(const Values& values) {
  Numbers array(static_cast<py::ssize_t>(values.size()));
  std::copy(values.begin(), values.end(), array.mutable_data());
  return array;
}

// Ids of one query in index order.
template <typename Token>
std::vector<Token> read_query(const Engine<Token>& engine, py::handle ids) {
  std::vector<Token> query;
  read_ids(ids, query);
  if (engine.reversed()) std::reverse(query.begin(), query.end());
  return query;
}

// Ids of many queries, each in index order.
template <typename Token>
struct Batch {
  Batch(const Engine<Token>& engine, py::handle ids, py::handle offsets_given) {
    read_ids(ids, flat);
    offsets = read_offsets(offsets_given, flat.size());
    for (std::size_t q = 0; q + 1 < offsets.size(); ++q) {
      if (engine.reversed()) std::reverse(flat.begin() + offsets[q], flat.begin() + offsets[q + 1]);
    }
  }
  std::size_t size() const { return offsets.size() - 1; }
  Query<Token> operator[](std::size_t q) const {
    return Query<Token>(flat).subspan(static_cast<std::size_t>(offsets[q]), static_cast<std::size_t>(offsets[q + 1] - offsets[q]));
  }
  std::vector<Query<Token>> queries() const {
    std::vector<Query<Token>> all(size());
    for (std::size_t q = 0; q < size(); ++q) all[q] = (*this)[q];
    return all;
  }

  std::vector<Token> flat;
  std::vector<std::int64_t> offsets;
};

// Prompts with the token after each appended.
template <typename Token>
std::vector<std::vector<Token>> read_prompts(py::handle ids, py::handle offsets_given, const std::vector<Token>& continuations) {
  std::vector<Token> flat;
  read_ids(ids, flat);
  const std::vector<std::int64_t> offsets = read_offsets(offsets_given, flat.size());
  if (continuations.size() != offsets.size() - 1) {
    throw BadQuery(std::to_string(offsets.size() - 1) + " prompts and " + std::to_string(continuations.size()) +
                   " continuations; each prompt needs one");
  }
  std::vector<std::vector<Token>> prompts(offsets.size() - 1);
  for (std::size_t q = 0; q < prompts.size(); ++q) {
    prompts[q].assign(flat.begin() + offsets[q], flat.begin() + offsets[q + 1]);
    prompts[q].push_back(continuations[q]);
  }
  return prompts;
}

inline Numbers hits_array(const std::vector<Hit>& hits) {  // [hits, 4]: shard, byte offset, document, number
  Numbers array({static_cast<py::ssize_t>(hits.size()), py::ssize_t{4}});
  std::int64_t* at = array.mutable_data();
  for (const Hit& hit : hits) {
    for (const std::uint64_t value : {hit.shard, hit.pointer_bytes, hit.document, hit.number}) *at++ = static_cast<std::int64_t>(value);
  }
  return array;
}

inline py::tuple next_tuple(const NextTokens& next) {
  Numbers ids(static_cast<py::ssize_t>(next.counts.size()));
  Numbers counts(static_cast<py::ssize_t>(next.counts.size()));
  for (std::size_t i = 0; i < next.counts.size(); ++i) {
    ids.mutable_data()[i] = static_cast<std::int64_t>(next.counts[i].first);
    counts.mutable_data()[i] = next.counts[i].second;
  }
  return py::make_tuple(next.prompt_count, ids, counts, next.approximate);
}

template <typename Token>
void bind_single(py::class_<Engine<Token>>& engine_class) {
  using E = Engine<Token>;
  const auto whole = [](py::handle ids, py::handle next) {
    std::vector<Token> tokens;
    read_ids(ids, tokens);
    tokens.push_back(static_cast<Token>(integer_of(next, 8 * sizeof(Token))));
    return tokens;
  };
  const auto locked_if_short = [](std::size_t size, auto work) { return size <= kShortQuery ? work() : unlocked(work); };
  engine_class
      .def("ids",
           [](const E&, py::handle ids) {
             std::vector<Token> tokens;
             read_ids(ids, tokens);
             return to_array(tokens);
           })
      .def("count",
           [=](const E& engine, py::handle ids) {
             const std::vector<Token> query = read_query(engine, ids);
             return locked_if_short(query.size(), [&] { return count_one<Token>(engine, query); });
           })
      .def("find",
           [=](const E& engine, py::handle ids) {
             const std::vector<Token> query = read_query(engine, ids);
             std::int64_t count = 0;
             const std::vector<Range> ranges = locked_if_short(query.size(), [&] {
               if (engine.any_removed()) count = count_one<Token>(engine, query);
               return find_ranges<Token>(engine, query);
             });
             py::list segments(engine.main());
             for (std::size_t s = 0; s < engine.main(); ++s) {
               segments[s] = py::make_tuple(ranges[s].begin, ranges[s].end);
               if (!engine.any_removed()) count += static_cast<std::int64_t>(ranges[s].size());
             }
             return py::make_tuple(count, segments);
           })
      .def("prob",
           [=](const E& engine, py::handle ids, py::handle next) {
             std::vector<Token> tokens = whole(ids, next);
             const Prompt<Token> prompt(tokens, engine.reversed());
             const std::array<Query<Token>, 2> queries = {prompt.suffix(prompt.tokens()), prompt.continued(prompt.tokens())};
             std::array<std::int64_t, 2> counts{};
             locked_if_short(tokens.size(), [&] { count_all<Token>(engine, queries, counts.data()); });
             return py::make_tuple(counts[0], counts[1]);
           })
      .def("infgram_prob",
           [=](const E& engine, py::handle ids, py::handle next) {
             std::vector<Token> tokens = whole(ids, next);
             const Prompt<Token> prompt(tokens, engine.reversed());
             SuffixMatch match;
             std::int64_t continued = 0;
             locked_if_short(tokens.size(), [&] {
               match = longest_suffix(engine, prompt);
               continued = count_one(engine, prompt.continued(match.tokens));
             });
             return py::make_tuple(match.tokens, match.count, continued);
           })
      .def("longest_suffix",
           [=](const E& engine, py::handle ids) {
             std::vector<Token> tokens = whole(ids, py::int_(0));
             const Prompt<Token> prompt(tokens, engine.reversed());
             const SuffixMatch match = locked_if_short(tokens.size(), [&] { return longest_suffix(engine, prompt); });
             return py::make_tuple(match.tokens, match.count);
           })
      .def("next_tokens",
           [](const E& engine, py::handle ids) {
             const std::vector<Token> query = read_query(engine, ids);
             return next_tuple(unlocked([&] { return next_tokens<Token>(engine, query); }));
           })
      .def("estimate_next_tokens",
           [](const E& engine, py::handle ids, std::uint64_t max_support) {
             const std::vector<Token> query = read_query(engine, ids);
             return next_tuple(unlocked([&] { return estimate_next_tokens<Token>(engine, query, max_support); }));
           })
      .def("score",
           [](const E& engine, py::handle ids) {
             const std::vector<Token> text = read_query(engine, ids);
             const Scores scores = unlocked([&] { return score<Token>(engine, text); });
             return py::make_tuple(to_array(scores.suffix_tokens), to_array(scores.prompt_counts), to_array(scores.continuation_counts));
           })
      .def("longest_matches",
           [](const E& engine, py::handle ids) {
             const std::vector<Token> text = read_query(engine, ids);
             return to_array(unlocked([&] { return longest_matches<Token>(engine, text); }));
           })
      .def("draw",
           [](const E& engine, py::handle ids, std::uint64_t limit, std::uint64_t skip, std::uint64_t seed, bool replacement, bool distinct) {
             const std::vector<Token> query = read_query(engine, ids);
             const Drawn drawn = unlocked([&] { return draw_hits<Token>(engine, query, {limit, skip, seed, replacement, distinct}); });
             return py::make_tuple(drawn.count, hits_array(drawn.hits));
           });
}

template <typename Token>
void bind_texts(py::class_<Engine<Token>>& engine_class) {
  using E = Engine<Token>;
  engine_class
      .def("cnf",
           [](const E& engine, py::sequence clauses_given, std::uint64_t max_distance_tokens, std::uint64_t max_anchors, std::uint64_t seed,
              bool official) {
             std::vector<Clause<Token>> clauses;
             for (const py::handle clause : clauses_given) {
               clauses.emplace_back();
               for (const py::handle term : clause) {
                 clauses.back().emplace_back();
                 read_ids(term, clauses.back().back());
                 if (clauses.back().back().empty()) throw BadQuery("a term of a CNF query needs at least one token");
               }
               if (clauses.back().empty()) throw BadQuery("a clause of a CNF query needs at least one term");
             }
             if (clauses.empty()) throw BadQuery("a CNF query needs at least one clause");
             const CnfResult result = unlocked([&] {
               const CnfLimits limits{max_distance_tokens, max_anchors, seed};
               return official ? OfficialCnfSearch<Token>(engine, clauses, limits).run() : CnfSearch<Token>(engine, clauses, limits).run();
             });
             return py::make_tuple(result.count, result.approximate, hits_array(result.hits));
           })
      .def("spans",
           [](const E& engine, py::handle ids, py::handle delimiters, const std::vector<bool>& beginnings, std::size_t min_tokens,
              std::int64_t max_count, std::uint64_t max_hits) {
             const std::vector<Token> text = read_query(engine, ids);
             if (!beginnings.empty() && beginnings.size() != text.size()) {
               throw BadQuery("pass word beginnings for all " + std::to_string(text.size()) + " tokens, or for none");
             }
             std::vector<Token> marks;
             read_ids(delimiters, marks);
             const std::vector<Span> spans = unlocked([&] {
               return maximal_spans<Token>(engine, text, marks, beginnings, {min_tokens, max_count, max_hits});
             });
             py::list result;
             for (const Span& span : spans) {
               py::list places;
               for (const Hit& hit : span.hits) places.append(py::make_tuple(hit.shard, hit.pointer_bytes));
               result.append(py::make_tuple(span.begin, span.end, span.count, places));
             }
             return result;
           })
      .def("unigram_counts", [](const E& engine, std::size_t vocabulary) {
        std::vector<std::int64_t> counts(vocabulary, 0);
        unlocked([&] {
          for (std::size_t s = 0; s < engine.all(); ++s) {
            for (const auto& [token, count] : unigrams(engine.shard(s))) {
              if (token < vocabulary) counts[token] += engine.sign(s) * count;
            }
          }
        });
        return to_array(counts);
      });
}

}  // namespace infinigram

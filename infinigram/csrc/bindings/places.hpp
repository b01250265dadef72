// Documents: positions and content; every argument is checked.
#pragma once

#include "bindings/batch.hpp"
#include "bindings/draw.hpp"

namespace infinigram {

template <typename Token>
const Shard<Token>& shard_at(const Engine<Token>& engine, std::uint64_t s) {
  if (s >= engine.main()) {
    throw BadQuery("shard " + std::to_string(s) + " does not exist; the index has " + std::to_string(engine.main()));
  }
  return engine.shard(s);
}

template <typename Token>
Place document_at(const Engine<Token>& engine, std::uint64_t s, std::uint64_t document) {
  const Shard<Token>& shard = shard_at(engine, s);
  if (document >= shard.documents()) {
    throw BadQuery("document " + std::to_string(document) + " does not exist; shard " + std::to_string(s) + " has " +
                   std::to_string(shard.documents()));
  }
  return shard.place(document);
}

inline py::tuple place_tuple(const Place& place) { return py::make_tuple(place.document, place.begin, place.end); }

template <typename Token>
void bind_places(py::class_<Engine<Token>>& engine_class) {
  using E = Engine<Token>;
  engine_class.def_property_readonly("tokens", &E::tokens)
      .def_property_readonly("shard_tokens",
                             [](const E& engine) {
                               std::vector<std::uint64_t> all;
                               for (std::size_t s = 0; s < engine.main(); ++s) all.push_back(engine.shard(s).tokens());
                               return all;
                             })
      .def_property_readonly("shard_documents",
                             [](const E& engine) {
                               std::vector<std::uint64_t> all;
                               for (std::size_t s = 0; s < engine.main(); ++s) all.push_back(engine.shard(s).documents());
                               return all;
                             })
      .def("pointer",
           [](const E& engine, std::uint64_t s, std::uint64_t rank) {
             const Shard<Token>& shard = shard_at(engine, s);
             if (rank >= shard.tokens()) {
               throw BadQuery("rank " + std::to_string(rank) + " does not exist; shard " + std::to_string(s) + " has " +
                              std::to_string(shard.tokens()));
             }
             return shard.pointer(rank);
           })
      .def("place_at",
           [](const E& engine, std::uint64_t s, std::uint64_t pointer_bytes) {
             const Shard<Token>& shard = shard_at(engine, s);
             if (pointer_bytes >= shard.text_bytes() || pointer_bytes % sizeof(Token) != 0) {
               throw BadQuery("pointer " + std::to_string(pointer_bytes) + " must be a multiple of " + std::to_string(sizeof(Token)) +
                              " below " + std::to_string(shard.text_bytes()) + ", the size of shard " + std::to_string(s));
             }
             return place_tuple(shard.place_at(pointer_bytes / sizeof(Token)));
           })
      .def("place", [](const E& engine, std::uint64_t s, std::uint64_t document) { return place_tuple(document_at(engine, s, document)); })
      .def("is_removed", [](const E& engine, std::uint64_t s, std::uint64_t document) { return shard_at(engine, s).is_removed(document); })
      .def("metadata",
           [](const E& engine, std::uint64_t s, std::uint64_t document) {
             document_at(engine, s, document);
             return py::bytes(engine.shard(s).metadata(document));
           })
      .def("text", [](const E& engine, std::uint64_t s, std::uint64_t begin, std::uint64_t end) {  // positions in tokens, index order
        const Shard<Token>& shard = shard_at(engine, s);
        if (begin > end || end > shard.tokens()) throw BadQuery("tokens " + std::to_string(begin) + " to " + std::to_string(end) + " do not exist");
        py::array_t<Token> tokens(static_cast<py::ssize_t>(end - begin));
        std::memcpy(tokens.mutable_data(), shard.text() + begin * sizeof(Token), (end - begin) * sizeof(Token));
        return tokens;
      });
}

template <typename Token>
void bind_engine(py::module_& module, const char* name) {
  py::class_<Engine<Token>> engine_class(module, name);
  engine_class.def(py::init([](const py::list& shards_given, const py::list& removed_given, bool reversed, std::uint64_t eos, bool ram,
                              bool accelerate) {
    const auto files = [](const py::list& given) {
      std::vector<ShardFiles> shards;
      for (const py::handle item : given) {
        const auto paths = py::cast<std::array<std::string, 6>>(item.attr("paths"));
        shards.push_back({paths[0], paths[1], paths[2], paths[3], paths[4], paths[5],
                          py::cast<std::vector<std::uint64_t>>(item.attr("removed"))});
      }
      return shards;
    };
    const std::vector<ShardFiles> shards = files(shards_given);
    const std::vector<ShardFiles> removed = files(removed_given);
    return unlocked([&] { return std::make_unique<Engine<Token>>(shards, removed, reversed, eos, ram ? Load::kRam : Load::kMap, accelerate); });
  }));
  bind_single(engine_class);
  bind_texts(engine_class);
  bind_batches(engine_class);
  bind_draws(engine_class);
  bind_places(engine_class);
}

}  // namespace infinigram

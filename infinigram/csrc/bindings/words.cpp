// Encoding by words, as exposed to Python: texts in, ids out; unknown words go through the tokenizer.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <bitset>

#include "words/encoder.hpp"

namespace py = pybind11;

namespace infinigram {
namespace {

using words::Class;
using words::Classes;
using words::Draft;
using words::WordEncoder;

std::string_view utf8(py::handle text) {
  Py_ssize_t size = 0;
  const char* bytes = PyUnicode_Check(text.ptr()) ? PyUnicode_AsUTF8AndSize(text.ptr(), &size) : nullptr;
  if (bytes == nullptr && PyErr_Occurred() == nullptr) throw py::type_error("the texts to encode must be of type str");
  if (bytes == nullptr) throw py::error_already_set();
  return {bytes, static_cast<std::size_t>(size)};
}

template <typename Unit>
void mark_pages(const Unit* units, Py_ssize_t size, std::bitset<Classes::kPages>& pages) {
  for (Py_ssize_t i = 0; i < size; ++i) pages.set(static_cast<std::uint32_t>(units[i]) / Classes::kPage);
}

// Requests the character classes of every page that occurs in a text and is not known yet; `classes_of(page)` returns them as bytes.
void classify(WordEncoder& encoder, const py::list& texts, const py::function& classes_of) {
  std::bitset<Classes::kPages> pages;
  pages.set(0);
  for (const py::handle text : texts) {
    PyObject* const given = text.ptr();
    const Py_ssize_t size = PyUnicode_GET_LENGTH(given);
    switch (PyUnicode_KIND(given)) {
      case PyUnicode_1BYTE_KIND: break;  // the first page
      case PyUnicode_2BYTE_KIND: mark_pages(PyUnicode_2BYTE_DATA(given), size, pages); break;
      default: mark_pages(PyUnicode_4BYTE_DATA(given), size, pages); break;
    }
  }
  for (std::uint32_t page = 0; page < Classes::kPages; ++page) {
    if (!pages.test(page) || encoder.knows(page)) continue;
    const std::string classes = py::bytes(classes_of(page));
    std::array<Class, Classes::kPage> found;
    if (classes.size() != found.size()) throw py::value_error("expected 256 classes per page");
    for (std::size_t i = 0; i < found.size(); ++i) {
      found[i] = static_cast<Class>(classes[i]);
      if (found[i] < Class::kLetter || found[i] > Class::kOther) throw py::value_error("a class must be 1 to 4");
    }
    encoder.classify(page, found.data());
  }
}

struct NewTokens {
  std::vector<std::uint32_t> ids;
  std::vector<std::size_t> offsets = {0};
};

// Requests the tokens of words: `tokens_of(words)` returns runs of (number of words, ids, word index of each id).
NewTokens ask(const std::vector<std::string_view>& new_words, const py::function& tokens_of) {
  NewTokens tokens;
  py::list words(new_words.size());
  for (std::size_t i = 0; i < new_words.size(); ++i) words[i] = py::str(new_words[i].data(), new_words[i].size());
  using Run = std::tuple<std::size_t, std::vector<std::uint32_t>, std::vector<std::size_t>>;
  for (const py::handle run : py::list(tokens_of(words))) {
    const auto [count, ids, of_word] = py::cast<Run>(run);
    std::size_t at = 0;
    for (std::size_t word = 0; word < count; ++word) {
      for (; at < ids.size() && of_word.at(at) == word; ++at) tokens.ids.push_back(ids[at]);
      tokens.offsets.push_back(tokens.ids.size());
    }
    if (at != ids.size()) throw py::value_error("the tokens must be in the order of the words");
  }
  if (tokens.offsets.size() != new_words.size() + 1) throw py::value_error("every word needs tokens");
  return tokens;
}

// The draft with its holes filled: the ids of all texts, and their offsets (texts + 1 entries).
py::tuple filled(const Draft& draft, const NewTokens& tokens) {
  std::size_t size = draft.ids.size();
  for (const Draft::Hole& hole : draft.holes) size += tokens.offsets[hole.word + 1] - tokens.offsets[hole.word];
  py::array_t<std::uint32_t> ids(static_cast<py::ssize_t>(size));
  py::array_t<std::int64_t> offsets(static_cast<py::ssize_t>(draft.ends.size() + 1));
  std::uint32_t* to = ids.mutable_data();
  std::int64_t* offset = offsets.mutable_data();
  *offset = 0;
  {
    const py::gil_scoped_release release;
    const std::uint32_t* const begin = to;
    auto hole = draft.holes.begin();
    std::size_t from = 0;
    const auto copy_until = [&](std::size_t until) {
      to = std::copy(draft.ids.begin() + static_cast<std::ptrdiff_t>(from), draft.ids.begin() + static_cast<std::ptrdiff_t>(until), to);
      from = until;
    };
    for (const Draft::End& end : draft.ends) {
      for (; hole < draft.holes.begin() + static_cast<std::ptrdiff_t>(end.holes); ++hole) {
        copy_until(hole->at);
        to = std::copy(tokens.ids.begin() + static_cast<std::ptrdiff_t>(tokens.offsets[hole->word]),
                       tokens.ids.begin() + static_cast<std::ptrdiff_t>(tokens.offsets[hole->word + 1]), to);
      }
      copy_until(end.ids);
      *++offset = to - begin;
    }
  }
  return py::make_tuple(ids, offsets);
}

py::tuple encode(WordEncoder& encoder, const py::list& given, const py::function& classes_of, const py::function& tokens_of) {
  const py::list texts(given[py::slice(0, static_cast<py::ssize_t>(given.size()), 1)]);  // a copy: the caller may modify its list
  std::vector<std::string_view> views;
  for (const py::handle text : texts) views.push_back(utf8(text));
  classify(encoder, texts, classes_of);
  Draft draft;
  {
    const py::gil_scoped_release release;
    draft = encoder.draft(views);
  }
  NewTokens tokens;
  if (!draft.new_words.empty()) {
    tokens = ask(draft.new_words, tokens_of);
    const py::gil_scoped_release release;
    encoder.learn(draft.new_words, tokens.ids, tokens.offsets);
  }
  return filled(draft, tokens);
}

}  // namespace

void bind_words(py::module_& module) {
  py::class_<WordEncoder>(module, "WordEncoder")
      .def(py::init<std::vector<std::string>, std::vector<std::string>, std::vector<std::string>, std::size_t>(), py::arg("first"),
           py::arg("second"), py::arg("hard"), py::arg("most_bytes"))
      .def_property_readonly("words", &WordEncoder::words)
      .def("is_hard", [](const WordEncoder& encoder, py::handle text) { return encoder.is_hard(utf8(text)); })
      .def("encode", &encode, py::arg("texts"), py::arg("classes_of"), py::arg("tokens_of"));
}

}  // namespace infinigram

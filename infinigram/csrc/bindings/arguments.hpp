// Token ids from Python: lists are read by hand, which is fastest for a short query; anything else through its buffer.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "errors.hpp"

namespace infinigram {

// A one-dimensional buffer of integers, released with the object.
class IntegerBuffer {
 public:
  // Throws BadQuery if `object` has no such buffer; `name` names the argument in the error.
  IntegerBuffer(pybind11::handle object, const char* name);
  ~IntegerBuffer() { PyBuffer_Release(&view_); }
  IntegerBuffer(const IntegerBuffer&) = delete;
  IntegerBuffer& operator=(const IntegerBuffer&) = delete;

  std::size_t size() const { return view_.itemsize == 0 ? 0 : static_cast<std::size_t>(view_.shape[0]); }

  // Calls take(index, value) for all, unsigned values unchanged; the value type is that of the buffer.
  template <typename Take>
  void for_each(Take take) const {
    switch (kind_) {
      case 'b': return visit<std::int8_t>(take);
      case 'B': return visit<std::uint8_t>(take);
      case 'h': return visit<std::int16_t>(take);
      case 'H': return visit<std::uint16_t>(take);
      case 'i': return visit<std::int32_t>(take);
      case 'I': return visit<std::uint32_t>(take);
      case 'q': return visit<std::int64_t>(take);
      default: return visit<std::uint64_t>(take);
    }
  }

 private:
  template <typename Value, typename Take>
  void visit(Take take) const {
    const char* at = static_cast<const char*>(view_.buf);
    const std::size_t count = size();
    for (std::size_t i = 0; i < count; ++i, at += view_.strides[0]) {
      Value value;
      std::memcpy(&value, at, sizeof(Value));
      take(i, value);
    }
  }

  Py_buffer view_{};
  char kind_ = 'q';
};

[[noreturn]] void bad_token(const std::string& value, int bits);
[[noreturn]] void not_a_token(pybind11::handle item);

// `object` itself, or its conversion to an array (torch tensors do not expose a buffer).
pybind11::object with_buffer(pybind11::handle object);

inline std::uint64_t integer_of(pybind11::handle item, int bits) {
  PyObject* const given = item.ptr();
  if (PyLong_CheckExact(given)) [[likely]] {
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(given, &overflow);
    if (overflow != 0 || value < 0 || (value >> bits) != 0) [[unlikely]] bad_token(pybind11::str(item), bits);
    return static_cast<std::uint64_t>(value);
  }
  if (PyBool_Check(given) || !PyIndex_Check(given)) not_a_token(item);
  const auto index = pybind11::reinterpret_steal<pybind11::object>(PyNumber_Index(given));
  if (!index) throw pybind11::error_already_set();
  if (!PyLong_CheckExact(index.ptr())) not_a_token(item);
  return integer_of(index, bits);
}

// Appends ids to `tokens`; throws BadQuery for anything that is not an id of this width.
template <typename Token>
void read_ids(pybind11::handle object, std::vector<Token>& tokens) {
  constexpr int kBits = 8 * sizeof(Token);
  if (PyList_CheckExact(object.ptr()) || PyTuple_CheckExact(object.ptr())) {
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(object.ptr());
    for (Py_ssize_t i = 0; i < size && i < PySequence_Fast_GET_SIZE(object.ptr()); ++i) {
      tokens.push_back(static_cast<Token>(integer_of(PySequence_Fast_GET_ITEM(object.ptr(), i), kBits)));
    }
    return;
  }
  const pybind11::object holder = with_buffer(object);
  const IntegerBuffer buffer(holder, "token ids");
  const std::size_t from = tokens.size();
  tokens.resize(from + buffer.size());
  buffer.for_each([&](std::size_t i, auto value) {
    using Value = decltype(value);
    if constexpr (std::numeric_limits<Value>::is_signed) {
      if (value < 0) bad_token(std::to_string(value), kBits);
    }
    if constexpr (sizeof(Value) > sizeof(Token)) {
      if (static_cast<std::uint64_t>(value) > std::numeric_limits<Token>::max()) bad_token(std::to_string(value), kBits);
    }
    tokens[from + i] = static_cast<Token>(value);
  });
}

// Offsets of a batch: ascending from 0 to `total`, one more than there are queries; throws BadQuery.
std::vector<std::int64_t> read_offsets(pybind11::handle object, std::size_t total);

}  // namespace infinigram

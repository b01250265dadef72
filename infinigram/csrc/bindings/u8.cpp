#include "bindings/places.hpp"

namespace infinigram {

void bind_engine_u8(py::module_& module) { bind_engine<std::uint8_t>(module, "EngineU8"); }

}  // namespace infinigram

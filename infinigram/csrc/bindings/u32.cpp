#include "bindings/places.hpp"

namespace infinigram {

void bind_engine_u32(py::module_& module) { bind_engine<std::uint32_t>(module, "EngineU32"); }

}  // namespace infinigram

// Memory whose deleter may throw, as an accelerator's does once the device is broken.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "server/torch_backend/torch_headers.h"

namespace hearth {

// The same memory, `bytes` of it, with a deleter that throws nothing: a free that fails must not end the process, as it
// would where it leaves a destructor. It is logged, and its bytes are added to `lost` if there is one. `kind` is for the
// log: "an accelerator's memory"; a literal.
at::DataPtr KeepErrors(at::DataPtr memory, std::size_t bytes, std::string_view kind,
                       std::shared_ptr<std::atomic<std::uint64_t>> lost);

}  // namespace hearth

// One loop over independent items on a few threads.
#pragma once

#include <cstddef>
#include <functional>

#include "server/base/status.h"

namespace hearth {

// Calls fn(0) ... fn(count - 1), each once, on the calling thread and up to `threads - 1` others that
// live as long as the call. Items are handed out in order. After a failure no new item is begun; the
// result is the failure of the first item that failed. `fn` is called from several threads at once.
absl::Status ParallelFor(std::size_t count, std::size_t threads,
                         const std::function<absl::Status(std::size_t)>& fn);

}  // namespace hearth

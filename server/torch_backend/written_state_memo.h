// What analysis found out about a program's methods, for the next module of the same program.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "server/base/mutex.h"
#include "server/torch_backend/state_analysis.h"

namespace hearth {

// FindWrittenState() inlines a method's graph, which takes milliseconds on large programs. Its result
// depends on the program, on how the module's objects hang together and on which of them train; a
// module that agrees in these has the same slots written.
//
// Thread-safe.
class WrittenStateMemo {
 public:
  // As FindWrittenState(). REQUIRES: all modules are of one program.
  WrittenState Find(const torch::jit::Module& module, const torch::jit::Method& method)
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Slot {
    std::size_t object = 0;  // in the order of a walk over the module
    std::size_t slot = 0;
    WrittenState::How how{};
  };
  struct Known {
    std::vector<Slot> slots;
    bool everything = false;
  };

  Mutex mu_;
  std::map<std::string, Known> known_ ABSL_GUARDED_BY(mu_);  // by method and shape of the module
};

}  // namespace hearth

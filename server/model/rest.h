// What is left of a model that made room on its device.
#pragma once

#include <memory>
#include <stop_token>

#include "server/base/status.h"
#include "server/model/footprint.h"

namespace hearth {

// A model's files, opened and checked: what an estimate is made of, and a load may go on from.
class OpenedFiles {
 public:
  virtual ~OpenedFiles() = default;
};

// Those of a model whose weights are copied to a device: worth keeping when it leaves, for the next load then opens,
// checks and reads nothing. Immutable and thread-safe. Its destructor closes and unmaps, so it is run where a Model's
// would be.
class Rest : public OpenedFiles {
 public:
  // Pages in memory, which stay there as long as this lives.
  class Pages {
   public:
    virtual ~Pages() = default;
  };

  // What is charged for its pages while they are held: no more than a load of it needs for a time.
  virtual const Footprint& footprint() const = 0;
  // Brings in its pages. CANCELLED soon after `stop`; DATA_LOSS when the files are not what they were.
  virtual absl::StatusOr<std::unique_ptr<const Pages>> Hold(std::stop_token stop) const = 0;
};

}  // namespace hearth

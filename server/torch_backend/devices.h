// The devices there are. No torch headers: app.cc includes this.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/model/footprint.h"

namespace hearth {

class Device;

// Thread-safe.
class Devices {
 public:
  // Test devices fake:0, fake:1, ... (fake_device.h).
  struct Fakes {
    int count = 0;
    std::uint64_t memory_bytes = 0;       // of each
    std::uint64_t bytes_per_second = 0;   // that get there; 0: as fast as memory
    int failing_frees = 0;                // so many of the first on each
  };
  Devices() : Devices(Fakes{}) {}
  explicit Devices(const Fakes& fakes);
  ~Devices();
  Devices(const Devices&) = delete;
  Devices& operator=(const Devices&) = delete;

  // "cpu", "cuda:1", "fake:0". INVALID_ARGUMENT for what is no device, FAILED_PRECONDITION for one that this
  // LibTorch, machine or configuration does not have.
  absl::StatusOr<std::shared_ptr<Device>> Find(const std::string& name) ABSL_LOCKS_EXCLUDED(mu_);

  // All but the host, by number: the accelerators, then the test devices, kMaxDevices at most. Found out once, at the
  // start: budgets are made of them.
  struct Listed {
    std::string name;
    std::uint64_t memory_bytes = 0;
  };
  const std::vector<Listed>& list() const { return list_; }

  // Of each, by number, what could not be freed.
  std::vector<std::uint64_t> LostBytes() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::StatusOr<std::shared_ptr<Device>> MakeAccelerator(const std::string& name) const;

  const Fakes fakes_;
  const std::vector<Listed> list_;
  mutable Mutex mu_;
  std::map<std::string, std::shared_ptr<Device>> known_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hearth

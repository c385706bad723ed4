// Weights from files as tensors, for whatever kind of program they are bound to.
#pragma once

#include <cstddef>
#include <stop_token>
#include <string>
#include <vector>

#include "server/base/status.h"
#include "server/model/load_report.h"
#include "server/model/phase_timer.h"
#include "server/storage/weights.h"
#include "server/torch_backend/device.h"
#include "server/torch_backend/torch_headers.h"

namespace hearth {

// One tensor for each of weights.tensors, in their order. On the host they lie in the mapped files where alignment
// allows it; what does not is read in parallel, which is the report's phase of that name inside of `binding`. To
// another device all are copied, which is the phase to_device; those that are one storage stay one. CANCELLED soon
// after `stop`. Throws what LibTorch throws.
absl::StatusOr<std::vector<at::Tensor>> MakeTensors(const Weights& weights, Device& device, const std::stop_token& stop,
                                                    LoadReport& report, PhaseTimer& binding);

inline constexpr std::size_t kNamesInMessage = 8;

// Lists of names that go into the refusal, a few of each.
class WeightComplaints {
 public:
  void Missing(const std::string& name) { Add(missing_, StrCat("'", name, "'")); }
  void Misfit(std::string what) { Add(misfits_, std::move(what)); }

  // INVALID_ARGUMENT unless there was nothing to complain about.
  absl::Status status() const;

 private:
  struct List {
    std::size_t count = 0;
    std::string text;
  };
  static void Add(List& list, std::string what);
  List missing_, misfits_;
};

}  // namespace hearth

// Who may call what: the one place that decides it, whatever a call comes over.
//
// Every call belongs to a group (base/access_groups.h), and the policy says of each group who may call it: anybody
// (`open`), whoever is on this machine (`local`), and whoever shows a token or a certificate of a role that has it. What
// a listener does not serve, nobody calls there. A call without a group is refused.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/access_groups.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/metrics/metrics.h"

namespace hearth {

struct AccessPolicy {
  struct Role {
    std::string name;
    std::vector<std::string> tokens;             // each is good
    std::vector<std::string> certificate_names;  // so is each of these, of a certificate that was verified
    AccessGroups groups;
  };
  AccessGroups open = {AccessGroup::kHealth, AccessGroup::kMetadata, AccessGroup::kInference, AccessGroup::kStatistics};
  AccessGroups local = {AccessGroup::kRepository, AccessGroup::kControl};
  std::vector<Role> roles;
  std::array<AccessGroups, kListeners.size()> served = {AccessGroups::All(), AccessGroups::All(), AccessGroups::All()};
};

// What is known of who calls. Views, for the time of the question.
struct Caller {
  std::string_view address = {};                    // for the log
  bool loopback = false;                            // the connection comes from this machine
  bool forwarded = false;                           // but the call says that it began elsewhere; see TellsOfElsewhere()
  std::string_view authorization = {};              // "Bearer TOKEN"; empty: none
  std::span<const std::string> certificate_names = {};  // of the client's certificate, verified
};

// Headers that a proxy adds, or a browser for a page: a call with one of them is not from this machine, even where its
// connection is. `name` in lower case.
bool TellsOfElsewhere(std::string_view name);

// OK; PERMISSION_DENIED; or UNAUTHENTICATED, where a token, or another one, would help. The text says which key of the
// configuration would allow it. `call`: its name in that text. Takes as long for a token that is nearly right as for any
// other of its length.
absl::Status DecideAccess(const AccessPolicy& policy, Listener listener, AccessGroup group, std::string_view call,
                          const Caller& caller);

// The policy in force, and what it refused. Thread-safe.
class Access {
 public:
  explicit Access(const Clock& clock, AccessPolicy policy = {});

  // For calls from now on.
  void Set(AccessPolicy policy) ABSL_LOCKS_EXCLUDED(mu_);

  // May anybody? Then nothing of the caller need be known. No lock, for every inference asks.
  bool IsOpen(Listener listener, AccessGroup group) const {
    return AccessGroups::FromBits(open_[static_cast<std::size_t>(listener)].load(std::memory_order_relaxed)).Has(group);
  }
  // DecideAccess by the policy in force; a refusal is counted, and logged unless others were a moment ago. `group`: none
  // is refused.
  absl::Status Check(Listener listener, std::optional<AccessGroup> group, std::string_view call, const Caller& caller)
      ABSL_LOCKS_EXCLUDED(mu_);

  // hearth_refused_calls_total.
  std::vector<Metrics::Sample> Samples() const;

 private:
  void NoteRefusal(Listener listener, std::optional<AccessGroup> group, std::string_view call, const Caller& caller,
                   const absl::Status& refusal) ABSL_LOCKS_EXCLUDED(mu_);

  static constexpr std::size_t kGroups = kAccessGroups.size() + 1;  // the last: none
  using Counts = std::array<std::atomic<std::uint64_t>, 2>;         // PERMISSION_DENIED, UNAUTHENTICATED

  const Clock& clock_;
  std::array<std::atomic<std::uint32_t>, kListeners.size()> open_;
  std::array<std::array<Counts, kGroups>, kListeners.size()> refused_{};
  mutable Mutex mu_;
  std::shared_ptr<const AccessPolicy> policy_ ABSL_GUARDED_BY(mu_);
  std::optional<TimePoint> logged_ ABSL_GUARDED_BY(mu_);
  std::uint64_t unlogged_ ABSL_GUARDED_BY(mu_) = 0;  // refusals since
};

}  // namespace hearth

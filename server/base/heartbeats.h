// What must not stop for as long as the process is worth keeping.
#pragma once

#include <atomic>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "server/base/clock.h"
#include "server/base/mutex.h"

namespace hearth {

// Each part beats about once in kBeat, from where it would be stuck if it were. One that has not for a while makes
// the process not live, so that its supervisor starts it anew; slow models, hung loads and full disks do not.
//
// Thread-safe.
class Heartbeats {
 public:
  static constexpr Duration kBeat = std::chrono::seconds(1);
  static constexpr Duration kPatience = std::chrono::seconds(15);

  class Pulse {
   public:
    Pulse(std::string name, const Clock& clock) : name_(std::move(name)), clock_(clock) { Beat(); }
    void Beat() { last_.store(clock_.Now().time_since_epoch().count(), std::memory_order_relaxed); }

    const std::string& name() const { return name_; }
    TimePoint last() const { return TimePoint(Duration(last_.load(std::memory_order_relaxed))); }

   private:
    const std::string name_;
    const Clock& clock_;
    std::atomic<Duration::rep> last_{};
  };

  explicit Heartbeats(const Clock& clock) : clock_(clock) {}

  // Lives as long as this, and has beaten once.
  Pulse& Add(std::string name) ABSL_LOCKS_EXCLUDED(mu_);

  struct Silence {
    std::string name;
    Duration since{};  // it beat last
  };
  std::vector<Silence> all() const ABSL_LOCKS_EXCLUDED(mu_);
  // Of those, who has not for kPatience. Empty: live.
  std::vector<Silence> stopped() const;

 private:
  const Clock& clock_;
  mutable Mutex mu_;
  std::list<Pulse> pulses_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hearth

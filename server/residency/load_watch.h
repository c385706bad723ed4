// Notices work on load threads that does not come to its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "server/base/clock.h"
#include "server/base/executor.h"
#include "server/base/mutex.h"
#include "server/base/timer.h"
#include "server/model/signature.h"
#include "server/residency/alarm.h"

namespace hearth {

// A thread cannot be taken away from what it is stuck in: a disk that does not answer, an operator that never returns,
// a destructor. What can be done is to go on without it: another thread takes its place while it lasts
// (Executor::Replace), and somebody is told.
//
// Thread-safe.
class LoadWatch {
 public:
  struct Work {
    ModelId id;
    std::uint64_t generation = 0;  // of its load; 0: something else, such as freeing a model
    Executor* executor = nullptr;  // whose thread is at it
  };
  struct Hang {
    Work work;
    Duration since{};
    bool replaced = false;
  };
  // On the timer's thread, once for each work.
  using OnHang = std::function<void(const Hang&)>;

  LoadWatch(Timer& timer, const Clock& clock, OnHang on_hang);

  // Work under way, on the thread that does it. Must not outlive its watch. Confined to a thread.
  class Scope {
   public:
    Scope(LoadWatch& watch, std::uint64_t number) : watch_(watch), number_(number) {}
    ~Scope() { watch_.End(number_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

    // It may take so much longer, for it has more to do.
    void Allow(Duration more) { watch_.Allow(number_, more); }

   private:
    LoadWatch& watch_;
    const std::uint64_t number_;
  };
  // `limit` 0: it may take as long as it does.
  [[nodiscard]] Scope Begin(Work work, Duration limit) ABSL_LOCKS_EXCLUDED(mu_);

  // Of loads, and of the rest; that have not come to their end yet.
  struct Hung {
    std::size_t loads = 0, others = 0;
  };
  Hung hung() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Running {
    Work work;
    TimePoint began{};
    TimePoint due{};
    bool hangs = false;
    bool replaced = false;
  };
  void Allow(std::uint64_t number, Duration more) ABSL_LOCKS_EXCLUDED(mu_);
  void End(std::uint64_t number) ABSL_LOCKS_EXCLUDED(mu_);
  void Look() ABSL_LOCKS_EXCLUDED(mu_);

  const Clock& clock_;
  const OnHang on_hang_;
  mutable Mutex mu_;
  std::uint64_t next_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<std::uint64_t, Running> running_ ABSL_GUARDED_BY(mu_);
  Alarm alarm_;
};

}  // namespace hearth

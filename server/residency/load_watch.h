// Notices work on load threads that does not come to its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "server/base/clock.h"
#include "server/base/executor.h"
#include "server/base/mutex.h"
#include "server/base/timer.h"
#include "server/model/signature.h"
#include "server/residency/alarm.h"

namespace hearth {

// A thread cannot be taken away from what it is stuck in: a disk that does not answer, an operator that never returns,
// a destructor. What can be done is to go on without it: another thread takes its place while it lasts
// (Executor::Replace), and somebody is told. There are only so many of those: who finds none gets the next one that is
// free again, and when nothing but stuck work is left on an executor, somebody is told of that, too.
//
// Thread-safe.
class LoadWatch {
 public:
  struct Work {
    ModelId id;
    std::uint64_t generation = 0;  // of its load; 0: something else, such as freeing a model
    Executor* executor = nullptr;  // whose thread is at it; null: another work's, that is told of it
    std::uint64_t makes_room_for = 0;  // the generation of the load that it is part of, if it is
  };
  struct Hang {
    Work work;
    Duration since{};
    bool replaced = false;
  };
  // On the timer's thread, once for each work.
  using OnHang = std::function<void(const Hang&)>;

  // Every thread of an executor is stuck, and there are no more; or not so any more.
  struct Stall {
    Executor* executor = nullptr;
    std::uint64_t number = 0;    // ascending: of two that are told at once the greater one holds
    std::vector<ModelId> stuck;  // by id; empty: it is over
  };
  // On the timer's thread, after the hangs; that it is over, on the thread that has come to its end.
  using OnStall = std::function<void(const Stall&)>;

  LoadWatch(Timer& timer, const Clock& clock, OnHang on_hang, OnStall on_stall);

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
  // Gives those that wait for one the replacements that there are.
  void Replace() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What has changed since the last call.
  std::vector<Stall> Stalls() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const Clock& clock_;
  const OnHang on_hang_;
  const OnStall on_stall_;
  mutable Mutex mu_;
  std::uint64_t next_ ABSL_GUARDED_BY(mu_) = 1;
  std::map<std::uint64_t, Running> running_ ABSL_GUARDED_BY(mu_);
  std::set<Executor*> stalled_ ABSL_GUARDED_BY(mu_);
  std::uint64_t stalls_ ABSL_GUARDED_BY(mu_) = 0;  // told so far
  Alarm alarm_;
};

}  // namespace hearth

#include "server/residency/load_watch.h"

#include <algorithm>
#include <vector>

namespace hearth {

LoadWatch::LoadWatch(Timer& timer, const Clock& clock, OnHang on_hang)
    : clock_(clock), on_hang_(std::move(on_hang)), alarm_(timer, [this] { Look(); }) {}

LoadWatch::Scope LoadWatch::Begin(Work work, Duration limit) {
  const TimePoint now = clock_.Now();
  const bool limited = limit > Duration::zero() && limit < kNoDeadline - now;
  const TimePoint due = limited ? now + limit : kNoDeadline;
  std::uint64_t number = 0;
  {
    MutexLock lock(mu_);
    number = next_++;
    running_.emplace(number, Running{std::move(work), now, due});
  }
  if (limited) alarm_.SetBy(due);
  return {*this, number};
}

void LoadWatch::Allow(std::uint64_t number, Duration more) {
  MutexLock lock(mu_);
  Running& running = running_.at(number);
  if (running.due != kNoDeadline) running.due += more;  // an alarm that rings too early is set again
}

void LoadWatch::End(std::uint64_t number) {
  Running ended;
  {
    MutexLock lock(mu_);
    const auto at = running_.find(number);
    ended = std::move(at->second);
    running_.erase(at);
  }
  if (ended.replaced) ended.work.executor->EndReplacement();
}

void LoadWatch::Look() {
  const TimePoint now = clock_.Now();
  std::vector<Hang> hangs;
  TimePoint next = kNoDeadline;
  {
    MutexLock lock(mu_);
    for (auto& [number, running] : running_) {
      if (running.hangs) continue;
      if (running.due > now) {
        next = std::min(next, running.due);
        continue;
      }
      running.hangs = true;
      // Under the lock, so that whoever ends it knows.
      running.replaced = running.work.executor != nullptr && running.work.executor->Replace();
      hangs.push_back({running.work, now - running.began, running.replaced});
    }
  }
  if (next != kNoDeadline) alarm_.SetBy(next);
  for (const Hang& hang : hangs) on_hang_(hang);
}

LoadWatch::Hung LoadWatch::hung() const {
  MutexLock lock(mu_);
  Hung hung;
  for (const auto& [number, running] : running_) {
    if (running.hangs) ++(running.work.generation != 0 ? hung.loads : hung.others);
  }
  return hung;
}

}  // namespace hearth

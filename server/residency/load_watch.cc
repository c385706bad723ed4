#include "server/residency/load_watch.h"

#include <algorithm>
#include <vector>

namespace hearth {

LoadWatch::LoadWatch(Timer& timer, const Clock& clock, OnHang on_hang, OnStall on_stall)
    : clock_(clock),
      on_hang_(std::move(on_hang)),
      on_stall_(std::move(on_stall)),
      alarm_(timer, [this] { Look(); }) {}

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
  if (!ended.hangs || ended.work.executor == nullptr) return;
  if (ended.replaced) ended.work.executor->EndReplacement();
  std::vector<Stall> stalls;
  {
    MutexLock lock(mu_);
    Replace();
    stalls = Stalls();
  }
  for (const Stall& stall : stalls) on_stall_(stall);
}

void LoadWatch::Replace() {
  std::set<const Executor*> exhausted;
  for (auto& [number, running] : running_) {
    Executor* const executor = running.work.executor;
    if (!running.hangs || running.replaced || executor == nullptr || exhausted.contains(executor)) continue;
    running.replaced = executor->Replace();
    if (!running.replaced) exhausted.insert(executor);
  }
}

std::vector<LoadWatch::Stall> LoadWatch::Stalls() {
  struct Stuck {
    std::set<ModelId> ids;
    std::size_t for_good = 0;  // not replaced
  };
  std::map<Executor*, Stuck> stuck;
  for (const auto& [number, running] : running_) {
    if (!running.hangs || running.work.executor == nullptr) continue;
    Stuck& on = stuck[running.work.executor];
    on.ids.insert(running.work.id);
    on.for_good += running.replaced ? 0 : 1;
  }
  std::vector<Stall> stalls;
  for (const auto& [executor, on] : stuck) {
    if (on.for_good < executor->width() || !stalled_.insert(executor).second) continue;
    stalls.push_back({executor, ++stalls_, {on.ids.begin(), on.ids.end()}});
  }
  for (Executor* executor : std::set<Executor*>(stalled_)) {
    const auto on = stuck.find(executor);
    if (on != stuck.end() && on->second.for_good >= executor->width()) continue;
    stalled_.erase(executor);
    stalls.push_back({executor, ++stalls_, {}});
  }
  return stalls;
}

void LoadWatch::Look() {
  const TimePoint now = clock_.Now();
  std::vector<const Running*> late;
  std::vector<Hang> hangs;
  std::vector<Stall> stalls;
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
      late.push_back(&running);
    }
    if (!late.empty()) Replace();  // under the lock, so that whoever ends it knows
    for (const Running* running : late) hangs.push_back({running->work, now - running->began, running->replaced});
    if (!late.empty()) stalls = Stalls();
  }
  if (next != kNoDeadline) alarm_.SetBy(next);
  for (const Hang& hang : hangs) on_hang_(hang);
  for (const Stall& stall : stalls) on_stall_(stall);
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

#include "server/serving/repository_poller.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/base/log.h"
#include "server/base/mutex.h"
#include "server/base/strings.h"

namespace hearth {
namespace {

constexpr Duration kLongestWait = std::chrono::seconds(15);  // for what does not settle

std::set<ModelId> IdsOf(const Catalog& catalog) {
  std::set<ModelId> ids;
  for (const Catalog::Row& row : catalog.List()) {
    for (const std::int64_t version : row.versions) ids.insert({row.model, version});
  }
  return ids;
}

void Report(const std::set<ModelId>& before, const std::set<ModelId>& after) {
  for (const ModelId& id : after) {
    if (!before.contains(id)) log::Info("model is new in the repository", {{"model", id.name}, {"version", id.version}});
  }
  for (const ModelId& id : before) {
    if (!after.contains(id)) log::Info("model left the repository", {{"model", id.name}, {"version", id.version}});
  }
}

}  // namespace

struct RepositoryPoller::State {
  explicit State(Deps d) : deps(std::move(d)) {}

  const Deps deps;

  Mutex mu;
  Duration interval ABSL_GUARDED_BY(mu){};
  std::uint64_t setting ABSL_GUARDED_BY(mu) = 0;  // counts them
  Timer::Id alarm ABSL_GUARDED_BY(mu) = 0;
  bool closed ABSL_GUARDED_BY(mu) = false;
  bool look_posted ABSL_GUARDED_BY(mu) = false;  // by Changed(), and has not begun
  Timer::Id again ABSL_GUARDED_BY(mu) = 0;       // the look after that
  Duration wait ABSL_GUARDED_BY(mu) = kSettle;   // before it

  // Confined to deps.executor.
  std::map<ModelId, std::uint64_t> seen;   // other revisions than those that are resident
  std::map<ModelId, std::uint64_t> tried;  // of these, those that a load was started for
  std::string complaint;                   // about the last scan
  bool waiting = false;                    // something that the last look found has to wait for the next
};

RepositoryPoller::RepositoryPoller(Deps deps) : state_(std::make_shared<State>(std::move(deps))) {}

RepositoryPoller::~RepositoryPoller() {
  SetInterval({});
  Timer::Id again = 0;
  {
    MutexLock lock(state_->mu);
    state_->closed = true;
    again = std::exchange(state_->again, 0);
  }
  if (again != 0) state_->deps.timer.Cancel(again);
}

void RepositoryPoller::SetInterval(Duration interval) {
  Timer::Id obsolete = 0;
  {
    MutexLock lock(state_->mu);
    if (state_->interval == interval) return;
    state_->interval = interval;
    ++state_->setting;
    obsolete = std::exchange(state_->alarm, 0);
  }
  if (obsolete != 0) state_->deps.timer.Cancel(obsolete);
  SetAlarm(state_);
}

// The next one is set when this one has been dealt with, however long that takes.
void RepositoryPoller::SetAlarm(const std::shared_ptr<State>& state) {
  MutexLock lock(state->mu);  // the timer runs nothing inline
  if (state->interval <= Duration::zero()) return;
  const Duration interval = state->interval;
  const std::uint64_t setting = state->setting;
  state->alarm = state->deps.timer.At(state->deps.clock.Now() + interval, [state, interval, setting] {
    state->deps.executor.Post([state, interval, setting] {
      const auto is_current = [&] {
        MutexLock now(state->mu);
        return state->setting == setting;
      };
      if (!is_current()) return;
      Look(*state, interval);
      if (is_current()) SetAlarm(state);
    });
  });
}

void RepositoryPoller::Changed() {
  Timer::Id obsolete = 0;
  {
    MutexLock lock(state_->mu);
    state_->wait = kSettle;
    obsolete = std::exchange(state_->again, 0);
  }
  if (obsolete != 0) state_->deps.timer.Cancel(obsolete);
  LookNow(state_);
}

// One that waits for its turn sees what has changed meanwhile.
void RepositoryPoller::LookNow(const std::shared_ptr<State>& state) {
  {
    MutexLock lock(state->mu);
    if (state->closed || std::exchange(state->look_posted, true)) return;
  }
  state->deps.executor.Post([state] {
    {
      MutexLock lock(state->mu);
      state->look_posted = false;
      if (state->closed) return;
    }
    Look(*state, kSettle);
    if (state->waiting) LookAgain(state);
  });
}

// Less and less often: what was written in the future, as its file server has it, never settles.
void RepositoryPoller::LookAgain(const std::shared_ptr<State>& state) {
  MutexLock lock(state->mu);  // the timer runs nothing inline
  if (state->closed || state->again != 0) return;
  state->again = state->deps.timer.At(state->deps.clock.Now() + state->wait, [state] {
    {
      MutexLock now(state->mu);
      state->again = 0;
    }
    LookNow(state);
  });
  state->wait = std::min(state->wait * 2, kLongestWait);
}

void RepositoryPoller::Look(State& state, Duration interval) {
  const Deps& deps = state.deps;
  const std::set<ModelId> before = IdsOf(deps.catalog);
  const WallTime settled = deps.clock.WallNow() - std::chrono::duration_cast<WallTime::duration>(interval);
  const absl::Status scanned = deps.catalog.Scan({.settled_before = settled, .oddities = log::Level::kDebug});
  const std::string complaint(FromAbsl(scanned.message()));
  if (complaint != state.complaint && !scanned.ok()) log::Error("repository not read", {{"reason", complaint}});
  state.complaint = complaint;
  state.waiting = false;
  if (!scanned.ok()) return;
  state.waiting = deps.catalog.has_unsettled();
  deps.rescanned();
  Report(before, IdsOf(deps.catalog));
  for (const ModelCache::Row& row : deps.manager.Snapshot()) Follow(state, row);
  // Others are left until they are asked for, and loaded anew if they have changed.
  for (const RestRow& row : deps.manager.Rests()) {
    if (absl::IsNotFound(deps.catalog.Spec(row.id).status())) deps.manager.Unload(row.id, [] {});
  }
}

void RepositoryPoller::Follow(State& state, const ModelCache::Row& row) {
  if (row.state != ModelState::kReady && row.state != ModelState::kFailed) return;
  const ModelId& id = row.id;
  const absl::StatusOr<ModelSpec> spec = state.deps.catalog.Spec(id);
  if (absl::IsNotFound(spec.status())) {
    if (state.deps.goes_on && state.deps.goes_on(id)) return;
    return state.deps.manager.Unload(id, [] {});
  }
  // One that failed is tried again by its next request: ModelManager::Acquire.
  if (!spec.ok() || row.state == ModelState::kFailed || spec->revision == row.revision) {
    state.seen.erase(id);
    state.tried.erase(id);
    return;
  }
  const auto [seen, first] = state.seen.try_emplace(id, spec->revision);
  if (first || std::exchange(seen->second, spec->revision) != spec->revision) {
    state.waiting = true;
    return;
  }
  const auto [tried, untried] = state.tried.try_emplace(id, spec->revision);
  if (!untried && std::exchange(tried->second, spec->revision) == spec->revision) return;
  log::Info("model changed in the repository", {{"model", id.name}, {"version", id.version}});
  state.deps.manager.Load(id, {.reload = true, .priority = LoadPriority::kBackground}, kNoDeadline,
                          [](const absl::StatusOr<LoadReport>&) {});  // the manager says what became of it
}

}  // namespace hearth

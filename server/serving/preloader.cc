#include "server/serving/preloader.h"

#include <algorithm>
#include <utility>

#include "server/base/log.h"

namespace hearth {
namespace {

// The versions that the pins of `items` mean as the catalog is now.
std::vector<ModelId> PinnedIds(const Catalog& catalog, const std::vector<PreloadItem>& items) {
  std::vector<ModelId> ids;
  for (const PreloadItem& item : items) {
    const std::vector<std::int64_t> versions = catalog.Versions(item.model);
    if (!item.pin || versions.empty()) continue;
    const std::int64_t version = item.version.value_or(versions.back());
    if (std::find(versions.begin(), versions.end(), version) != versions.end()) {
      ids.push_back({item.model, version});
    }
  }
  return ids;
}

}  // namespace

struct Preloader::State {
  State(Deps d, Options o, std::function<void()> change)
      : deps(d), on_change(std::move(change)), options(o) {}

  struct Entry {
    PreloadItem item;
    bool ready = false;  // has been loaded; stays so
    Duration backoff{};
    Timer::Id retry = 0;
  };

  // Constant after construction.
  const Deps deps;
  const std::function<void()> on_change;

  mutable Mutex mu;
  Options options ABSL_GUARDED_BY(mu);
  std::vector<Entry> entries ABSL_GUARDED_BY(mu);
  std::size_t generation ABSL_GUARDED_BY(mu) = 0;  // of `entries`; answers to older lists are ignored
  std::uint64_t pinnings ABSL_GUARDED_BY(mu) = 0;  // calls of Pin() so far
  bool stopped ABSL_GUARDED_BY(mu) = false;
};

Preloader::Preloader(Deps deps, Options options, std::function<void()> on_change)
    : state_(std::make_shared<State>(deps, options, std::move(on_change))) {}

Preloader::~Preloader() { Stop(); }

void Preloader::Apply(std::vector<PreloadItem> items) {
  std::vector<std::size_t> to_load;
  std::vector<Timer::Id> obsolete;
  std::size_t generation = 0;
  {
    MutexLock lock(state_->mu);
    generation = ++state_->generation;
    std::vector<State::Entry> next;
    for (PreloadItem& item : items) {
      const auto known = std::find_if(
          state_->entries.begin(), state_->entries.end(), [&](const State::Entry& e) {
            return e.item.model == item.model && e.item.version == item.version;
          });
      const bool listed = known != state_->entries.end();
      const bool ready = listed && known->ready;
      const bool newly_pinned = item.pin && !(listed && known->item.pin);
      if (!ready || newly_pinned) to_load.push_back(next.size());
      next.push_back({std::move(item), ready, {}, 0});
    }
    for (const State::Entry& entry : state_->entries) obsolete.push_back(entry.retry);
    state_->entries = std::move(next);
  }
  for (const Timer::Id id : obsolete) state_->deps.timer.Cancel(id);
  Pin(*state_);
  for (const std::size_t index : to_load) Start(state_, generation, index);
  state_->on_change();
}

void Preloader::Stop() {
  std::vector<Timer::Id> timers;
  {
    MutexLock lock(state_->mu);
    state_->stopped = true;
    for (const State::Entry& entry : state_->entries) timers.push_back(entry.retry);
  }
  for (const Timer::Id id : timers) state_->deps.timer.Cancel(id);
}

void Preloader::SetOptions(Options options) {
  MutexLock lock(state_->mu);
  state_->options = options;
}

void Preloader::RenewPins() { Pin(*state_); }

void Preloader::Pin(State& state) {
  std::uint64_t seen = 0;
  {
    MutexLock lock(state.mu);
    seen = ++state.pinnings;
  }
  while (true) {
    std::vector<PreloadItem> items;
    {
      MutexLock lock(state.mu);
      for (const State::Entry& entry : state.entries) items.push_back(entry.item);
    }
    state.deps.manager.SetHardPins(PinnedIds(state.deps.catalog, items));
    // Whoever sets the pins last must have seen the newest list and the newest catalog.
    MutexLock lock(state.mu);
    if (seen == state.pinnings) return;
    seen = state.pinnings;
  }
}

void Preloader::Start(const std::shared_ptr<State>& state, std::size_t generation, std::size_t index) {
  PreloadItem item;
  {
    MutexLock lock(state->mu);
    if (state->stopped || generation != state->generation) return;
    item = state->entries[index].item;
  }
  const absl::StatusOr<ModelId> id = state->deps.catalog.Resolve(item.model, item.version);
  if (!id.ok()) return Loaded(state, generation, index, id.status());
  const bool wanted = item.required || item.pin;
  state->deps.manager.Load(*id, {.priority = wanted ? LoadPriority::kNormal : LoadPriority::kBackground}, kNoDeadline,
                           [state, generation, index](absl::StatusOr<LoadReport> report) {
                             Loaded(state, generation, index, report.status());
                           });
}

void Preloader::Loaded(const std::shared_ptr<State>& state, std::size_t generation, std::size_t index,
                       const absl::Status& status) {
  {
    MutexLock lock(state->mu);
    if (state->stopped || generation != state->generation) return;
    State::Entry& entry = state->entries[index];
    entry.ready |= status.ok();
    if (!status.ok()) {
      entry.backoff = entry.backoff == Duration::zero()
                          ? state->options.backoff
                          : std::min(entry.backoff * 2, state->options.max_backoff);
      const bool again = entry.item.required && !entry.ready;
      const bool no_room = !entry.item.required && absl::IsResourceExhausted(status);
      const log::Level level = no_room ? log::Level::kInfo : log::Level::kError;
      if (log::Enabled(level)) {
        log::Write(level, again ? "required model not loaded; trying again" : "preload failed",
                   {{"model", entry.item.model},
                    {"required", entry.item.required},
                    {"retry_s", again ? ToSeconds(entry.backoff) : 0},
                    {"reason", FromAbsl(status.message())}});
      }
      if (again) {
        const std::string model = entry.item.model;
        entry.retry = state->deps.timer.At(
            state->deps.clock.Now() + entry.backoff, [state, generation, index, model] {
              auto retry = [state, generation, index, model] {
                (void)state->deps.catalog.Rescan(model);  // Start() reports what is still wrong
                Pin(*state);
                Start(state, generation, index);
              };
              Executor* const executor = state->deps.executor;
              executor != nullptr ? executor->Post(std::move(retry)) : retry();
            });
      }
    }
  }
  state->on_change();
}

bool Preloader::all_required_ready() const { return waiting_for().empty(); }

std::vector<std::string> Preloader::waiting_for() const {
  MutexLock lock(state_->mu);
  std::vector<std::string> names;
  for (const State::Entry& entry : state_->entries) {
    if (entry.item.required && !entry.ready) names.push_back(entry.item.model);
  }
  return names;
}

}  // namespace hearth

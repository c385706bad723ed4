#include "server/serving/prewarmer.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "server/base/mutex.h"

namespace hearth {
namespace {

constexpr std::size_t kMost = 4096;

// Those that ModelManager::ExpectedUse knows of.
bool MayComeBack(const CacheEvent& event) {
  return event.kind == CacheEventKind::kEvicted &&
         (event.reason == EvictionReason::kCapacity || event.reason == EvictionReason::kIdle);
}

}  // namespace

class Prewarmer::State final : public EventLog::Listener, public std::enable_shared_from_this<State> {
 public:
  explicit State(Deps deps) : deps_(std::move(deps)) {}

  void SetEnabled(bool enabled) ABSL_LOCKS_EXCLUDED(mu_);
  void EventAdded() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Expect(const ModelId& id) ABSL_LOCKS_EXCLUDED(mu_);
  void SetAlarm() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Ring() ABSL_LOCKS_EXCLUDED(mu_);
  void Load(const ModelId& id);

  const Deps deps_;
  std::atomic<bool> enabled_{false};  // written under mu_
  Mutex mu_;
  std::uint64_t read_ ABSL_GUARDED_BY(mu_) = 0;  // of the journal, up to here
  std::set<std::pair<TimePoint, ModelId>> due_ ABSL_GUARDED_BY(mu_);
  Timer::Id alarm_ ABSL_GUARDED_BY(mu_) = 0;
  TimePoint set_for_ ABSL_GUARDED_BY(mu_) = TimePoint::max();  // max: not set
};

Prewarmer::Prewarmer(Deps deps) : state_(std::make_shared<State>(deps)) {
  deps.manager.events().Listen(state_);
}

Prewarmer::~Prewarmer() { SetEnabled(false); }

void Prewarmer::SetEnabled(bool enabled) { state_->SetEnabled(enabled); }

void Prewarmer::State::SetEnabled(bool enabled) {
  const std::uint64_t end = deps_.manager.events().end();
  MutexLock lock(mu_);
  if (enabled_.exchange(enabled) == enabled) return;
  read_ = end;
  due_.clear();
  if (std::exchange(set_for_, TimePoint::max()) != TimePoint::max()) deps_.timer.Cancel(alarm_);
}

// Several may come at once, and between them read every event once.
void Prewarmer::State::EventAdded() {
  while (enabled_.load(std::memory_order_relaxed)) {
    std::uint64_t from = 0;
    {
      MutexLock lock(mu_);
      from = read_;
    }
    const EventLog::Found found = deps_.manager.events().Read(from, "");
    {
      MutexLock lock(mu_);
      if (read_ != from) continue;
      read_ = found.next;
    }
    if (found.event == nullptr) return;
    if (MayComeBack(*found.event)) Expect(found.event->id);
  }
}

void Prewarmer::State::Expect(const ModelId& id) {
  const std::optional<Expectation> expected = deps_.manager.ExpectedUse(id);
  // One that should be coming back by now had to make room a moment ago, and would not find any.
  if (!expected || expected->load_at <= deps_.clock.Now()) return;
  MutexLock lock(mu_);
  if (!enabled_) return;
  due_.emplace(expected->load_at, id);
  if (due_.size() > kMost) due_.erase(std::prev(due_.end()));
  SetAlarm();
}

// The timer runs nothing inline.
void Prewarmer::State::SetAlarm() {
  if (due_.empty() || due_.begin()->first >= set_for_) return;
  if (set_for_ != TimePoint::max()) deps_.timer.Cancel(alarm_);
  set_for_ = due_.begin()->first;
  alarm_ = deps_.timer.At(set_for_, [state = shared_from_this()] { state->Ring(); });
}

void Prewarmer::State::Ring() {
  std::vector<ModelId> now;
  {
    MutexLock lock(mu_);
    if (!enabled_) return;
    const TimePoint until = deps_.clock.Now();
    while (!due_.empty() && due_.begin()->first <= until) now.push_back(due_.extract(due_.begin()).value().second);
    set_for_ = TimePoint::max();
    SetAlarm();
  }
  for (const ModelId& id : now) Load(id);
}

// It may have been asked for since, or left again, or left the repository.
void Prewarmer::State::Load(const ModelId& id) {
  const std::optional<Expectation> expected = deps_.manager.ExpectedUse(id);
  if (!expected || expected->load_at > deps_.clock.Now()) return;
  if (!deps_.is_served(id)) return;
  deps_.manager.Load(id, {.priority = LoadPriority::kBackground, .expected = expected}, kNoDeadline,
                     [](const absl::StatusOr<LoadReport>&) {});  // the manager says what became of it
}

}  // namespace hearth

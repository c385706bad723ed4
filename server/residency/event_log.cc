#include "server/residency/event_log.h"

#include <algorithm>
#include <utility>

namespace hearth {
namespace {

absl::Status Cut(const absl::Status& error, std::size_t bytes) {
  const std::string_view message = FromAbsl(error.message());
  if (message.size() <= bytes) return error;
  std::size_t end = bytes;
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0) == 0x80) --end;  // between characters
  return absl::Status(error.code(), StrCat(message.substr(0, end), "..."));
}

}  // namespace

void EventLog::Add(CacheEvent event) {
  event.error = Cut(event.error, options_.message_bytes);
  const auto added = std::make_shared<CacheEvent>(std::move(event));
  std::vector<std::shared_ptr<Listener>> told;
  {
    MutexLock lock(mu_);
    added->time = clock_.WallNow();
    added->at = clock_.Now();
    added->sequence = next_;
    if (!Remember(added)) return;
    ++next_;
    events_.push_back(added);
    if (events_.size() > options_.events) events_.pop_front();
    std::erase_if(listeners_, [](const auto& listener) { return listener.expired(); });
    for (const auto& listener : listeners_) {
      if (auto alive = listener.lock()) told.push_back(std::move(alive));
    }
  }
  for (const auto& listener : told) listener->EventAdded();
}

bool EventLog::Remember(const EventPtr& event) {
  const auto known = models_.find(event->id);
  if (known == models_.end() && models_.size() >= options_.models) {
    // Slow, and only where there are more models than anybody looks at.
    models_.erase(std::min_element(models_.begin(), models_.end(), [](const auto& a, const auto& b) {
      return a.second.last->sequence < b.second.last->sequence;
    }));
  }
  History& history = models_[event->id];
  switch (event->kind) {
    case CacheEventKind::kRefused:
      ++history.refused;
      if (history.last != nullptr && history.last->kind == CacheEventKind::kRefused) return false;
      break;
    case CacheEventKind::kReady:
      history.refused = 0;
      break;
    case CacheEventKind::kFailed:
      history.refused = 0;
      history.last_failure = event;
      break;
    case CacheEventKind::kEvicted:
      ++history.evictions;
      history.last_eviction = event;
      break;
    case CacheEventKind::kLost:
      history.last_loss = event;
      return true;
    case CacheEventKind::kFell:
    case CacheEventKind::kStalled:
      if (history.last == nullptr) history.last = event;
      return true;  // how it left, or why it failed, says more
    case CacheEventKind::kQueued:
    case CacheEventKind::kLoading:
    case CacheEventKind::kUnloaded:
      break;
  }
  history.last = event;
  return true;
}

EventLog::Found EventLog::Read(std::uint64_t from, std::string_view model) const {
  MutexLock lock(mu_);
  Found found;
  found.dropped = first() > from ? first() - from : 0;
  for (std::uint64_t at = std::max(from, first()); at < next_; ++at) {
    const EventPtr& event = events_[at - first()];
    if (!model.empty() && event->id.name != model) continue;
    found.event = event;
    found.next = at + 1;
    return found;
  }
  found.next = std::max(from, next_);
  return found;
}

std::uint64_t EventLog::begin() const {
  MutexLock lock(mu_);
  return first();
}

std::uint64_t EventLog::end() const {
  MutexLock lock(mu_);
  return next_;
}

EventLog::History EventLog::Of(const ModelId& id) const {
  MutexLock lock(mu_);
  const auto known = models_.find(id);
  return known == models_.end() ? History{} : known->second;
}

void EventLog::Listen(std::weak_ptr<Listener> listener) {
  MutexLock lock(mu_);
  listeners_.push_back(std::move(listener));
}

}  // namespace hearth

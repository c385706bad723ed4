#include "server/residency/waiters.h"

namespace hearth {

Waiters::Ticket Waiters::Add(const CacheEntry* entry, Waiter waiter) {
  const Ticket ticket = next_++;
  if (waiter.deadline != kNoDeadline) by_deadline_.emplace(waiter.deadline, ticket);
  by_entry_[entry].insert(ticket);
  by_ticket_.emplace(ticket, Place{entry, std::move(waiter)});
  return ticket;
}

std::optional<Waiters::Taken> Waiters::Take(Ticket ticket) {
  const auto found = by_ticket_.find(ticket);
  if (found == by_ticket_.end()) return std::nullopt;
  Taken taken{found->second.entry, std::move(found->second.waiter)};
  by_ticket_.erase(found);
  by_deadline_.erase({taken.waiter.deadline, ticket});
  const auto entry = by_entry_.find(taken.entry);
  entry->second.erase(ticket);
  if (entry->second.empty()) by_entry_.erase(entry);
  return taken;
}

std::vector<Waiter> Waiters::TakeAll(const CacheEntry* entry) {
  std::vector<Waiter> all;
  const auto found = by_entry_.find(entry);
  if (found == by_entry_.end()) return all;
  const std::set<Ticket> tickets = found->second;
  all.reserve(tickets.size());
  for (const Ticket ticket : tickets) all.push_back(std::move(Take(ticket)->waiter));
  return all;
}

std::vector<Waiters::Taken> Waiters::TakeNormal(const CacheEntry* entry) {
  std::vector<Taken> normal;
  const auto found = by_entry_.find(entry);
  if (found == by_entry_.end()) return normal;
  for (const Ticket ticket : std::set<Ticket>(found->second)) {
    if (by_ticket_.at(ticket).waiter.priority == LoadPriority::kNormal) normal.push_back(*Take(ticket));
  }
  return normal;
}

std::vector<Waiters::Taken> Waiters::TakeExpired(TimePoint now) {
  std::vector<Taken> expired;
  while (!by_deadline_.empty() && by_deadline_.begin()->first <= now) {
    expired.push_back(*Take(by_deadline_.begin()->second));
  }
  return expired;
}

std::size_t Waiters::count(const CacheEntry* entry) const {
  const auto found = by_entry_.find(entry);
  return found == by_entry_.end() ? 0 : found->second.size();
}

template <typename Is>
bool Waiters::Any(const CacheEntry* entry, const Is& is) const {
  const auto found = by_entry_.find(entry);
  if (found == by_entry_.end()) return false;
  for (const Ticket ticket : found->second) {
    if (is(by_ticket_.at(ticket).waiter)) return true;
  }
  return false;
}

bool Waiters::HasRequest(const CacheEntry* entry) const {
  return Any(entry, [](const Waiter& waiter) { return waiter.request; });
}

bool Waiters::HasNormal(const CacheEntry* entry) const {
  return Any(entry, [](const Waiter& waiter) { return waiter.priority == LoadPriority::kNormal; });
}

std::optional<TimePoint> Waiters::next_deadline() const {
  if (by_deadline_.empty()) return std::nullopt;
  return by_deadline_.begin()->first;
}

}  // namespace hearth

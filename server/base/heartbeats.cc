#include "server/base/heartbeats.h"

namespace hearth {

Heartbeats::Pulse& Heartbeats::Add(std::string name) {
  MutexLock lock(mu_);
  return pulses_.emplace_back(std::move(name), clock_);
}

std::vector<Heartbeats::Silence> Heartbeats::all() const {
  const TimePoint now = clock_.Now();
  std::vector<Silence> silences;
  MutexLock lock(mu_);
  for (const Pulse& pulse : pulses_) silences.push_back({pulse.name(), now - pulse.last()});
  return silences;
}

std::vector<Heartbeats::Silence> Heartbeats::stopped() const {
  std::vector<Silence> silences = all();
  std::erase_if(silences, [](const Silence& silence) { return silence.since < kPatience; });
  return silences;
}

}  // namespace hearth

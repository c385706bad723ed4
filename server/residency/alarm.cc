#include "server/residency/alarm.h"

namespace hearth {

Alarm::~Alarm() {
  MutexLock lock(mu_);
  closing_ = true;
  if (set_for_ != TimePoint::max() && timer_.Cancel(id_)) --pending_;
  while (pending_ > 0) quiet_.Wait(mu_);
}

void Alarm::SetBy(TimePoint when) {
  MutexLock lock(mu_);
  if (closing_ || when >= set_for_) return;
  if (set_for_ != TimePoint::max() && timer_.Cancel(id_)) --pending_;
  set_for_ = when;
  ++pending_;
  id_ = timer_.At(when, [this, setting = ++setting_] { Ring(setting); });
}

void Alarm::Ring(std::uint64_t setting) {
  {
    MutexLock lock(mu_);
    if (setting == setting_) set_for_ = TimePoint::max();  // else it has been set anew meanwhile
  }
  ring_();
  MutexLock lock(mu_);
  if (--pending_ == 0) quiet_.NotifyAll();
}

}  // namespace hearth

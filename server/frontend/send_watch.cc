#include "server/frontend/send_watch.h"

#include <chrono>
#include <vector>

#include "server/base/log.h"

namespace hearth {

void SendWatch::Begin(Answer& answer, std::size_t bytes) {
  if (patience_ == Duration::zero()) return;
  answer.until_ = clock_.Now() + patience_ + std::chrono::seconds(bytes >> 20);
  MutexLock lock(mu_);
  answers_.insert(&answer);
}

void SendWatch::End(Answer& answer) {
  if (patience_ == Duration::zero()) return;
  MutexLock lock(mu_);
  answers_.erase(&answer);
}

std::size_t SendWatch::Look() {
  std::vector<Answer*> stuck;
  {
    MutexLock lock(mu_);
    const TimePoint now = clock_.Now();
    for (Answer* answer : answers_) {
      if (answer->until_ > now) continue;
      answer->until_ = kNoDeadline;  // once
      stuck.push_back(answer);
    }
  }
  if (stuck.empty()) return 0;
  log::Info("answers are given up that their clients do not take; grpc.stall_timeout says after how long",
            {{"answers", stuck.size()}, {"client", stuck.front()->context_.peer()}});
  for (Answer* answer : stuck) answer->context_.TryCancel();
  return stuck.size();
}

}  // namespace hearth

#include "server/base/busy_wait.h"

#include <sched.h>

#include <chrono>

namespace hearth {
namespace {

constexpr Duration kUndisturbed = std::chrono::microseconds(5);  // what giving way takes when nobody wants the processor
constexpr double kTooMuchLost = 0.75;
constexpr int kAveragedOver = 16;
constexpr int kLeftOutWhenBusy = 1000;
constexpr int kLeftOutWhenQuiet = 32;

double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

bool BusyWait::IsDue() {
  if (longest_ == Duration::zero()) return false;
  if (left_out_ == 0) return true;
  --left_out_;
  return false;
}

BusyWait::Looked BusyWait::Look(const std::atomic<std::size_t>& queued, Duration longest) {
  Looked looked;
  const TimePoint begin = std::chrono::steady_clock::now();
  for (TimePoint before = begin; looked.took < longest;) {
    looked.found = queued.load(std::memory_order_relaxed) > 0;
    if (looked.found) break;
    sched_yield();
    const TimePoint now = std::chrono::steady_clock::now();
    if (now - before > kUndisturbed) looked.lost += now - before;
    looked.took = now - begin;
    before = now;
  }
  return looked;
}

void BusyWait::Learn(const Looked& looked) {
  if (looked.took > Duration::zero()) {
    lost_share_ += (Seconds(looked.lost) / Seconds(looked.took) - lost_share_) / kAveragedOver;
  }
  if (lost_share_ > kTooMuchLost) {
    lost_share_ = kUnknown;
    left_out_ = kLeftOutWhenBusy;
  } else if (!looked.found) {
    left_out_ = kLeftOutWhenQuiet;
  }
}

}  // namespace hearth

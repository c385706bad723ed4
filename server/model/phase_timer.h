// Adds what happens until its end of scope to one phase of a load.
#pragma once

#include <sys/resource.h>
#include <time.h>

#include <chrono>

#include "server/model/load_report.h"

namespace hearth {

// On one thread. A timer inside another one's scope names it, and its cost is not counted twice.
class PhaseTimer {
 public:
  PhaseTimer(LoadReport& report, LoadPhase phase, PhaseTimer* outer = nullptr)
      : report_(report), phase_(phase), cost_(report[phase]), outer_(outer), start_(Now()), resumed_(start_.time) {
    if (cost_.wall == Duration::zero()) cost_.start = start_.time - report.began;
  }
  ~PhaseTimer() {
    const Sample end = Now();
    AddParts(end.time);
    const PhaseCost own{.start = {},
                        .wall = end.time - start_.time,
                        .cpu = end.cpu - start_.cpu,
                        .bytes = 0,
                        .minor_faults = end.minor_faults - start_.minor_faults,
                        .major_faults = end.major_faults - start_.major_faults};
    if (outer_ != nullptr) Add(outer_->inner_, own);
    cost_.wall += own.wall - inner_.wall;
    cost_.cpu += own.cpu - inner_.cpu;
    cost_.minor_faults += own.minor_faults - inner_.minor_faults;
    cost_.major_faults += own.major_faults - inner_.major_faults;
  }
  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

  void AddBytes(std::uint64_t bytes) { cost_.bytes += bytes; }

 private:
  struct Sample {
    TimePoint time;
    Duration cpu{};
    std::uint64_t minor_faults = 0, major_faults = 0;
  };
  static Sample Now() {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    timespec cpu{};  // rusage may count CPU time in clock ticks only
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    return {std::chrono::steady_clock::now(),
            std::chrono::seconds(cpu.tv_sec) + std::chrono::nanoseconds(cpu.tv_nsec),
            static_cast<std::uint64_t>(usage.ru_minflt), static_cast<std::uint64_t>(usage.ru_majflt)};
  }
  static void Add(PhaseCost& sum, const PhaseCost& cost) {
    sum.wall += cost.wall;
    sum.cpu += cost.cpu;
    sum.minor_faults += cost.minor_faults;
    sum.major_faults += cost.major_faults;
  }

  // REQUIRES: before cost_ is added to.
  void AddParts(TimePoint end) {
    if (outer_ != nullptr) {
      // What is too short to be seen does not divide the phase around it, unless it is all there is.
      const bool first = cost_.wall == Duration::zero();
      if ((!first && end - start_.time < kShortestPart) || report_.parts.size() >= kMaxPhaseParts / 2) return;
      outer_->AddPart(start_.time);
      outer_->resumed_ = end;
    }
    AddPart(end);
  }
  void AddPart(TimePoint until) {
    if (until <= resumed_ || report_.parts.size() >= kMaxPhaseParts) return;
    report_.parts.push_back({phase_, resumed_ - report_.began, until - resumed_});
  }

  static constexpr Duration kShortestPart = std::chrono::microseconds(20);

  LoadReport& report_;
  const LoadPhase phase_;
  PhaseCost& cost_;
  PhaseTimer* const outer_;
  PhaseCost inner_;
  const Sample start_;
  TimePoint resumed_;  // when the part that is still going on began
};

}  // namespace hearth

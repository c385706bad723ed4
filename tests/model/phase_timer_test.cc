#include "server/model/phase_timer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace hearth {
namespace {

using std::chrono::microseconds;

void Spend(Duration time) {
  const TimePoint until = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < until) {
  }
}

LoadReport Begun() {
  LoadReport report;
  report.began = std::chrono::steady_clock::now();
  return report;
}

std::vector<LoadPhase> Phases(const LoadReport& report) {
  std::vector<LoadPhase> phases;
  for (const PhasePart& part : report.parts) phases.push_back(part.phase);
  return phases;
}

Duration Sum(const LoadReport& report, LoadPhase phase) {
  Duration sum{};
  for (const PhasePart& part : report.parts) sum += part.phase == phase ? part.wall : Duration{};
  return sum;
}

void ExpectDisjoint(const LoadReport& report) {
  std::vector<PhasePart> parts = report.parts;
  std::sort(parts.begin(), parts.end(), [](const PhasePart& a, const PhasePart& b) { return a.start < b.start; });
  for (std::size_t i = 1; i < parts.size(); ++i) EXPECT_LE(parts[i - 1].start + parts[i - 1].wall, parts[i].start) << i;
}

TEST(PhaseTimer, APhaseInsideAnotherDividesIt) {
  LoadReport report = Begun();
  {
    PhaseTimer bind(report, LoadPhase::kBind);
    Spend(microseconds(100));
    {
      const PhaseTimer parse(report, LoadPhase::kParse, &bind);
      Spend(microseconds(200));
    }
    Spend(microseconds(100));
  }
  EXPECT_EQ(Phases(report), (std::vector{LoadPhase::kBind, LoadPhase::kParse, LoadPhase::kBind}));
  ExpectDisjoint(report);
  for (const LoadPhase phase : {LoadPhase::kBind, LoadPhase::kParse}) EXPECT_EQ(Sum(report, phase), report[phase].wall);
  EXPECT_EQ(report.parts[0].start, report[LoadPhase::kBind].start);
  EXPECT_EQ(report.parts[1].start, report[LoadPhase::kParse].start);
}

TEST(PhaseTimer, PhasesThatComeAgainHaveAPartForEachTime) {
  LoadReport report = Begun();
  for (int i = 0; i < 2; ++i) {
    const PhaseTimer map(report, LoadPhase::kMap);
    Spend(microseconds(10));
  }
  EXPECT_EQ(Phases(report), (std::vector{LoadPhase::kMap, LoadPhase::kMap}));
  ExpectDisjoint(report);
}

TEST(PhaseTimer, PartsAreFewHoweverOftenAPhaseIsDivided) {
  LoadReport report = Begun();
  {
    PhaseTimer bind(report, LoadPhase::kBind);
    for (int i = 0; i < 200; ++i) {
      const PhaseTimer parse(report, LoadPhase::kParse, &bind);
      Spend(microseconds(25));
    }
  }
  {
    const PhaseTimer analyse(report, LoadPhase::kAnalyse);
    Spend(microseconds(10));
  }
  EXPECT_LE(report.parts.size(), kMaxPhaseParts);
  EXPECT_EQ(report.parts.back().phase, LoadPhase::kAnalyse);  // there is room for what comes afterwards
  ExpectDisjoint(report);
}

}  // namespace
}  // namespace hearth

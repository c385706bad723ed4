// hearth plan: what more memory would spare.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "client/commands/command.h"
#include "client/strings.h"
#include "client/units.h"

namespace hearth::client {
namespace {

constexpr double kMostOfIt = 0.8;  // of what can be spared: what the sentence recommends
constexpr double kRowStep = 0.1;   // of it between two rows of the table
constexpr double kCounts = 0.05;   // fewer loads than this have faded away

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

std::string Percent(double part, double whole) {
  return Cat(std::lround(whole > 0 ? 100 * part / whole : 0), " %");
}

// The least memory that spares most of what can be spared.
const PlanPointStat& Advice(const MemoryPlanStat& plan) {
  return *std::find_if(plan.points.begin(), plan.points.end(), [&](const PlanPointStat& point) {
    return point.loads >= kMostOfIt * plan.returns || &point == &plan.points.back();
  });
}

bool WasShort(const MemoryPlanStat& plan) { return !plan.points.empty() && plan.returns >= kCounts; }

std::string Describe(const MemoryPlanStat& plan, const Context& context) {
  const std::string name =
      Cat(Paint(Cat(plan.device.empty() ? plan.dimension : plan.device, " memory"), Tone::kHeading, context.colors), ", ", FormatBytes(plan.capacity), ": ");
  if (!WasShort(plan)) return Cat(name, "not short of late; more would spare nothing\n");
  const PlanPointStat& advice = Advice(plan);
  std::string text = Cat(name, "with ", FormatBytes(advice.more), " more, requests would have waited for ",
                         Percent(advice.loads, plan.loads), " fewer loads and ",
                         Percent(advice.load_seconds, plan.load_seconds), " less time\n");
  Table table({">MORE", ">IN ALL", ">LOADS SPARED", ">", ">TIME SPARED", ">"});
  double shown = 0;
  for (const PlanPointStat& point : plan.points) {
    if (point.loads < shown + kRowStep * plan.returns && &point != &plan.points.back()) continue;
    shown = point.loads;
    table.Add({FormatBytes(point.more), FormatBytes(plan.capacity + point.more), Number(point.loads),
               Percent(point.loads, plan.loads), FormatSeconds(point.load_seconds),
               Percent(point.load_seconds, plan.load_seconds)});
  }
  return text + table.Format(context.colors);
}

nlohmann::ordered_json ToJson(const PlanStat& plan) {
  nlohmann::ordered_json memories = nlohmann::ordered_json::array();
  for (const MemoryPlanStat& memory : plan.memories) {
    nlohmann::ordered_json points = nlohmann::ordered_json::array();
    for (const PlanPointStat& point : memory.points) {
      points.push_back({{"more_bytes", point.more}, {"loads", point.loads}, {"load_seconds", point.load_seconds}});
    }
    memories.push_back({{"dimension", memory.dimension},
                        {"device", memory.device.empty() ? nlohmann::ordered_json(nullptr)
                                                         : nlohmann::ordered_json(memory.device)},
                        {"capacity_bytes", memory.capacity},
                        {"loads", memory.loads},
                        {"load_seconds", memory.load_seconds},
                        {"returns", memory.returns},
                        {"points", std::move(points)}});
  }
  return {{"half_life_seconds", plan.half_life_seconds}, {"memory", std::move(memories)}};
}

int Plan(const Context& context) {
  const absl::StatusOr<PlanStat> plan = context.client.Plan();
  if (!plan.ok()) return Fail(plan.status());
  if (context.json) return context.PrintJson(ToJson(*plan));
  std::string text;
  for (const MemoryPlanStat& memory : plan->memories) {
    if (memory.capacity == 0) continue;  // there is no such memory
    if (text.empty()) {
      text = Cat("Requests waited for ", Number(memory.loads), " loads of late, ", FormatSeconds(memory.load_seconds),
                 " in all; a load counts half after ", FormatSeconds(plan->half_life_seconds),
                 ".\nThe first load of a model is spared by no memory.\n");
    }
    text += Cat("\n", Describe(memory, context));
  }
  return context.Print(text.empty() ? "there is no memory to plan\n" : text);
}

}  // namespace

void AddPlanCommand(CLI::App& app, Selection& selection) {
  CLI::App* plan = app.add_subcommand("plan", "How many loads more memory would spare, from what was evicted and came back");
  plan->callback([&selection] { selection.run = Plan; });
}

}  // namespace hearth::client

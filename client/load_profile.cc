#include "client/load_profile.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "client/strings.h"
#include "client/table.h"
#include "client/units.h"

namespace hearth::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kBarCells = 40;

std::string Milliseconds(double ms) { return FormatSeconds(ms / 1000); }

std::string Percent(double part, double whole) {
  return whole > 0 ? Cat(std::lround(100 * part / whole), " %") : "0 %";
}

// "  ██  ████": when in the whole load the phase was at work.
std::string Bar(const PhaseStat& phase, double total) {
  if (total <= 0) return "";
  const auto cell = [&](double ms) {
    return std::clamp(static_cast<int>(std::lround(ms / total * kBarCells)), 0, kBarCells);
  };
  std::array<bool, kBarCells> filled{};
  int last = 0;
  for (const PhasePartStat& part : PartsOf(phase)) {
    const int begin = std::min(cell(part.start_milliseconds), kBarCells - 1);
    const int end = std::max(cell(part.start_milliseconds + part.milliseconds), begin + 1);
    std::fill(filled.begin() + begin, filled.begin() + end, true);
    last = std::max(last, end);
  }
  std::string bar;
  for (int i = 0; i < last; ++i) bar += filled[static_cast<std::size_t>(i)] ? "█" : " ";
  return bar;
}

// Without its parts.
Json CostJson(const PhaseStat& phase) {
  return {{"name", phase.name},
          {"start_ms", phase.start_milliseconds},
          {"ms", phase.milliseconds},
          {"cpu_ms", phase.cpu_milliseconds},
          {"bytes", phase.bytes},
          {"minor_faults", phase.minor_faults},
          {"major_faults", phase.major_faults}};
}

Json PhaseJson(const PhaseStat& phase) {
  Json json = CostJson(phase);
  json["parts"] = Json::array();
  for (const PhasePartStat& part : phase.parts) {
    json["parts"].push_back({{"start_ms", part.start_milliseconds}, {"ms", part.milliseconds}});
  }
  return json;
}

// Absent from what an older hearthd prints.
std::vector<PhasePartStat> ParseParts(const Json& phase) {
  std::vector<PhasePartStat> parts;
  if (!phase.contains("parts")) return parts;
  for (const Json& part : phase.at("parts")) parts.push_back({part.at("start_ms"), part.at("ms")});
  return parts;
}

}  // namespace

double LoadProfile::total_milliseconds() const {
  double end = 0;
  for (const PhaseStat& phase : phases) {
    for (const PhasePartStat& part : PartsOf(phase)) end = std::max(end, part.start_milliseconds + part.milliseconds);
  }
  return end;
}

std::vector<PhasePartStat> PartsOf(const PhaseStat& phase) {
  if (!phase.parts.empty()) return phase.parts;
  return {{phase.start_milliseconds, phase.milliseconds}};
}

std::string WeightsLine(const LoadStat& load) {
  std::string line = Cat(FormatBytes(load.weight_bytes), " of weights, ", FormatBytes(load.copied_bytes), " copied");
  if (load.mapped_bytes > 0) {
    line += Cat("; ", Percent(static_cast<double>(load.cached_bytes), static_cast<double>(load.mapped_bytes)),
                " of what is mapped was in the page cache");
  }
  if (load.shared_bytes > 0) line += Cat("; ", FormatBytes(load.shared_bytes), " shared with other models");
  if (load.from == "mapped") line += "; its files were open from an earlier load";
  if (load.from == "host") line += "; its files were open and in memory from an earlier load";
  if (load.kept_program) line += "; the program was kept from an earlier load";
  return line;
}

absl::StatusOr<LoadProfile> ParseLoadProfile(std::string_view text) {
  const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  try {
    LoadProfile profile;
    profile.model = Cat(json.at("model").get<std::string>(), ":", json.at("version").get<std::int64_t>());
    profile.load = {.weight_bytes = json.at("weight_bytes"),
                    .copied_bytes = json.at("copied_bytes"),
                    .mapped_bytes = json.at("mapped_bytes"),
                    .cached_bytes = json.at("cached_bytes"),
                    .kept_program = json.at("kept_program"),
                    .shared_bytes = json.at("shared_bytes")};
    for (const Json& phase : json.at("phases")) {
      profile.phases.push_back({.name = phase.at("name"),
                                .milliseconds = phase.at("ms"),
                                .start_milliseconds = phase.at("start_ms"),
                                .cpu_milliseconds = phase.at("cpu_ms"),
                                .bytes = phase.at("bytes"),
                                .minor_faults = phase.at("minor_faults"),
                                .major_faults = phase.at("major_faults"),
                                .parts = ParseParts(phase)});
    }
    return profile;
  } catch (const Json::exception&) {
    return absl::InvalidArgumentError("hearthd printed no profile; is it of another version?");
  }
}

std::string RenderWaterfall(const LoadProfile& profile, bool colors) {
  const double total = profile.total_milliseconds();
  Table table({"PHASE", ">START", ">TIME", ">CPU", ">BYTES", ">FAULTS", ">FROM DISK", ""});
  for (const PhaseStat& phase : profile.phases) {
    table.Add({phase.name, Milliseconds(phase.start_milliseconds), Milliseconds(phase.milliseconds),
               Milliseconds(phase.cpu_milliseconds), phase.bytes > 0 ? FormatBytes(phase.bytes) : "-",
               Cat(phase.minor_faults), Cat(phase.major_faults), Bar(phase, total)});
  }
  return Cat(profile.model, ": ", Milliseconds(total), "; ", WeightsLine(profile.load), "\n",
             table.Format(colors), Bottleneck(profile), "\n");
}

Json ToJson(const LoadProfile& profile) {
  Json phases = Json::array();
  for (const PhaseStat& phase : profile.phases) phases.push_back(PhaseJson(phase));
  Json json = {{"model", profile.model},
               {"total_ms", profile.total_milliseconds()},
               {"weight_bytes", profile.load.weight_bytes},
               {"copied_bytes", profile.load.copied_bytes},
               {"mapped_bytes", profile.load.mapped_bytes},
               {"cached_bytes", profile.load.cached_bytes},
               {"shared_bytes", profile.load.shared_bytes},
               {"kept_program", profile.load.kept_program},
               {"bottleneck", Bottleneck(profile)},
               {"phases", std::move(phases)}};
  if (!profile.load.from.empty()) json["from"] = profile.load.from;  // of a model that is served
  return json;
}

std::string ToTrace(const LoadProfile& profile) {
  Json events = Json::array();
  const auto name = [&](const char* kind, const std::string& value) {
    events.push_back({{"name", kind}, {"ph", "M"}, {"pid", 1}, {"tid", 1}, {"args", {{"name", value}}}});
  };
  name("process_name", "hearthd");
  name("thread_name", Cat("load of ", profile.model));
  // Whole microseconds: readers round fractions each in their own way, and slices that touch would overlap.
  const auto microseconds = [](double ms) { return std::llround(ms * 1000); };
  for (const PhaseStat& phase : profile.phases) {
    for (const PhasePartStat& part : PartsOf(phase)) {
      const auto begin = microseconds(part.start_milliseconds);
      events.push_back({{"name", phase.name},
                        {"cat", "load"},
                        {"ph", "X"},
                        {"ts", begin},
                        {"dur", microseconds(part.start_milliseconds + part.milliseconds) - begin},
                        {"pid", 1},
                        {"tid", 1},
                        {"args", CostJson(phase)}});
    }
  }
  return Json{{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}}.dump(1) + "\n";
}

}  // namespace hearth::client

#include "client/load_profile.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "client/strings.h"
#include "client/table.h"
#include "client/units.h"

namespace hearth::client {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kBarCells = 40;

struct Advice {
  std::string_view phase, what, help;
};
constexpr Advice kAdvice[] = {
    {"map", "opening and checking the file", "many small tensors or a slow file system do that"},
    {"parse", "compiling the program",
     "a program that is kept (cache.kept_programs) skips it when the model comes back"},
    {"bind", "making tensors of the weights", "there are very many of them"},
    {"read", "copying weights that cannot be mapped",
     "write them uncompressed and aligned to 64 bytes, as `hearth pack` does"},
    {"to_device", "copying the weights to the device", "that is the speed of the bus"},
    {"populate", "bringing the weights into memory", ""},
    {"analyse", "finding out what the program writes to", "a program that is kept skips it"},
    {"warm_up", "running the samples", "fewer runs in model.yaml's warm_up would shorten it"},
};

std::string Milliseconds(double ms) { return FormatSeconds(ms / 1000); }

std::string Percent(double part, double whole) {
  return whole > 0 ? Cat(std::lround(100 * part / whole), " %") : "0 %";
}

bool IsCold(const LoadStat& load) { return load.cached_bytes < load.mapped_bytes * 9 / 10; }

// "  ████      ": where in the whole load the phase was.
std::string Bar(const PhaseStat& phase, double total) {
  if (total <= 0) return "";
  const auto cell = [&](double ms) {
    return std::clamp(static_cast<int>(std::lround(ms / total * kBarCells)), 0, kBarCells);
  };
  const int begin = std::min(cell(phase.start_milliseconds), kBarCells - 1);
  const int end = std::max(cell(phase.start_milliseconds + phase.milliseconds), begin + 1);
  std::string bar(static_cast<std::size_t>(begin), ' ');
  for (int i = begin; i < end; ++i) bar += "█";
  return bar;
}

Json PhaseJson(const PhaseStat& phase) {
  return {{"name", phase.name},
          {"start_ms", phase.start_milliseconds},
          {"ms", phase.milliseconds},
          {"cpu_ms", phase.cpu_milliseconds},
          {"bytes", phase.bytes},
          {"minor_faults", phase.minor_faults},
          {"major_faults", phase.major_faults}};
}

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string WeightsLine(const LoadStat& load) {
  std::string line = Cat(FormatBytes(load.weight_bytes), " of weights, ", FormatBytes(load.copied_bytes), " copied");
  if (load.mapped_bytes > 0) {
    line += Cat("; ", Percent(static_cast<double>(load.cached_bytes), static_cast<double>(load.mapped_bytes)),
                " of what is mapped was in the page cache");
  }
  if (load.shared_bytes > 0) line += Cat("; ", FormatBytes(load.shared_bytes), " shared with other models");
  if (load.kept_program) line += "; the program was kept from an earlier load";
  return line;
}

}  // namespace

double LoadProfile::total_milliseconds() const {
  double end = 0;
  for (const PhaseStat& phase : phases) end = std::max(end, phase.start_milliseconds + phase.milliseconds);
  return end;
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
                                .major_faults = phase.at("major_faults")});
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

std::string Bottleneck(const LoadProfile& profile) {
  const auto longest = std::max_element(
      profile.phases.begin(), profile.phases.end(),
      [](const PhaseStat& a, const PhaseStat& b) { return a.milliseconds < b.milliseconds; });
  if (longest == profile.phases.end()) return "Nothing was measured.";
  double sum = 0;
  for (const PhaseStat& phase : profile.phases) sum += phase.milliseconds;
  std::string what = longest->name, help;
  for (const Advice& advice : kAdvice) {
    if (advice.phase != longest->name) continue;
    what = advice.what;
    help = advice.help;
  }
  if (longest->name == "populate") {
    help = IsCold(profile.load) ? "they came from the disk; a preload does that before anybody waits"
                                : "they were in the page cache, so that is the cost of mapping the pages";
  }
  return Cat("Most of the time, ", Percent(longest->milliseconds, sum), ", went into ", what,
             help.empty() ? "." : Cat(": ", help, "."));
}

Json ToJson(const LoadProfile& profile) {
  Json phases = Json::array();
  for (const PhaseStat& phase : profile.phases) phases.push_back(PhaseJson(phase));
  return {{"model", profile.model},
          {"total_ms", profile.total_milliseconds()},
          {"weight_bytes", profile.load.weight_bytes},
          {"copied_bytes", profile.load.copied_bytes},
          {"mapped_bytes", profile.load.mapped_bytes},
          {"cached_bytes", profile.load.cached_bytes},
          {"shared_bytes", profile.load.shared_bytes},
          {"kept_program", profile.load.kept_program},
          {"bottleneck", Bottleneck(profile)},
          {"phases", std::move(phases)}};
}

std::string ToTrace(const LoadProfile& profile) {
  Json events = Json::array();
  const auto name = [&](const char* kind, const std::string& value) {
    events.push_back({{"name", kind}, {"ph", "M"}, {"pid", 1}, {"tid", 1}, {"args", {{"name", value}}}});
  };
  name("process_name", "hearthd");
  name("thread_name", Cat("load of ", profile.model));
  for (const PhaseStat& phase : profile.phases) {
    events.push_back({{"name", phase.name},
                      {"cat", "load"},
                      {"ph", "X"},
                      {"ts", phase.start_milliseconds * 1000},
                      {"dur", phase.milliseconds * 1000},
                      {"pid", 1},
                      {"tid", 1},
                      {"args", PhaseJson(phase)}});
  }
  return Json{{"traceEvents", std::move(events)}, {"displayTimeUnit", "ms"}}.dump(1) + "\n";
}

std::string ToHtml(const LoadProfile& profile) {
  const double total = std::max(profile.total_milliseconds(), 1e-6);
  std::string rows;
  for (const PhaseStat& phase : profile.phases) {
    char place[96];
    std::snprintf(place, sizeof place, "margin-left:%.3f%%;width:%.3f%%", 100 * phase.start_milliseconds / total,
                  std::max(100 * phase.milliseconds / total, 0.15));
    rows += Cat("<tr><th>", Escaped(phase.name), "</th><td>", Milliseconds(phase.milliseconds), "</td><td>",
                Milliseconds(phase.cpu_milliseconds), "</td><td>",
                phase.bytes > 0 ? FormatBytes(phase.bytes) : "", "</td><td>", phase.minor_faults, " / ",
                phase.major_faults, "</td><td class=bar><div class=", Escaped(phase.name), " style=\"", place,
                "\"></div></td></tr>\n");
  }
  return Cat(R"(<!doctype html><html lang="en"><meta charset="utf-8"><title>)", Escaped(profile.model),
             R"(: load</title><style>
body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;width:100%}th,td{padding:.3em .6em;text-align:right;white-space:nowrap}
th:first-child{text-align:left}.bar{width:60%;text-align:left}.bar div{height:1.1em;border-radius:2px;background:#888}
.map{background:#4e79a7!important}.parse{background:#f28e2b!important}.bind{background:#59a14f!important}
.read{background:#e15759!important}.to_device{background:#b07aa1!important}.populate{background:#76b7b2!important}
.analyse{background:#9c755f!important}.warm_up{background:#edc948!important}tr+tr{border-top:1px solid #eee}
</style><h1>)",
             Escaped(profile.model), ": ", Milliseconds(profile.total_milliseconds()), "</h1><p>",
             Escaped(WeightsLine(profile.load)), "</p>\n<table><tr><th>phase</th><th>time</th><th>CPU</th>"
             "<th>bytes</th><th>faults / from disk</th><th></th></tr>\n",
             rows, "</table><p><b>", Escaped(Bottleneck(profile)), "</b></p></html>\n");
}

}  // namespace hearth::client

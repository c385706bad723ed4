// Where the time of a load went: as text, as one sentence, as a trace and as a page.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "client/client.h"
#include "nlohmann/json.hpp"

namespace hearth::client {

struct LoadProfile {
  std::string model;  // "vad:1"
  LoadStat load;
  std::vector<PhaseStat> phases;

  double total_milliseconds() const;
};

// When the phase was at work; where the server does not say, as if it had done all of it at its start.
std::vector<PhasePartStat> PartsOf(const PhaseStat& phase);

// "2.1 MiB of weights, 0 copied; ...".
std::string WeightsLine(const LoadStat& load);

// From what `hearthd profile` prints. INVALID_ARGUMENT when it is something else.
absl::StatusOr<LoadProfile> ParseLoadProfile(std::string_view json);

// One line per phase with a bar each, placed in time.
std::string RenderWaterfall(const LoadProfile& profile, bool colors);

// What took longest, what is known of why, and what would help: one sentence. "Most of the time" is more than half.
std::string Bottleneck(const LoadProfile& profile);

nlohmann::ordered_json ToJson(const LoadProfile& profile);

// The Trace Event Format, which Perfetto (ui.perfetto.dev) and chrome://tracing open. No slice overlaps another.
std::string ToTrace(const LoadProfile& profile);

// One HTML file that needs nothing else, for screens of any width.
std::string ToHtml(const LoadProfile& profile);

}  // namespace hearth::client

// The one sentence about a load: what took longest, what is known of why, and what would help.
#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "client/load_profile.h"
#include "client/strings.h"
#include "client/units.h"

namespace hearth::client {
namespace {

std::string Percent(double part, double whole) { return Cat(std::lround(100 * part / whole), " %"); }

bool IsCold(const LoadStat& load) { return load.cached_bytes < load.mapped_bytes * 9 / 10; }

// The thread that loads was not computing. Others may have been: helpers are not in its time.
bool Waited(const PhaseStat& phase) { return phase.cpu_milliseconds < phase.milliseconds / 2; }
bool WaitedForTheDisk(const PhaseStat& phase) { return Waited(phase) && phase.major_faults > 0; }

std::string Waiting(const PhaseStat& phase) { return WaitedForTheDisk(phase) ? "it mostly waited for the disk" : ""; }

// "2.0 GiB at 1.1 GiB/s", or nothing where the phase counts no bytes.
std::string Speed(std::uint64_t bytes, double milliseconds) {
  if (bytes == 0 || milliseconds <= 0) return "";
  const double per_second = static_cast<double>(bytes) / (milliseconds / 1000);
  return Cat(FormatBytes(bytes), " at ", FormatBytes(static_cast<std::uint64_t>(per_second)), "/s");
}

std::string Speed(const PhaseStat& phase) { return Speed(phase.bytes, phase.milliseconds); }

// Pages come from when they are mapped, while other phases are at work: `populate` is what is left of it.
std::string PopulateSpeed(const PhaseStat& populate, const std::vector<PhaseStat>& phases) {
  double since = populate.start_milliseconds;
  for (const PhaseStat& phase : phases) {
    if (phase.name == "map") since = std::min(since, phase.start_milliseconds + phase.milliseconds);
  }
  return Speed(populate.bytes, populate.start_milliseconds + populate.milliseconds - since);
}

struct Words {
  std::string what;                 // "bringing the weights into memory"
  std::vector<std::string> facts{};  // what the report says of it, and what helps; empty ones are left out
};

Words OpenWords(const PhaseStat& phase) {
  std::string why = Waiting(phase);
  if (why.empty() && Waited(phase)) {
    why = "its thread mostly waited, for the file system or for those that read shards and HDF5 for it";
  }
  return {"opening the files and checking their structure", {why}};
}

Words ReadWords(const PhaseStat& phase, const LoadStat& load) {
  if (load.copied_bytes == 0) {  // they could be mapped
    return {"copying the weights", {Speed(phase), Waiting(phase), "`residency: sealed` asks for that"}};
  }
  return {"copying weights that cannot be mapped",
          {Speed(phase), Waiting(phase), "uncompressed and aligned to 64 bytes, as `hearth pack` writes them, they can be"}};
}

Words PopulateWords(const PhaseStat& phase, const LoadProfile& profile) {
  return {"bringing the weights into memory",
          {PopulateSpeed(phase, profile.phases), IsCold(profile.load) ? "they came from the disk; a preload does that before anybody waits"
                                      : "they were in the page cache, so that is the cost of mapping the pages"}};
}

Words WordsOf(const PhaseStat& phase, const LoadProfile& profile) {
  const std::string_view name = phase.name;
  const LoadStat& load = profile.load;
  if (name == "open") return OpenWords(phase);
  if (name == "map") return {"mapping the files and finding what others have mapped of them", {Waiting(phase)}};
  if (name == "verify") {
    return {"comparing the weights with their checksums",
            {Speed(phase), Waiting(phase),
             "`integrity: on-load` asks for that; `integrity: background` does it while the model serves"}};
  }
  if (name == "parse") {
    return {"making the program ready to run",
            {Waiting(phase), load.kept_program ? "although it was kept from an earlier load"
                                               : "a program that is kept (cache.kept_programs) skips it when the "
                                                 "model comes back"}};
  }
  if (name == "bind") return {"making tensors of the weights", {Waiting(phase)}};
  if (name == "read") return ReadWords(phase, load);
  if (name == "to_device") {
    return {"copying the weights to the device",
            {Speed(phase), IsCold(load) ? "they came from the disk" : ""}};
  }
  if (name == "populate") return PopulateWords(phase, profile);
  if (name == "analyse") return {"finding out what the program writes to", {Waiting(phase)}};
  if (name == "warm_up") {
    return {"running the samples", {Waiting(phase), "fewer runs in model.yaml's warm_up would shorten it"}};
  }
  return {phase.name, {Speed(phase), Waiting(phase)}};  // of a newer server
}

}  // namespace

std::string Bottleneck(const LoadProfile& profile) {
  const auto longest = std::max_element(
      profile.phases.begin(), profile.phases.end(),
      [](const PhaseStat& a, const PhaseStat& b) { return a.milliseconds < b.milliseconds; });
  if (longest == profile.phases.end()) return "Nothing was measured.";
  double sum = 0;
  for (const PhaseStat& phase : profile.phases) sum += phase.milliseconds;
  if (sum <= 0) return "Nothing was measured.";
  const Words words = WordsOf(*longest, profile);
  std::string sentence = Cat(longest->milliseconds > sum / 2 ? "Most of the time, " : "The largest part, ",
                             Percent(longest->milliseconds, sum), ", went into ", words.what);
  std::string_view separator = ": ";
  for (const std::string& fact : words.facts) {
    if (fact.empty()) continue;
    sentence += Cat(separator, fact);
    separator = "; ";
  }
  return sentence + ".";
}

}  // namespace hearth::client

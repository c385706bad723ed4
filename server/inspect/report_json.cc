#include "server/inspect/report_json.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace hearth {

std::string ReportJson(const ModelId& id, const LoadReport& report) {
  nlohmann::ordered_json phases = nlohmann::ordered_json::array();
  for (std::size_t i = 0; i < kLoadPhaseCount; ++i) {
    const PhaseCost& cost = report.phases[i];
    if (cost.wall == Duration::zero()) continue;
    nlohmann::ordered_json parts = nlohmann::ordered_json::array();
    for (const PhasePart& part : report.parts) {
      if (part.phase != static_cast<LoadPhase>(i)) continue;
      parts.push_back({{"start_ms", ToMilliseconds(part.start)}, {"ms", ToMilliseconds(part.wall)}});
    }
    phases.push_back({{"name", ToString(static_cast<LoadPhase>(i))},
                      {"start_ms", ToMilliseconds(cost.start)},
                      {"ms", ToMilliseconds(cost.wall)},
                      {"cpu_ms", ToMilliseconds(cost.cpu)},
                      {"bytes", cost.bytes},
                      {"minor_faults", cost.minor_faults},
                      {"major_faults", cost.major_faults},
                      {"parts", std::move(parts)}});
  }
  const nlohmann::ordered_json json = {{"model", id.name},
                                       {"version", id.version},
                                       {"weight_bytes", report.weight_bytes},
                                       {"copied_bytes", report.copied_bytes},
                                       {"mapped_bytes", report.mapped_bytes},
                                       {"cached_bytes", report.cached_bytes},
                                       {"shared_bytes", report.shared_bytes},
                                       {"kept_program", report.kept_program},
                                       {"phases", std::move(phases)}};
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace hearth

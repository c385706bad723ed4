// A load's report as JSON, the form in which `hearth profile` reads it.
#pragma once

#include <string>

#include "server/model/load_report.h"
#include "server/model/signature.h"

namespace hearth {

//   {"model", "version", "weight_bytes", "copied_bytes", "mapped_bytes", "cached_bytes", "kept_program",
//    "phases": [{"name", "start_ms", "ms", "cpu_ms", "bytes", "minor_faults", "major_faults",
//                "parts": [{"start_ms", "ms"}]}]}
std::string ReportJson(const ModelId& id, const LoadReport& report);

}  // namespace hearth

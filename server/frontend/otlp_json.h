// Spans in OTLP's JSON (opentelemetry-proto, ExportTraceServiceRequest), as OTLP/HTTP takes them.
#pragma once

#include <span>
#include <string>

#include "server/serving/request_span.h"

namespace hearth {

// What all spans of this process have in common.
struct OtlpResource {
  std::string service_name;
  std::string service_version;
  std::string instance;  // service.instance.id
};

// One span for each request, and under it one for each of its parts.
std::string ToOtlpJson(std::span<const RequestSpan> requests, const OtlpResource& resource);

}  // namespace hearth

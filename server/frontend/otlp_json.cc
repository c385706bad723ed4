#include "server/frontend/otlp_json.h"

#include <string_view>

#include "server/base/strings.h"
#include "server/frontend/json_writer.h"

namespace hearth {
namespace {

constexpr int kInternal = 1;  // SpanKind
constexpr int kServer = 2;
constexpr int kError = 2;  // Status.StatusCode

std::string Nanoseconds(WallTime at) {
  return StrCat(std::chrono::duration_cast<std::chrono::nanoseconds>(at.time_since_epoch()).count());
}

class Attributes {
 public:
  explicit Attributes(std::string& out) : out_(out) { out_ += "\"attributes\":["; }
  ~Attributes() { out_ += ']'; }

  void Text(std::string_view key, std::string_view value) {
    Key(key);
    out_ += "{\"stringValue\":";
    AppendJsonString(value, out_);
    out_ += "}}";
  }
  // As a string: JSON's numbers do not hold 64 bits.
  void Int(std::string_view key, std::int64_t value) {
    Key(key);
    out_ += StrCat("{\"intValue\":\"", value, "\"}}");
  }

 private:
  void Key(std::string_view key) {
    out_ += first_ ? "{\"key\":" : ",{\"key\":";
    first_ = false;
    AppendJsonString(key, out_);
    out_ += ",\"value\":";
  }
  std::string& out_;
  bool first_ = true;
};

// The beginning of a span, up to its times.
void Begin(const RequestSpan& request, const std::array<std::uint8_t, 8>& id, const std::array<std::uint8_t, 8>* parent,
           std::string_view name, int kind, WallTime begin, WallTime end, std::string& out) {
  out += StrCat("{\"traceId\":\"", ToHex(request.trace.span.trace), "\",\"spanId\":\"", ToHex(id), "\"");
  if (parent != nullptr) out += StrCat(",\"parentSpanId\":\"", ToHex(*parent), "\"");
  out += ",\"name\":";
  AppendJsonString(name, out);
  out += StrCat(",\"kind\":", kind, ",\"startTimeUnixNano\":\"", Nanoseconds(begin), "\",\"endTimeUnixNano\":\"",
                Nanoseconds(end), "\",");
}

WallTime At(const RequestSpan& request, Duration offset) {
  return request.begin + std::chrono::duration_cast<WallTime::duration>(offset);
}

void AppendPart(const RequestSpan& request, const std::optional<RequestSpan::Part>& part, std::string_view name,
                std::string& out) {
  if (!part) return;
  out += ',';
  Begin(request, NewSpanId(), &request.trace.span.span, name, kInternal, At(request, part->begin),
        At(request, part->begin + part->took), out);
  {
    Attributes attributes(out);
    attributes.Text("hearth.model", request.model);
    if (name == "compute") attributes.Int("hearth.batch_rows", request.run_rows);
  }
  out += '}';
}

void AppendRequest(const RequestSpan& request, std::string& out) {
  Begin(request, request.trace.span.span, request.trace.parent ? &*request.trace.parent : nullptr, StrCat("infer ", request.model), kServer,
        request.begin, At(request, request.total), out);
  {
    Attributes attributes(out);
    attributes.Text("hearth.model", request.model);
    if (request.version) attributes.Int("hearth.version", *request.version);
    if (!request.request_id.empty()) attributes.Text("hearth.request_id", request.request_id);
    if (request.cache) attributes.Text("hearth.cache", ToString(*request.cache));
    if (request.kept) attributes.Text("hearth.response_cache", "hit");
    attributes.Int("rpc.grpc.status_code", static_cast<std::int64_t>(request.code));
  }
  if (request.code != absl::StatusCode::kOk) {
    out += StrCat(",\"status\":{\"code\":", kError, ",\"message\":");
    AppendJsonString(request.message, out);
    out += '}';
  }
  out += '}';
  AppendPart(request, request.load, "load", out);
  AppendPart(request, request.queue, "queue", out);
  AppendPart(request, request.compute, "compute", out);
}

}  // namespace

std::string ToOtlpJson(std::span<const RequestSpan> requests, const OtlpResource& resource) {
  std::string out = "{\"resourceSpans\":[{\"resource\":{";
  {
    Attributes attributes(out);
    attributes.Text("service.name", resource.service_name);
    attributes.Text("service.version", resource.service_version);
    attributes.Text("service.instance.id", resource.instance);
  }
  out += "},\"scopeSpans\":[{\"scope\":{\"name\":\"hearth\"},\"spans\":[";
  bool first = true;
  for (const RequestSpan& request : requests) {
    if (!std::exchange(first, false)) out += ',';
    AppendRequest(request, out);
  }
  out += "]}]}]}";
  return out;
}

}  // namespace hearth

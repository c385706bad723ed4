// Which trace a request belongs to, as W3C's Trace Context has it (https://www.w3.org/TR/trace-context/).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hearth {

struct TraceContext {
  std::array<std::uint8_t, 16> trace{};  // never all zeros
  std::array<std::uint8_t, 8> span{};    // likewise; the caller's, or ours once ChildOf() made it
  bool sampled = false;
};

// The value of a `traceparent` header: "00-<32 hex>-<16 hex>-<2 hex>". A later version is read as far as this one goes, as
// the standard asks. Nothing: it is not one, and a new trace is to be begun.
std::optional<TraceContext> ParseTraceParent(std::string_view header);
std::string ToTraceParent(const TraceContext& context);

// One request's own span, and its caller's.
struct RequestTrace {
  TraceContext span;
  std::optional<std::array<std::uint8_t, 8>> parent;  // none: it began the trace
};

// Of random numbers. Thread-safe.
TraceContext NewTrace(bool sampled);
TraceContext ChildOf(const TraceContext& parent);  // the same trace, a span of its own
std::array<std::uint8_t, 8> NewSpanId();
// Of a request that came with such a header; nothing: it is none.
std::optional<RequestTrace> TraceOf(std::string_view traceparent);

// In lower case.
std::string ToHex(const std::array<std::uint8_t, 16>& id);
std::string ToHex(const std::array<std::uint8_t, 8>& id);

}  // namespace hearth

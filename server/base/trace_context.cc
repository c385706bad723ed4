#include "server/base/trace_context.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <span>

namespace hearth {
namespace {

constexpr std::string_view kDigits = "0123456789abcdef";
constexpr std::size_t kLength = 55;

// Lower case only, as the standard says.
bool ReadHex(std::string_view text, std::span<std::uint8_t> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t high = kDigits.find(text[2 * i]);
    const std::size_t low = kDigits.find(text[2 * i + 1]);
    if (high == kDigits.npos || low == kDigits.npos) return false;
    out[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return true;
}

bool AllZero(std::span<const std::uint8_t> bytes) {
  return std::ranges::all_of(bytes, [](std::uint8_t byte) { return byte == 0; });
}

std::string Hex(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

void Fill(std::span<std::uint8_t> bytes) {
  static thread_local std::mt19937_64 random{[] {
    std::random_device device;
    return (std::uint64_t{device()} << 32) | device();
  }()};
  do {
    for (std::size_t i = 0; i < bytes.size(); i += sizeof(std::uint64_t)) {
      const std::uint64_t number = random();
      std::memcpy(bytes.data() + i, &number, sizeof(number));
    }
  } while (AllZero(bytes));
}

}  // namespace

std::optional<TraceContext> ParseTraceParent(std::string_view header) {
  if (header.size() < kLength || header[2] != '-' || header[35] != '-' || header[52] != '-') return std::nullopt;
  std::array<std::uint8_t, 1> version{}, flags{};
  TraceContext context;
  if (!ReadHex(header.substr(0, 2), version) || !ReadHex(header.substr(3, 32), context.trace) ||
      !ReadHex(header.substr(36, 16), context.span) || !ReadHex(header.substr(53, 2), flags)) {
    return std::nullopt;
  }
  if (version[0] == 0xff || AllZero(context.trace) || AllZero(context.span)) return std::nullopt;
  if (version[0] == 0 ? header.size() != kLength : header.size() > kLength && header[kLength] != '-') return std::nullopt;
  context.sampled = (flags[0] & 1) != 0;
  return context;
}

std::string ToTraceParent(const TraceContext& context) {
  return "00-" + Hex(context.trace) + "-" + Hex(context.span) + (context.sampled ? "-01" : "-00");
}

std::array<std::uint8_t, 8> NewSpanId() {
  std::array<std::uint8_t, 8> id{};
  Fill(id);
  return id;
}

TraceContext NewTrace(bool sampled) {
  TraceContext context{.trace = {}, .span = NewSpanId(), .sampled = sampled};
  Fill(context.trace);
  return context;
}

TraceContext ChildOf(const TraceContext& parent) {
  return {.trace = parent.trace, .span = NewSpanId(), .sampled = parent.sampled};
}

std::optional<RequestTrace> TraceOf(std::string_view traceparent) {
  const std::optional<TraceContext> caller = ParseTraceParent(traceparent);
  if (!caller) return std::nullopt;
  return RequestTrace{ChildOf(*caller), caller->span};
}

std::string ToHex(const std::array<std::uint8_t, 16>& id) { return Hex(id); }
std::string ToHex(const std::array<std::uint8_t, 8>& id) { return Hex(id); }

}  // namespace hearth

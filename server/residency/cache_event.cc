#include "server/residency/cache_event.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "server/base/bytes.h"
#include "server/base/duration.h"

namespace hearth {
namespace {

std::string ErrorText(const absl::Status& error) {
  return StrCat(FromAbsl(error.message()), " (", CodeName(error.code()), ")");
}

std::string Count(std::uint64_t count, std::string_view one, std::string_view many) {
  return StrCat(count, " ", count == 1 ? one : many);
}

std::string Lately(double demand) {
  if (demand < 0.05) return "not asked for lately";
  return absl::StrFormat("asked for about %.*f times lately", demand < 10 ? 1 : 0, demand);
}

std::string Stay(const CacheEvent& event) {
  return StrCat("resident for ", RoughDuration(event.resident), ", idle for ", RoughDuration(event.idle));
}

std::string_view Why(EvictionReason reason) {
  switch (reason) {
    case EvictionReason::kCapacity:
      return "to make room";
    case EvictionReason::kUnload:
      return "by an explicit unload";
    case EvictionReason::kReload:
      return "to be loaded anew";
    case EvictionReason::kShutdown:
      return "because the server stops";
    case EvictionReason::kDataLoss:
      return "because its files changed or are damaged";
    case EvictionReason::kEvict:
      return "on request";
    case EvictionReason::kIdle:
      return "because nobody asked for it";
    case EvictionReason::kReplaced:
      return "for another version that takes its place";
  }
  return "";
}

std::string DescribeEviction(const CacheEvent& event, const DeviceNames& devices) {
  if (!event.cause) {
    const bool budget = event.reason == EvictionReason::kCapacity;  // for no model in particular
    return StrCat(budget ? "because the budget became smaller" : Why(event.reason), "; ", Stay(event), ", ",
                  Count(event.hits, "hit", "hits"));
  }
  const EvictionCause& cause = *event.cause;
  const std::string rank = cause.rank == 1 ? "the coldest" : StrCat("number ", cause.rank);
  return StrCat("for ", ToString(cause.made_room_for), ": ", Describe(cause.needed, devices), " needed, ",
                Describe(event.bytes, devices), " held by it alone; ", rank, " of ",
                Count(cause.candidates, "candidate", "candidates"), " by score, ", Lately(cause.demand), "; ",
                Stay(event));
}

std::string DescribeFell(const CacheEvent& event, const DeviceNames& devices) {
  switch (event.tier) {
    case Tier::kHost:
      return StrCat("to host: its files stay in memory, with ", Describe(event.bytes, devices));
    case Tier::kMapped:
      return "to mapped: its files stay open";
    case Tier::kCold:
      break;
  }
  return "to cold: its files are closed";
}

std::string DescribeReady(const CacheEvent& event, const DeviceNames& devices) {
  std::string text = StrCat("after ", RoughDuration(event.took));
  if (event.tier != Tier::kCold) text += StrCat(" from ", ToString(event.tier));
  text += StrCat(", with ", Describe(event.bytes, devices));
  if (event.waiters > 0) text += StrCat(", for ", Count(event.waiters, "waiter", "waiters"));
  if (event.away) text += StrCat("; it had been evicted for ", RoughDuration(*event.away));
  return text;
}

}  // namespace

std::string Describe(const Expectation& expected, TimePoint now) {
  const Duration left = expected.at - now;
  return StrCat("ahead of need: asked for every ", RoughDuration(expected.every),
                left > Duration::zero() ? StrCat(", expected in ", RoughDuration(left)) : ", expected by now");
}

std::string Describe(const CacheEvent& event, const DeviceNames& devices) {
  switch (event.kind) {
    case CacheEventKind::kQueued:
      if (event.expected) return Describe(*event.expected, event.at);
      if (event.request) return "for a request";
      return event.waited_for ? "for somebody who waits" : "ahead of requests";
    case CacheEventKind::kLoading:
      return StrCat("with ", Describe(event.bytes, devices), " reserved");
    case CacheEventKind::kReady:
      return DescribeReady(event, devices);
    case CacheEventKind::kFailed:
      return StrCat("after ", RoughDuration(event.took), ": ", ErrorText(event.error));
    case CacheEventKind::kEvicted:
      return DescribeEviction(event, devices);
    case CacheEventKind::kStalled:
      return ErrorText(event.error);
    case CacheEventKind::kUnloaded:
      if (event.found == CacheEvent::Found::kAbsent) return StrCat(Why(event.reason), ", not being resident");
      if (event.found == CacheEvent::Found::kLoading) return StrCat(Why(event.reason), " while it was being loaded");
      if (event.found == CacheEvent::Found::kHanging) {
        return StrCat(Why(event.reason), " while its load hangs; the thread is still stuck");
      }
      return StrCat(Why(event.reason), "; ", Stay(event), ", ", Count(event.hits, "hit", "hits"));
    case CacheEventKind::kFell:
      return DescribeFell(event, devices);
    case CacheEventKind::kLost:
      return StrCat(Describe(event.bytes, devices), ", which could not be freed; the budget is smaller by as much until "
                                                    "hearthd is started again");
    case CacheEventKind::kRefused:
      return StrCat("because it is not loaded now: ", ErrorText(event.error));
  }
  return "";
}

}  // namespace hearth

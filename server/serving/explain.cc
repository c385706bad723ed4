#include "server/serving/explain.h"

#include "server/base/duration.h"

namespace hearth {
namespace {

std::string Ago(TimePoint then, TimePoint now) { return StrCat(RoughDuration(now - then), " ago"); }

// "evicted 5m ago for resnet:1: ...".
std::string Told(const CacheEvent& event, TimePoint now, const DeviceNames& devices) {
  return StrCat(ToString(event.kind), " ", Ago(event.at, now), " ", Describe(event, devices));
}

std::string Pinned(const ModelCache::Pins& pins) {
  if (pins.configured && pins.asked) return ", pinned by the configuration and on request";
  if (pins.configured) return ", pinned by the configuration";
  return pins.asked ? ", pinned on request" : "";
}

std::string Resident(const Explanation& e, const DeviceNames& devices) {
  const ModelCache::Row& row = *e.row;
  std::string text = "resident";
  if (e.history.last != nullptr && e.history.last->kind == CacheEventKind::kReady) {
    text += StrCat(" for ", RoughDuration(e.at - e.history.last->at));
  }
  if (row.load_report.from != Tier::kCold) text += StrCat(", loaded from ", ToString(row.load_report.from));
  // Once it has come, it does not matter any more when it was expected.
  if (row.expected) text += StrCat(", loaded ", row.hits == 0 ? Describe(*row.expected, e.at) : "ahead of need");
  text += row.pins > 0 ? StrCat(", in use by ", row.pins, row.pins == 1 ? " request" : " requests")
                       : StrCat(", idle for ", RoughDuration(e.at - row.last_used));
  text += Pinned(e.pins);
  if (e.history.last_eviction != nullptr) {
    text += StrCat("; before that ", Told(*e.history.last_eviction, e.at, devices));
  }
  return text;
}

std::string Coming(const Explanation& e) {
  const ModelCache::Row& row = *e.row;
  std::string text = StrCat(ToString(row.state), " for ", RoughDuration(e.at - row.since));
  if (row.hangs) {
    text += ", and hangs (cache.load_timeout): requests are refused until it ends";
    return e.unloaded ? text + ", and then until it is loaded explicitly" : text;
  }
  if (row.expected) text += StrCat(", ", Describe(*row.expected, e.at));
  if (row.waiters > 0) text += StrCat(", ", row.waiters, row.waiters == 1 ? " waits" : " wait", " for it");
  if (!row.error.ok()) text += StrCat("; there is no room yet: ", FromAbsl(row.error.message()));
  return text;
}

std::string Failed(const Explanation& e, const DeviceNames& devices) {
  std::string text = "not resident";
  if (e.history.last_failure != nullptr) text += StrCat(": ", Told(*e.history.last_failure, e.at, devices));
  const Duration left = e.row->retry_at - e.at;
  if (left > Duration::zero()) {
    text += StrCat("; requests are refused for another ", RoughDuration(left));
  } else {
    text += "; the next request tries again";
  }
  if (e.history.refused > 0) text += StrCat(", ", e.history.refused, " refused so far");
  return text;
}

// So that its next load need not open, check or read them.
std::string Left(Tier tier) {
  if (tier == Tier::kHost) return "; its files stay open and in memory (host)";
  return tier == Tier::kMapped ? "; its files stay open (mapped)" : "";
}

std::string Absent(const Explanation& e, const DeviceNames& devices) {
  std::string text = "not resident";
  if (e.history.last == nullptr) {
    text += ": nobody has asked for it since the server started";
  } else {
    text += StrCat(": ", Told(*e.history.last, e.at, devices));
  }
  const EventLog::EventPtr& loss = e.history.last_loss;
  if (loss != nullptr && (e.history.last == nullptr || loss->sequence > e.history.last->sequence)) {
    text += StrCat("; lost ", Describe(*loss, devices));
  }
  text += Left(e.tier);
  if (e.unloaded) text += "; requests are refused until it is loaded explicitly";
  return text + Pinned(e.pins);
}

}  // namespace

std::string Sentence(const Explanation& explanation, const DeviceNames& devices) {
  if (!explanation.row) return Absent(explanation, devices);
  switch (explanation.row->state) {
    case ModelState::kReady:
      return Resident(explanation, devices);
    case ModelState::kQueued:
    case ModelState::kLoading:
      return Coming(explanation);
    case ModelState::kDraining:
      return StrCat("leaving, as soon as those who use it (", explanation.row->pins, ") have finished");
    case ModelState::kUnloading:
      return StrCat("leaving: its memory is being freed",
                    explanation.row->hangs ? ", which hangs (cache.load_timeout)" : "",
                    explanation.history.last == nullptr
                        ? ""
                        : StrCat("; ", Told(*explanation.history.last, explanation.at, devices)));
    case ModelState::kFailed:
      return Failed(explanation, devices);
    case ModelState::kAbsent:
      break;
  }
  return Absent(explanation, devices);
}

}  // namespace hearth

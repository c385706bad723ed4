// hearth why | events: what happened in the cache, and why.
#include <chrono>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "client/commands/cache_rows.h"
#include "client/commands/command.h"
#include "client/strings.h"

namespace hearth::client {
namespace {

// "12:03:11" of this machine's clock and zone, with the day in front where it was another one.
std::string ClockTime(WallTime time) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm then{}, today{};
  localtime_r(&seconds, &then);
  localtime_r(&now, &today);
  const bool same_day = then.tm_year == today.tm_year && then.tm_yday == today.tm_yday;
  char text[32];
  std::strftime(text, sizeof(text), same_day ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &then);
  return text;
}

Tone ToneOfKind(const std::string& kind) {
  if (kind == "ready") return Tone::kGood;
  if (kind == "failed" || kind == "refused" || kind == "stalled" || kind == "lost") return Tone::kBad;
  return kind == "evicted" ? Tone::kBusy : Tone::kPlain;
}

std::string Title(const std::string& model, std::int64_t version) { return Cat(model, ":", version); }

nlohmann::ordered_json BytesJson(const BytesStat& bytes) {
  nlohmann::ordered_json json = {{"device", bytes.device}, {"host", bytes.host}, {"mapped", bytes.mapped}};
  if (!bytes.by_device.empty()) json["devices"] = bytes.by_device;
  return json;
}

nlohmann::ordered_json EventJson(const CacheEventStat& event) {
  nlohmann::ordered_json json = {{"sequence", event.sequence}, {"time", TimeJson(event.time)},
                                 {"model", event.model},       {"version", event.version},
                                 {"kind", event.kind},         {"text", event.text},
                                 {"bytes", BytesJson(event.bytes)}};
  if (event.kind == "ready" || event.kind == "failed") {
    json["load_seconds"] = event.load_seconds;
    json["waiters"] = event.waiters;
  }
  if (!event.tier.empty()) json["tier"] = event.tier;
  if (event.away_seconds > 0) json["away_seconds"] = event.away_seconds;
  if (!event.code.empty()) {
    json["error"] = event.error;
    json["code"] = event.code;
  }
  if (!event.reason.empty()) {
    json["reason"] = event.reason;
    json["resident_seconds"] = event.resident_seconds;
    json["idle_seconds"] = event.idle_seconds;
    json["hits"] = event.hits;
  }
  if (event.cause) {
    json["cause"] = {{"model", event.cause->model},
                     {"version", event.cause->version},
                     {"needed", BytesJson(event.cause->needed)},
                     {"loss", event.cause->loss},
                     {"rank", event.cause->rank},
                     {"candidates", event.cause->candidates},
                     {"demand", event.cause->demand}};
  }
  return json;
}

nlohmann::ordered_json EventJson(const std::optional<CacheEventStat>& event) {
  return event ? EventJson(*event) : nlohmann::ordered_json(nullptr);
}

nlohmann::ordered_json ToJson(const ExplanationStat& why) {
  return {{"name", why.model},
          {"version", why.version},
          {"state", why.state},
          {"sentence", why.sentence},
          {"pinned_by_configuration", why.pinned_by_configuration},
          {"pinned_on_request", why.pinned_on_request},
          {"unloaded", why.unloaded},
          {"refused", why.refused},
          {"evictions", why.evictions},
          {"last", EventJson(why.last)},
          {"last_eviction", EventJson(why.last_eviction)},
          {"last_failure", EventJson(why.last_failure)}};
}

// "evicted 12:03:11 for resnet-50:1: ...".
std::string Line(const CacheEventStat& event, bool colors) {
  return Cat(Paint(event.kind, ToneOfKind(event.kind), colors), " ", ClockTime(event.time),
             Paint(event.text.empty() ? "" : Cat(" ", event.text), Tone::kPlain, colors), "\n");
}

int Why(const Context& context, const std::string& text) {
  const absl::StatusOr<ModelName> model = ParseModelName(text);
  if (!model.ok()) return FailUsage(model.status());
  const absl::StatusOr<ExplanationStat> why = context.client.Explain(model->name, model->version);
  if (!why.ok()) return FailForModel(why.status(), model->name);
  if (context.json) return context.PrintJson(ToJson(*why));
  // The sentence has ages; what it tells of gets its time of day, and what it leaves out a line.
  std::string sentence = why->sentence, more;
  std::set<std::uint64_t> told;
  for (const auto* event : {&why->last, &why->last_eviction, &why->last_failure}) {
    if (!*event || !told.insert((*event)->sequence).second) continue;
    constexpr std::string_view kAgo = " ago ";
    const std::size_t at = sentence.find(Cat(kAgo, (*event)->text));
    if (at == sentence.npos) {
      more += Line(**event, context.colors);
    } else {
      sentence.insert(at + kAgo.size() - 1, Cat(" (", ClockTime((*event)->time), ")"));
    }
  }
  return context.Print(Cat(Paint(Title(why->model, why->version), Tone::kHeading, context.colors), " is ",
                           Paint(sentence, Tone::kPlain, context.colors), "\n", more));
}

struct EventArguments {
  std::string model;
  bool follow = false;
};

// One event on a line. Those of a program are each a JSON object, as they come.
std::string Show(const CacheEventStat& event, const Context& context) {
  if (context.json) {
    return EventJson(event).dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  }
  return Cat(ClockTime(event.time), "  ", Paint(Title(event.model, event.version), Tone::kHeading, context.colors),
             " ", Paint(event.kind, ToneOfKind(event.kind), context.colors),
             Paint(event.text.empty() ? "" : Cat(" ", event.text), Tone::kPlain, context.colors), "\n");
}

std::string ShowDropped(std::uint64_t dropped, const Context& context) {
  if (context.json) return Cat("{\"dropped\": ", dropped, "}\n");
  return Cat(Paint(Cat("(", dropped, " events had left the server's journal before they could be sent)"), Tone::kQuiet,
                   context.colors),
             "\n");
}

int Events(const Context& context, const EventArguments& arguments) {
  const absl::StatusOr<ModelName> model = ParseModelName(arguments.model);
  if (!model.ok()) return FailUsage(model.status());
  if (!model->version.empty()) {
    return FailUsage(Cat("'", arguments.model, "': events takes no version, it shows those of every one; write 'hearth "
                         "events ", model->name, "'"));
  }
  if (!model->name.empty()) {
    const absl::Status known = CheckInRepository(context.client, *model);
    if (!known.ok()) return FailForModel(known, model->name);
  }
  int exit_code = kExitOk;
  const auto print = [&](const std::string& text) {
    exit_code = context.Print(text);
    return exit_code == kExitOk;
  };
  bool any = false;
  const absl::Status ended = context.client.Watch(
      {.model = model->name, .history = true, .until_now = !arguments.follow},
      [&](const CacheEventStat& event) {
        any = true;
        return print(Show(event, context));
      },
      [&](std::uint64_t dropped) { return print(ShowDropped(dropped, context)); });
  if (!ended.ok()) return Fail(ended);
  if (!any && !context.json && exit_code == kExitOk) return context.Print("nothing has happened yet\n");
  return exit_code;
}

}  // namespace

void AddEventCommands(CLI::App& app, Selection& selection) {
  auto name = std::make_shared<std::string>();
  CLI::App* why = app.add_subcommand("why", "Say what happened to a model last, and why it is or is not resident");
  why->add_option("MODEL", *name, "NAME, NAME:VERSION or NAME:LABEL")->required();
  why->callback([name, &selection] {
    selection.run = [name](const Context& context) { return Why(context, *name); };
  });

  auto arguments = std::make_shared<EventArguments>();
  CLI::App* events = app.add_subcommand("events", "List what happened in the cache lately: loads, evictions, failures");
  events->add_flag("-f,--follow", arguments->follow, "Go on with what happens from now on");
  events->add_option("MODEL", arguments->model, "Only this one");
  events->callback([arguments, &selection] {
    if (arguments->follow) selection.default_timeout = std::chrono::milliseconds(0);  // for as long as it takes
    selection.run = [arguments](const Context& context) { return Events(context, *arguments); };
  });
}

}  // namespace hearth::client

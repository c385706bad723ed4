#include "server/frontend/settings_wire.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "server/base/log.h"
#include "server/base/log_level.h"
#include "server/base/strings.h"

namespace hearth {
namespace {

using LogValue = inference::LogSettingsRequest::SettingValue;

// The levels that a request leaves room for.
struct LevelRange {
  log::Level lowest = log::Level::kDebug;
  log::Level highest = log::Level::kError;

  void Want(log::Level level, bool on) {
    const auto next = static_cast<log::Level>(static_cast<int>(level) + 1);
    if (on) highest = std::min(highest, level);
    if (!on) lowest = std::max(lowest, next);
  }
};

absl::Status WrongType(const std::string& name, const char* expected) {
  return absl::InvalidArgumentError(StrCat("expect ", expected, " for the log setting '", name, "'"));
}

absl::Status Switch(const std::string& name, const LogValue& value, log::Level level, LevelRange& range) {
  if (!value.has_bool_param()) return WrongType(name, "bool_param");
  if (level != log::Level::kError) {
    range.Want(level, value.bool_param());
  } else if (!value.bool_param()) {
    return absl::InvalidArgumentError("'log_error' cannot be switched off: errors are always logged");
  }
  return absl::OkStatus();
}

absl::Status Narrow(const std::string& name, const LogValue& value, LevelRange& range) {
  if (name == "log_verbose_level") {
    if (!value.has_uint32_param()) return WrongType(name, "uint32_param");
    range.Want(log::Level::kDebug, value.uint32_param() > 0);
    return absl::OkStatus();
  }
  if (name == "log_info") return Switch(name, value, log::Level::kInfo, range);
  if (name == "log_warning") return Switch(name, value, log::Level::kWarning, range);
  if (name == "log_error") return Switch(name, value, log::Level::kError, range);
  if (name == "log_file" || name == "log_format") {
    return absl::UnimplementedError(
        StrCat("'", name, "' cannot be changed by clients: the log goes to standard error, in the format that "
                          "logging.format has in the server's configuration"));
  }
  return absl::InvalidArgumentError(StrCat("there is no log setting '", name, "'"));
}

const std::vector<std::pair<const char*, const char*>>& TraceDefaults() {
  static const std::vector<std::pair<const char*, const char*>> settings = {
      {"trace_level", "OFF"}, {"trace_rate", "1000"}, {"trace_count", "-1"},
      {"log_frequency", "0"}, {"trace_file", ""},     {"trace_mode", "triton"}};
  return settings;
}

}  // namespace

absl::Status ChangeLog(const inference::LogSettingsRequest& request) {
  LevelRange range;
  for (const auto& [name, value] : request.settings()) HEARTH_RETURN_IF_ERROR(Narrow(name, value, range));
  if (range.lowest > range.highest) {
    return absl::InvalidArgumentError(
        "these log settings contradict each other: 'log_verbose_level' above 0 includes 'log_info', and that "
        "'log_warning'");
  }
  const log::Level now = log::CurrentLevel();
  const log::Level next = std::clamp(now, range.lowest, range.highest);
  if (next == now) return absl::OkStatus();
  log::SetLevel(next);
  log::Warning("a client changed the level of the log", {{"verbose", log::Enabled(log::Level::kDebug)},
                                                         {"info", log::Enabled(log::Level::kInfo)},
                                                         {"warning", log::Enabled(log::Level::kWarning)}});
  return absl::OkStatus();
}

void FillLog(inference::LogSettingsResponse& response) {
  auto& settings = *response.mutable_settings();
  settings["log_file"].set_string_param("");
  settings["log_format"].set_string_param("default");
  settings["log_verbose_level"].set_uint32_param(log::Enabled(log::Level::kDebug) ? 1 : 0);
  settings["log_info"].set_bool_param(log::Enabled(log::Level::kInfo));
  settings["log_warning"].set_bool_param(log::Enabled(log::Level::kWarning));
  settings["log_error"].set_bool_param(true);
}

absl::Status ChangeTrace(const inference::TraceSettingRequest& request) {
  for (const auto& [name, value] : request.settings()) {
    const bool off = name == "trace_level" && value.value_size() == 1 && value.value(0) == "OFF";
    if (value.value().empty() || off) continue;
    return absl::UnimplementedError(
        StrCat("'", name, "' cannot be changed by clients: which requests are traced, and where that is told, is `tracing` in "
               "the server's configuration"));
  }
  return absl::OkStatus();
}

void FillTrace(inference::TraceSettingResponse& response) {
  for (const auto& [name, value] : TraceDefaults()) (*response.mutable_settings())[name].add_value(value);
}

}  // namespace hearth

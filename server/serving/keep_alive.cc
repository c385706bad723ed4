#include "server/serving/keep_alive.h"

#include <chrono>
#include <string>

#include "server/base/duration.h"
#include "server/residency/model_cache.h"

namespace hearth {
namespace {

absl::Status Bad(std::string_view value) {
  return absl::InvalidArgumentError(
      StrCat("invalid value '", value, "' for 'keep_alive' parameter, expected a time with a unit (\"5m\", \"90s\"), "
             "\"0s\" to let the model go after this request, \"-1\" to keep it until its room is needed, or a number of "
             "seconds as int64_param"));
}

}  // namespace

absl::StatusOr<Duration> ParseKeepAlive(std::string_view text) {
  if (text == "-1") return kKeepForever;
  absl::StatusOr<Duration> time = ParseDuration(text);
  if (!time.ok()) return Bad(text);
  return time;
}

absl::StatusOr<Duration> KeepAliveSeconds(std::int64_t seconds) {
  if (seconds < 0) return kKeepForever;
  if (seconds > std::chrono::floor<std::chrono::seconds>(kKeepForever).count()) return Bad(std::to_string(seconds));
  return std::chrono::seconds(seconds);
}

}  // namespace hearth

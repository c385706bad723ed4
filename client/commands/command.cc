#include "client/commands/command.h"

#include <algorithm>
#include <cstdio>

#include "client/render.h"
#include "client/strings.h"
#include "client/utf8.h"

namespace hearth::client {
namespace {

void PrintError(std::string_view message) {
  std::string text(message);
  while (!text.empty() && (text.back() == '\n' || text.back() == '.')) text.pop_back();
  std::fprintf(stderr, "hearth: %s\n", Printable(text).c_str());
}

}  // namespace

int Context::Print(std::string_view text) const {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  // A full disk shows when the buffer is flushed, and must not look like success.
  if (std::fflush(stdout) == 0 && written) return kExitOk;
  PrintError("the result could not be written to standard output");
  return kExitFailed;
}

int Context::PrintJson(const nlohmann::ordered_json& value) const { return Print(DumpJson(value) + "\n"); }

int Fail(const absl::Status& status) {
  const std::string message(status.message());
  if (IsUnreachable(status)) {
    PrintError(message);
    return kExitUnreachable;
  }
  const std::string code = absl::StatusCodeToString(status.code());
  PrintError(message.empty() ? code : Cat(message, " (", code, ")"));
  return status.code() == absl::StatusCode::kDeadlineExceeded ? kExitTimedOut : kExitFailed;
}

int FailUsage(std::string_view message) {
  PrintError(message);
  return kExitUsage;
}

ModelName ParseModelName(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon != text.npos && colon + 1 < text.size() &&
      text.find_first_not_of("0123456789", colon + 1) == text.npos) {
    return {std::string(text.substr(0, colon)), std::string(text.substr(colon + 1))};
  }
  return {std::string(text), ""};
}

}  // namespace hearth::client

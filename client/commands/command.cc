#include "client/commands/command.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <vector>

#include "client/render.h"
#include "client/strings.h"
#include "client/utf8.h"

namespace hearth::client {
namespace {

void PrintError(std::string_view message) {
  std::string text(message);
  while (!text.empty() && (text.back() == '\n' || text.back() == '.')) text.pop_back();
  // Further lines are indented: none of them can pass for a message of its own.
  std::string lines;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    lines += Cat(at == 0 ? "hearth: " : "        ", Printable(text.substr(at, end - at)), "\n");
    at = end + 1;
  }
  std::fputs(lines.c_str(), stderr);
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

int FailForModel(const absl::Status& status, const std::string& model) {
  if (!absl::IsNotFound(status)) return Fail(status);
  return Fail(absl::NotFoundError(
      Cat(std::string(status.message()), "; if it was added since the server read its repository, run 'hearth "
          "load ", model.substr(0, model.rfind(':')), "' or 'hearth reload'")));
}

int FailUsage(std::string_view message) {
  PrintError(message);
  return kExitUsage;
}

int FailUsage(const absl::Status& status) { return FailUsage(std::string(status.message())); }

namespace {

// As model.yaml has them: a letter or '_' first, with which no number begins.
bool IsLabel(std::string_view text) {
  return !text.empty() && (std::isalpha(static_cast<unsigned char>(text.front())) != 0 || text.front() == '_');
}

}  // namespace

absl::StatusOr<ModelName> ParseModelName(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == text.npos) return ModelName{std::string(text), ""};
  const std::string_view version = text.substr(colon + 1);
  const bool is_number = !version.empty() && version.find_first_not_of("0123456789") == version.npos;
  if (colon == 0 || !(is_number || IsLabel(version))) {
    return absl::InvalidArgumentError(
        Cat("'", text, "': '", version, "' is no version and no label; write NAME, or NAME:VERSION as in vad:2"));
  }
  return ModelName{std::string(text.substr(0, colon)), std::string(version)};
}

absl::Status CheckInRepository(Client& client, const ModelName& model) {
  const absl::StatusOr<std::vector<IndexEntry>> index = client.Index();
  if (!index.ok() || IsLabel(model.version)) return absl::OkStatus();
  bool known = false, versions = false;
  for (const IndexEntry& entry : *index) {
    if (entry.name != model.name) continue;
    if (model.version.empty() || entry.version == model.version) return absl::OkStatus();
    known = true;
    versions = versions || !entry.version.empty();
  }
  if (!known) return absl::NotFoundError(Cat("the repository has no model '", model.name, "'"));
  if (!versions) return absl::OkStatus();  // one that the server could not read has none
  return absl::NotFoundError(
      Cat("the repository has no version ", model.version, " of the model '", model.name, "'"));
}

}  // namespace hearth::client

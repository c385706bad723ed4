#include "client/trust.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>

#include "client/files.h"
#include "client/status_macros.h"
#include "client/strings.h"

namespace hearth::client {
namespace {

constexpr std::size_t kMostBytes = 1 << 20;
constexpr std::string_view kBlanks = " \t\r";

// The first line that is neither empty nor a comment; files of the server may have several, of which any is good.
std::string_view FirstToken(std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    line.remove_prefix(std::min(line.find_first_not_of(kBlanks), line.size()));
    if (line.empty() || line.front() == '#') continue;
    return line.substr(0, line.find_last_not_of(kBlanks) + 1);
  }
  return {};
}

absl::Status ReadInto(const std::string& path, std::string& text) {
  if (path.empty()) return absl::OkStatus();
  CLIENT_ASSIGN_OR_RETURN(text, ReadFile(path, kMostBytes));
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadTrust(const TrustFiles& files, ClientOptions& options) {
  if (!files.token_file.empty()) {
    CLIENT_ASSIGN_OR_RETURN(const std::string text, ReadFile(files.token_file, kMostBytes));
    const std::string_view token = FirstToken(text);
    const bool printable = std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c <= '~'; });
    if (token.empty() || !printable) return absl::InvalidArgumentError(Cat(files.token_file, " holds no token"));
    options.token = token;
  }
  if (!files.tls && files.ca.empty() && files.certificate.empty() && files.key.empty()) return absl::OkStatus();
  if (files.certificate.empty() != files.key.empty()) {
    return absl::InvalidArgumentError("--cert and --key go together");
  }
  ClientOptions::Tls tls;
  CLIENT_RETURN_IF_ERROR(ReadInto(files.ca, tls.ca));
  CLIENT_RETURN_IF_ERROR(ReadInto(files.certificate, tls.certificate));
  CLIENT_RETURN_IF_ERROR(ReadInto(files.key, tls.key));
  options.tls = std::move(tls);
  return absl::OkStatus();
}

}  // namespace hearth::client

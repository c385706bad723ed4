#include "server/config/environment.h"

#include <unistd.h>

#include <algorithm>
#include <map>

namespace hearth {
namespace {

constexpr std::string_view kPrefix = "HEARTH_";

// Where the configuration is, and what the client takes.
constexpr std::string_view kNotKeys[] = {"HEARTH_CONFIG", "HEARTH_ADDRESS", "HEARTH_TOKEN_FILE", "HEARTH_TLS",
                                         "HEARTH_CA",     "HEARTH_CERT",    "HEARTH_KEY"};

// "cache.budget.host" -> "HEARTH_CACHE__BUDGET__HOST"
std::string VariableOf(std::string_view key) {
  std::string variable(kPrefix);
  for (const char c : key) {
    if (c == '.') {
      variable += "__";
    } else {
      variable += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    }
  }
  return variable;
}

// Kubernetes gives every container variables about every Service of its namespace; for one that is
// called hearth or hearth-grpc they start like ours: HEARTH_SERVICE_HOST,
// HEARTH_PORT_8001_TCP_ADDR.
bool IsKubernetesServiceVariable(std::string_view name, std::string_view value) {
  if (name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") ||
      name.find("_SERVICE_PORT_") != std::string_view::npos) {
    return true;
  }
  if (name.ends_with("_PORT") && value.find("://") != std::string_view::npos) return true;
  // ..._PORT_<digits>_<protocol>...
  constexpr std::string_view kPort = "_PORT_";
  for (std::size_t at = name.find(kPort); at != std::string_view::npos;
       at = name.find(kPort, at + 1)) {
    const std::string_view rest = name.substr(at + kPort.size());
    const std::size_t digits = std::min(rest.find_first_not_of("0123456789"), rest.size());
    for (const std::string_view protocol : {"_TCP", "_UDP", "_SCTP"}) {
      if (digits > 0 && rest.substr(digits).starts_with(protocol)) return true;
    }
  }
  return false;
}

}  // namespace

Environment CurrentEnvironment() {
  Environment environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::size_t equals = text.find('=');
    if (equals != std::string_view::npos) {
      environment.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
  }
  return environment;
}

EnvironmentOverrides ReadEnvironment(const Environment& environment,
                                     const std::vector<std::string>& keys) {
  std::map<std::string, std::string> key_of;
  std::vector<std::string> variables;
  for (const std::string& key : keys) {
    variables.push_back(VariableOf(key));
    key_of.emplace(variables.back(), key);
  }
  EnvironmentOverrides result;
  for (const auto& [name, value] : environment) {
    if (!name.starts_with(kPrefix) || value.empty()) continue;
    if (std::find(std::begin(kNotKeys), std::end(kNotKeys), name) != std::end(kNotKeys)) continue;
    if (const auto known = key_of.find(name); known != key_of.end()) {
      result.overrides.push_back({known->second, value, StrCat("$", name)});
    } else if (!IsKubernetesServiceVariable(name, value)) {
      const std::string_view closest = ClosestWord(name, variables);
      result.mistakes.emplace_back(
          StrCat("$", name), closest.empty()
                                 ? "names no key; '__' goes between levels, as in HEARTH_GRPC__PORT"
                                 : StrCat("names no key; did you mean ", closest, "?"));
    }
  }
  return result;
}

}  // namespace hearth

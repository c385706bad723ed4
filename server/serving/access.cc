#include "server/serving/access.h"

#include <algorithm>
#include <utility>

#include "server/base/log.h"

namespace hearth {
namespace {

constexpr Duration kBetweenLines = std::chrono::seconds(1);
constexpr std::string_view kBearer = "bearer ";

bool EqualsIgnoringCase(std::string_view text, std::string_view lower) {
  return std::equal(text.begin(), text.end(), lower.begin(), lower.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

// "Bearer x" -> "x". Nothing: it is another scheme.
std::optional<std::string_view> TokenIn(std::string_view authorization) {
  if (!EqualsIgnoringCase(authorization.substr(0, kBearer.size()), kBearer)) return std::nullopt;
  authorization.remove_prefix(kBearer.size());
  const std::size_t first = std::min(authorization.find_first_not_of(' '), authorization.size());
  return authorization.substr(first);
}

// Looks at all of `shown`, wherever it differs. How long `token` is, is no secret.
bool SameToken(std::string_view token, std::string_view shown) {
  unsigned difference = token.size() == shown.size() ? 0 : 1;
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const char expected = i < token.size() ? token[i] : '\0';
    difference |= static_cast<unsigned char>(expected) ^ static_cast<unsigned char>(shown[i]);
  }
  return difference == 0;
}

bool HasToken(const AccessPolicy::Role& role, std::string_view shown) {
  bool has = false;
  for (const std::string& token : role.tokens) has |= SameToken(token, shown);  // no short cut
  return has;
}

bool HasCertificate(const AccessPolicy::Role& role, std::span<const std::string> names) {
  return std::any_of(names.begin(), names.end(), [&role](const std::string& name) {
    return std::find(role.certificate_names.begin(), role.certificate_names.end(), name) != role.certificate_names.end();
  });
}

// What somebody could do about it who runs the server.
std::string HowToAllow(AccessGroup group) {
  return StrCat("give a role of access.roles the group '", ToString(group), "' and the client that role's token, or add '",
                ToString(group), "' to access.open to allow everybody, in the server's configuration");
}

absl::Status RefuseStranger(const AccessPolicy& policy, AccessGroup group, std::string_view call, const Caller& caller) {
  bool token_would_help = false, certificate_would_help = false;
  for (const AccessPolicy::Role& role : policy.roles) {
    if (!role.groups.Has(group)) continue;
    token_would_help = true;
    certificate_would_help |= !role.certificate_names.empty();
  }
  if (token_would_help && !caller.authorization.empty()) {
    return absl::UnauthenticatedError(
        StrCat("'", call, "' needs a token of access.roles in the server's configuration, and what was sent as "
               "'Authorization: Bearer TOKEN' is none of them"));
  }
  if (token_would_help) {
    return absl::UnauthenticatedError(
        StrCat("'", call, "' needs the token", certificate_would_help ? ", or the client certificate," : "",
               " of a role that has the group '", ToString(group),
               "' (access.roles in the server's configuration): send 'Authorization: Bearer TOKEN'; hearth takes "
               "--token-file"));
  }
  if (!policy.local.Has(group)) {
    return absl::PermissionDeniedError(StrCat("'", call, "' is allowed to nobody: ", HowToAllow(group)));
  }
  const std::string_view why = caller.loopback && caller.forwarded
                                   ? " (this one says that it was passed on by a proxy, or comes from a web page)"
                                   : "";
  return absl::PermissionDeniedError(
      StrCat("'", call, "' is allowed only to clients on the server's own machine", why, ": ", HowToAllow(group)));
}

}  // namespace

bool TellsOfElsewhere(std::string_view name) {
  constexpr std::string_view kNames[] = {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via", "origin"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

absl::Status DecideAccess(const AccessPolicy& policy, Listener listener, AccessGroup group, std::string_view call,
                          const Caller& caller) {
  if (!policy.served[static_cast<std::size_t>(listener)].Has(group)) {
    return absl::PermissionDeniedError(StrCat("'", call, "' is not served on this port: ", ToString(listener),
                                              ".groups in the server's configuration is without '", ToString(group), "'"));
  }
  if (policy.open.Has(group)) return absl::OkStatus();
  if (policy.local.Has(group) && caller.loopback && !caller.forwarded) return absl::OkStatus();
  const std::optional<std::string_view> token = TokenIn(caller.authorization);
  std::string known;  // as whom
  bool allowed = false;
  for (const AccessPolicy::Role& role : policy.roles) {
    const bool by_token = token && HasToken(role, *token);
    if (!by_token && !HasCertificate(role, caller.certificate_names)) continue;
    known = role.name;
    allowed |= role.groups.Has(group);
  }
  if (allowed) return absl::OkStatus();
  if (!known.empty()) {
    return absl::PermissionDeniedError(StrCat("the role '", known, "' may not call '", call, "': add '", ToString(group),
                                              "' to its groups in access.roles of the server's configuration"));
  }
  return RefuseStranger(policy, group, call, caller);
}

Access::Access(const Clock& clock, AccessPolicy policy) : clock_(clock) { Set(std::move(policy)); }

void Access::Set(AccessPolicy policy) {
  const auto next = std::make_shared<const AccessPolicy>(std::move(policy));
  for (std::size_t i = 0; i < open_.size(); ++i) {
    open_[i].store((next->open & next->served[i]).bits(), std::memory_order_relaxed);
  }
  MutexLock lock(mu_);
  policy_ = next;
}

absl::Status Access::Check(Listener listener, std::optional<AccessGroup> group, std::string_view call,
                           const Caller& caller) {
  std::shared_ptr<const AccessPolicy> policy;
  {
    MutexLock lock(mu_);
    policy = policy_;
  }
  const absl::Status decision =
      group ? DecideAccess(*policy, listener, *group, call, caller)
            : absl::PermissionDeniedError(StrCat("'", call, "' belongs to no group that could be allowed"));
  if (!decision.ok()) NoteRefusal(listener, group, call, caller, decision);
  return decision;
}

void Access::NoteRefusal(Listener listener, std::optional<AccessGroup> group, std::string_view call, const Caller& caller,
                         const absl::Status& refusal) {
  const std::size_t which = group ? static_cast<std::size_t>(*group) : kGroups - 1;
  ++refused_[static_cast<std::size_t>(listener)][which][absl::IsUnauthenticated(refusal) ? 1 : 0];
  std::uint64_t others = 0;
  {
    MutexLock lock(mu_);
    const TimePoint now = clock_.Now();
    if (logged_ && now - *logged_ < kBetweenLines) {
      ++unlogged_;
      return;
    }
    logged_ = now;
    others = std::exchange(unlogged_, 0);
  }
  log::Warning("call refused", {{"call", call},
                                {"listener", ToString(listener)},
                                {"client", caller.address},
                                {"reason", FromAbsl(refusal.message())},
                                {"others_since", others}});
}

std::vector<Metrics::Sample> Access::Samples() const {
  std::vector<Metrics::Sample> samples;
  for (std::size_t l = 0; l < refused_.size(); ++l) {
    for (std::size_t g = 0; g < kGroups; ++g) {
      for (const absl::StatusCode code : {absl::StatusCode::kPermissionDenied, absl::StatusCode::kUnauthenticated}) {
        const std::uint64_t count = refused_[l][g][code == absl::StatusCode::kUnauthenticated ? 1 : 0];
        if (count == 0) continue;
        samples.push_back({"hearth_refused_calls_total",
                           "Calls that the client may not make (access in the configuration).",
                           {{"listener", std::string(kListeners[l])},
                            {"group", g + 1 == kGroups ? "none" : std::string(kAccessGroups[g].first)},
                            {"code", std::string(CodeName(code))}},
                           static_cast<double>(count),
                           /*counter=*/true});
      }
    }
  }
  return samples;
}

}  // namespace hearth

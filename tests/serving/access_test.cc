#include "server/serving/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "tests/fakes/manual_clock.h"

namespace hearth {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr char kToken[] = "0123456789abcdef";

const Caller kHere{.address = "127.0.0.1", .loopback = true};
const Caller kElsewhere{.address = "192.0.2.7"};

Caller With(std::string_view authorization, Caller caller = kElsewhere) {
  caller.authorization = authorization;
  return caller;
}

AccessPolicy WithRole(AccessGroups groups, std::vector<std::string> tokens = {kToken}) {
  AccessPolicy policy;
  policy.roles.push_back({"ops", std::move(tokens), {}, groups});
  return policy;
}

absl::Status Decide(const AccessPolicy& policy, AccessGroup group, const Caller& caller,
                    Listener listener = Listener::kGrpc) {
  return DecideAccess(policy, listener, group, "a call", caller);
}

std::string TextOf(const absl::Status& status) { return std::string(FromAbsl(status.message())); }

TEST(AccessDecision, ByDefaultAnybodyMayAskAndInferAndOnlyThisMachineMayChangeAnything) {
  for (const auto& [name, group] : kAccessGroups) {
    const bool changes = group == AccessGroup::kRepository || group == AccessGroup::kControl;
    for (const Listener listener : {Listener::kGrpc, Listener::kRest, Listener::kHttp}) {
      EXPECT_TRUE(Decide({}, group, kHere, listener).ok()) << name;
      EXPECT_EQ(Decide({}, group, kElsewhere, listener).ok(), !changes) << name;
    }
  }
}

TEST(AccessDecision, ARefusalNamesTheKeysThatWouldAllowIt) {
  const absl::Status refused = Decide({}, AccessGroup::kRepository, kElsewhere);
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(TextOf(refused), AllOf(HasSubstr("'a call'"), HasSubstr("access.roles"), HasSubstr("access.open"),
                                     HasSubstr("'repository'")));
}

TEST(AccessDecision, WhatIsOpenNeedsNoToken) {
  AccessPolicy policy;
  policy.open.Add(AccessGroup::kControl);
  EXPECT_TRUE(Decide(policy, AccessGroup::kControl, kElsewhere).ok());
  EXPECT_TRUE(Decide(policy, AccessGroup::kControl, With("Bearer of a wrong one")).ok());
}

TEST(AccessDecision, WhatALocalProxyOrAWebPageSendsIsNotFromThisMachine) {
  Caller caller = kHere;
  caller.forwarded = true;
  const absl::Status refused = Decide({}, AccessGroup::kControl, caller);
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(TextOf(refused), HasSubstr("proxy"));
  for (const char* header : {"forwarded", "x-forwarded-for", "x-real-ip", "via", "origin"}) {
    EXPECT_TRUE(TellsOfElsewhere(header)) << header;
  }
  EXPECT_FALSE(TellsOfElsewhere("user-agent"));
}

TEST(AccessDecision, WithoutLocalGroupsThisMachineIsLikeAnyOther) {
  AccessPolicy policy;
  policy.local = {};
  EXPECT_EQ(Decide(policy, AccessGroup::kControl, kHere).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(TextOf(Decide(policy, AccessGroup::kControl, kHere)), HasSubstr("access.roles"));
}

TEST(AccessDecision, ATokenOfARoleWithTheGroupIsEnough) {
  const AccessPolicy policy = WithRole({AccessGroup::kRepository}, {"an older token of it", kToken});
  for (const char* authorization : {"Bearer 0123456789abcdef", "bearer 0123456789abcdef", "BEARER  0123456789abcdef",
                                    "Bearer an older token of it"}) {
    EXPECT_TRUE(Decide(policy, AccessGroup::kRepository, With(authorization)).ok()) << authorization;
  }
}

TEST(AccessDecision, OneThatIsMissingOrWrongIsUnauthenticatedAndNeverRepeated) {
  const AccessPolicy policy = WithRole({AccessGroup::kRepository});
  for (const char* authorization :
       {"", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Bearer 0123456789abcdeX",
        "0123456789abcdef", "Basic 0123456789abcdef", "Bearer 0123456789abcdef 0123456789abcdef"}) {
    const absl::Status refused = Decide(policy, AccessGroup::kRepository, With(authorization));
    EXPECT_EQ(refused.code(), absl::StatusCode::kUnauthenticated) << authorization;
    EXPECT_THAT(TextOf(refused), AllOf(HasSubstr("access.roles"), Not(HasSubstr("0123456789")))) << authorization;
  }
}

TEST(AccessDecision, ATokenWhereNoneWouldHelpIsNotAskedForAgain) {
  EXPECT_EQ(Decide({}, AccessGroup::kControl, With("Bearer 0123456789abcdef")).code(), absl::StatusCode::kPermissionDenied);
}

TEST(AccessDecision, ARoleWithoutTheGroupIsToldSo) {
  const absl::Status refused =
      Decide(WithRole({AccessGroup::kStatistics}), AccessGroup::kControl, With("Bearer 0123456789abcdef"));
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(TextOf(refused), AllOf(HasSubstr("'ops'"), HasSubstr("'control'"), HasSubstr("access.roles")));
}

TEST(AccessDecision, OneOfSeveralRolesIsEnough) {
  AccessPolicy policy = WithRole({AccessGroup::kStatistics});
  policy.roles.push_back({"deployer", {kToken}, {}, {AccessGroup::kRepository}});
  EXPECT_TRUE(Decide(policy, AccessGroup::kRepository, With("Bearer 0123456789abcdef")).ok());
  EXPECT_FALSE(Decide(policy, AccessGroup::kControl, With("Bearer 0123456789abcdef")).ok());
}

TEST(AccessDecision, AVerifiedCertificatesNameIsAsGoodAsAToken) {
  AccessPolicy policy;
  policy.roles.push_back({"ops", {}, {"ops.example"}, {AccessGroup::kControl}});
  const std::vector<std::string> names = {"spiffe://example/ops", "ops.example"}, others = {"xops.example", "OPS.example"};
  Caller caller = kElsewhere;
  EXPECT_EQ(Decide(policy, AccessGroup::kControl, caller).code(), absl::StatusCode::kUnauthenticated);
  caller.certificate_names = others;
  EXPECT_EQ(Decide(policy, AccessGroup::kControl, caller).code(), absl::StatusCode::kUnauthenticated);
  caller.certificate_names = names;
  EXPECT_TRUE(Decide(policy, AccessGroup::kControl, caller).ok());
}

TEST(AccessDecision, WhatAListenerDoesNotServeNobodyCallsThere) {
  AccessPolicy policy = WithRole(AccessGroups::All());
  policy.served[static_cast<std::size_t>(Listener::kRest)] = {AccessGroup::kInference};
  for (const Caller& caller : {kHere, kElsewhere, With("Bearer 0123456789abcdef")}) {
    const absl::Status refused = Decide(policy, AccessGroup::kMetadata, caller, Listener::kRest);
    EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
    EXPECT_THAT(TextOf(refused), HasSubstr("rest.groups"));
    EXPECT_TRUE(Decide(policy, AccessGroup::kInference, caller, Listener::kRest).ok());
  }
  EXPECT_TRUE(Decide(policy, AccessGroup::kMetadata, kElsewhere, Listener::kGrpc).ok());
}

class AccessTest : public testing::Test {
 protected:
  double Refused(const std::string& group, const std::string& code) const {
    const std::vector<std::pair<std::string, std::string>> wanted = {{"listener", "grpc"}, {"group", group}, {"code", code}};
    for (const Metrics::Sample& sample : access_.Samples()) {
      EXPECT_EQ(sample.name, "hearth_refused_calls_total");
      if (sample.labels == wanted) return sample.value;
    }
    return 0;
  }

  fakes::ManualClock clock_;
  Access access_{clock_};
};

TEST_F(AccessTest, KnowsWhatIsOpenWithoutLookingAtTheCaller) {
  EXPECT_TRUE(access_.IsOpen(Listener::kGrpc, AccessGroup::kInference));
  EXPECT_FALSE(access_.IsOpen(Listener::kGrpc, AccessGroup::kControl));
  AccessPolicy policy;
  policy.open = {AccessGroup::kControl, AccessGroup::kHealth};
  policy.served[static_cast<std::size_t>(Listener::kRest)] = {AccessGroup::kHealth};
  access_.Set(policy);
  EXPECT_FALSE(access_.IsOpen(Listener::kGrpc, AccessGroup::kInference));
  EXPECT_TRUE(access_.IsOpen(Listener::kGrpc, AccessGroup::kControl));
  EXPECT_FALSE(access_.IsOpen(Listener::kRest, AccessGroup::kControl));
}

TEST_F(AccessTest, ACallWithoutAGroupIsRefusedEvenHere) {
  EXPECT_EQ(access_.Check(Listener::kGrpc, std::nullopt, "a call", kHere).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Refused("none", "PERMISSION_DENIED"), 1);
}

TEST_F(AccessTest, CountsWhatItRefuses) {
  access_.Set(WithRole({AccessGroup::kRepository}));
  EXPECT_TRUE(access_.Check(Listener::kGrpc, AccessGroup::kControl, "a call", kHere).ok());
  for (int i = 0; i < 3; ++i) (void)access_.Check(Listener::kGrpc, AccessGroup::kControl, "a call", kElsewhere);
  (void)access_.Check(Listener::kGrpc, AccessGroup::kRepository, "a call", With("Bearer not this one"));
  EXPECT_EQ(Refused("control", "PERMISSION_DENIED"), 3);
  EXPECT_EQ(Refused("repository", "UNAUTHENTICATED"), 1);
}

TEST_F(AccessTest, LogsRefusalsOnceASecondWithTheNumberOfTheOthersAndNoToken) {
  testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) (void)access_.Check(Listener::kGrpc, AccessGroup::kControl, "first", With("Bearer notthisone"));
  clock_.Advance(std::chrono::seconds(1));
  (void)access_.Check(Listener::kGrpc, AccessGroup::kControl, "sec\nond", kElsewhere);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 2) << log;
  EXPECT_THAT(log, AllOf(HasSubstr("call=first"), HasSubstr("others_since=2"), HasSubstr("client=192.0.2.7"),
                         Not(HasSubstr("notthisone"))));
}

}  // namespace
}  // namespace hearth

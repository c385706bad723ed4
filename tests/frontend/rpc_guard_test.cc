#include "server/frontend/rpc_guard.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"
#include "hearth/v1/cache.grpc.pb.h"
#include "hearth/v1/config.grpc.pb.h"
#include "inference.grpc.pb.h"
#include "tests/frontend/server_stack.h"

namespace hearth {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Of the services that GrpcServer registers, as their descriptors have them.
std::set<std::string> AllRpcs() {
  std::set<std::string> names;
  for (const google::protobuf::Descriptor* message :
       {inference::ServerLiveRequest::descriptor(), hearth::v1::StatRequest::descriptor(),
        hearth::v1::ReloadRequest::descriptor(), grpc::health::v1::HealthCheckRequest::descriptor()}) {
    const google::protobuf::FileDescriptor* file = message->file();
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        names.insert(StrCat(file->service(s)->full_name(), "/", file->service(s)->method(m)->name()));
      }
    }
  }
  return names;
}

TEST(RpcGuard, EveryRpcOfOurServicesHasAGroupAndEveryGroupedOneExists) {
  std::set<std::string> grouped;
  for (const auto& rpc : GroupedRpcs()) {
    EXPECT_TRUE(grouped.insert(std::string(rpc.first)).second) << rpc.first << " is listed twice";
  }
  grouped.erase("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");  // gRPC's own
  EXPECT_EQ(grouped, AllRpcs());
}

TEST(RpcGuard, WhatNobodyHasPutInAGroupIsRefused) {
  EXPECT_EQ(FindRpc("inference.GRPCInferenceService/ModelInfer").group, AccessGroup::kInference);
  for (const char* name : {"inference.GRPCInferenceService/FormatDisk", "ModelInfer", "", "/inference.GRPCInferenceService/ModelInfer",
                           "inference.GRPCInferenceService/modelinfer"}) {
    EXPECT_EQ(FindRpc(name).group, std::nullopt) << name;
  }
  const SteadyClock clock;
  Access access(clock);
  const RpcGuard guard(access);
  const grpc::ServerContext context;
  EXPECT_EQ(guard.Check(FindRpc("of.a.Service/ThatIsNew"), context).code(), absl::StatusCode::kPermissionDenied);
}

// Every RPC of a server asks the guard, under its own name: with nothing allowed, all are refused, and each says which it is.
TEST(RpcGuard, NoRpcGoesUnasked) {
  ServerStack stack;
  AccessPolicy nothing;
  nothing.open = nothing.local = {};
  stack.access.Set(nothing);
  const auto channel = stack.Channel();
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  for (const std::string& name : AllRpcs()) {
    grpc::ClientContext context;
    grpc::ByteBuffer answer;
    grpc::Status status;
    const auto call = stub.PrepareCall(&context, "/" + name, &queue);
    void* tag = nullptr;
    bool ok = false;
    const auto wait = [&] { ASSERT_TRUE(queue.Next(&tag, &ok)); };
    call->StartCall(nullptr);
    wait();
    const grpc::Slice nothing_to_say;
    call->WriteLast(grpc::ByteBuffer(&nothing_to_say, 1), grpc::WriteOptions(), nullptr);
    wait();
    call->Read(&answer, nullptr);
    wait();
    call->Finish(&status, nullptr);
    wait();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED) << name;
    EXPECT_THAT(status.error_message(), AllOf(HasSubstr("'" + name + "'"), HasSubstr("access."))) << name;
  }
  queue.Shutdown();
}

TEST(RpcGuard, ATokenInTheMetadataIsFound) {
  ServerStack stack;
  AccessPolicy policy;
  policy.local = {};
  policy.roles.push_back({"ops", {"0123456789abcdef"}, {}, {AccessGroup::kControl}});
  stack.access.Set(policy);
  const auto stub = hearth::v1::Cache::NewStub(stack.Channel());
  const auto unpin = [&](const char* authorization) {
    grpc::ClientContext context;
    if (*authorization != 0) context.AddMetadata("authorization", authorization);
    hearth::v1::UnpinRequest request;
    request.set_model("absent");
    hearth::v1::UnpinResponse response;
    return stub->Unpin(&context, request, &response).error_code();
  };
  EXPECT_EQ(unpin(""), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(unpin("Bearer wrong"), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(unpin("Bearer 0123456789abcdef"), grpc::StatusCode::NOT_FOUND);
}

TEST(RpcGuard, SettingsOfTheLogMayBeReadWhereTheyMayNotBeChanged) {
  ServerStack stack;
  AccessPolicy policy;
  policy.local = {};
  stack.access.Set(policy);
  const auto stub = stack.Stub();
  inference::LogSettingsRequest request;
  inference::LogSettingsResponse response;
  grpc::ClientContext reading, changing;
  EXPECT_TRUE(stub->LogSettings(&reading, request, &response).ok());
  (*request.mutable_settings())["log_verbose_level"].set_uint32_param(1);
  EXPECT_EQ(stub->LogSettings(&changing, request, &response).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  inference::TraceSettingRequest trace;
  inference::TraceSettingResponse traced;
  grpc::ClientContext reading_trace, changing_trace;
  EXPECT_TRUE(stub->TraceSetting(&reading_trace, trace, &traced).ok());
  (*trace.mutable_settings())["trace_level"].add_value("OFF");
  EXPECT_EQ(stub->TraceSetting(&changing_trace, trace, &traced).error_code(), grpc::StatusCode::PERMISSION_DENIED);
}

}  // namespace
}  // namespace hearth

#include "server/frontend/settings_rpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "server/base/log.h"
#include "server/base/log_level.h"
#include "tests/frontend/mini_server.h"

namespace hearth {
namespace {

using inference::LogSettingsRequest;
using inference::LogSettingsResponse;
using inference::TraceSettingRequest;
using inference::TraceSettingResponse;
using testing::HasSubstr;

class SettingsRpcTest : public testing::Test {
 protected:
  SettingsRpcTest() {
    ServeSettings(server_.loop(), service_);
    server_.Start();
    stub_ = inference::GRPCInferenceService::NewStub(server_.Channel());
    log::SetLevel(log::Level::kInfo);
  }
  ~SettingsRpcTest() override { log::SetLevel(before_); }

  grpc::Status Call(const LogSettingsRequest& request) {
    grpc::ClientContext context;
    return stub_->LogSettings(&context, request, &response_);
  }
  // The level after one switch was set.
  log::Level After(const std::string& name, bool on) {
    LogSettingsRequest request;
    (*request.mutable_settings())[name].set_bool_param(on);
    EXPECT_TRUE(Call(request).ok());
    return log::CurrentLevel();
  }
  log::Level AfterVerbose(std::uint32_t level) {
    LogSettingsRequest request;
    (*request.mutable_settings())["log_verbose_level"].set_uint32_param(level);
    EXPECT_TRUE(Call(request).ok());
    return log::CurrentLevel();
  }

  const log::Level before_ = log::CurrentLevel();
  inference::GRPCInferenceService::AsyncService service_;
  MiniServer server_{service_};
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub_;
  LogSettingsResponse response_;
};

TEST_F(SettingsRpcTest, AnEmptyRequestAnswersTheSettingsAndChangesNothing) {
  ASSERT_TRUE(Call({}).ok());
  EXPECT_EQ(log::CurrentLevel(), log::Level::kInfo);
  const auto& settings = response_.settings();
  EXPECT_EQ(settings.size(), 6u);
  EXPECT_EQ(settings.at("log_verbose_level").uint32_param(), 0u);
  EXPECT_TRUE(settings.at("log_info").bool_param());
  EXPECT_TRUE(settings.at("log_warning").bool_param());
  EXPECT_TRUE(settings.at("log_error").bool_param());
  EXPECT_EQ(settings.at("log_file").string_param(), "");
}

TEST_F(SettingsRpcTest, TheSwitchesStandForTheLevel) {
  EXPECT_EQ(AfterVerbose(3), log::Level::kDebug);
  EXPECT_EQ(response_.settings().at("log_verbose_level").uint32_param(), 1u);
  EXPECT_EQ(AfterVerbose(0), log::Level::kInfo);
  EXPECT_EQ(After("log_info", false), log::Level::kWarning);
  EXPECT_FALSE(response_.settings().at("log_info").bool_param());
  EXPECT_EQ(AfterVerbose(0), log::Level::kWarning);
  EXPECT_EQ(After("log_warning", false), log::Level::kError);
  EXPECT_EQ(After("log_error", true), log::Level::kError);
  EXPECT_EQ(After("log_warning", true), log::Level::kWarning);
  EXPECT_EQ(AfterVerbose(1), log::Level::kDebug);
  EXPECT_EQ(After("log_info", true), log::Level::kDebug);
}

TEST_F(SettingsRpcTest, WhatCannotBeIsRefusedAndChangesNothing) {
  const auto refused = [this](const std::string& name, const auto& set) {
    LogSettingsRequest request;
    (*request.mutable_settings())["log_info"].set_bool_param(false);
    set((*request.mutable_settings())[name]);
    const grpc::Status status = Call(request);
    EXPECT_FALSE(status.ok()) << name;
    EXPECT_EQ(log::CurrentLevel(), log::Level::kInfo) << name;
    return status.error_message();
  };
  EXPECT_THAT(refused("log_error", [](auto& v) { v.set_bool_param(false); }), HasSubstr("errors are always logged"));
  EXPECT_THAT(refused("log_verbose_level", [](auto& v) { v.set_uint32_param(1); }), HasSubstr("contradict"));
  EXPECT_THAT(refused("log_warning", [](auto& v) { v.set_string_param("no"); }), HasSubstr("expect bool_param"));
  EXPECT_THAT(refused("log_verbose_level", [](auto& v) { v.set_bool_param(true); }), HasSubstr("expect uint32_param"));
  EXPECT_THAT(refused("log_file", [](auto& v) { v.set_string_param("/tmp/x"); }), HasSubstr("standard error"));
  EXPECT_THAT(refused("log_format", [](auto& v) { v.set_string_param("ISO8601"); }), HasSubstr("logging.format"));
  EXPECT_THAT(refused("log_colour", [](auto& v) { v.set_bool_param(true); }), HasSubstr("no log setting 'log_colour'"));
}

TEST_F(SettingsRpcTest, TracesAreTheConfigurations) {
  const auto call = [this](const TraceSettingRequest& request, TraceSettingResponse& response) {
    grpc::ClientContext context;
    return stub_->TraceSetting(&context, request, &response);
  };
  TraceSettingRequest request;
  (*request.mutable_settings())["trace_rate"];  // clears it
  (*request.mutable_settings())["trace_level"].add_value("OFF");
  TraceSettingResponse response;
  ASSERT_TRUE(call(request, response).ok());
  EXPECT_EQ(response.settings().at("trace_level").value(0), "OFF");
  EXPECT_EQ(response.settings().size(), 6u);
  (*request.mutable_settings())["trace_level"].set_value(0, "TIMESTAMPS");
  const grpc::Status refused = call(request, response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("`tracing` in the server's configuration"));
}

}  // namespace
}  // namespace hearth

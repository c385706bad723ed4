#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/frontend/otlp_exporter.h"

namespace hearth {
namespace {

using testing::HasSubstr;

TEST(OtlpEndpoint, IsAnAddressWhoseRestGoesWithoutSaying) {
  const auto parse = [](std::string_view url) {
    const auto endpoint = ParseOtlpEndpoint(url);
    return endpoint.ok() ? endpoint->host + " " + endpoint->port + " " + endpoint->target : std::string(endpoint.status().message());
  };
  EXPECT_EQ(parse("http://collector"), "collector 4318 /v1/traces");
  EXPECT_EQ(parse("http://collector:80/"), "collector 80 /v1/traces");
  EXPECT_EQ(parse("http://10.0.0.1:4318/otlp/traces"), "10.0.0.1 4318 /otlp/traces");
  EXPECT_EQ(parse("http://[::1]:4318"), "::1 4318 /v1/traces");
  EXPECT_EQ(parse("http://[::1]"), "::1 4318 /v1/traces");
}

TEST(OtlpEndpoint, IsNothingElse) {
  for (const char* url : {"", "collector:4318", "https://collector", "http://", "http://:4318", "http://collector:port",
                          "http://user@collector", "http://[::1", "http://collector:123456"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseOtlpEndpoint(url).status())) << url;
  }
}

TEST(OtlpJson, WritesWhatIsKnownAndNothingElse) {
  RequestSpan span;
  span.trace = *TraceOf("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  span.model = "a\"b";
  span.begin = WallTime(std::chrono::nanoseconds(1'000'000'007));
  span.total = std::chrono::nanoseconds(5);
  span.code = absl::StatusCode::kNotFound;
  span.message = "no";
  const std::string json = ToOtlpJson(std::vector{span}, {"hearth", "1", "here"});
  EXPECT_THAT(json, HasSubstr(R"("traceId":"0af7651916cd43dd8448eb211c80319c")"));
  EXPECT_THAT(json, HasSubstr(R"("parentSpanId":"b7ad6b7169203331")"));
  EXPECT_THAT(json, HasSubstr(R"("name":"infer a\"b")"));
  EXPECT_THAT(json, HasSubstr(R"("startTimeUnixNano":"1000000007","endTimeUnixNano":"1000000012")"));
  EXPECT_THAT(json, HasSubstr(R"("status":{"code":2,"message":"no"})"));
  EXPECT_THAT(json, testing::Not(HasSubstr("hearth.version")));
  EXPECT_THAT(json, testing::Not(HasSubstr("compute")));
}

}  // namespace
}  // namespace hearth

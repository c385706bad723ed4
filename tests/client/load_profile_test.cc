#include "client/load_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::ordered_json;

LoadProfile Sample() {
  LoadProfile profile{"vad:1", {.weight_bytes = 4096, .copied_bytes = 0, .mapped_bytes = 4096, .cached_bytes = 4096}, {}};
  profile.phases.push_back({.name = "map", .milliseconds = 1, .start_milliseconds = 0, .cpu_milliseconds = 0.5});
  profile.phases.push_back({.name = "parse", .milliseconds = 8, .start_milliseconds = 1, .cpu_milliseconds = 8});
  profile.phases.push_back(
      {.name = "populate", .milliseconds = 1, .start_milliseconds = 9, .bytes = 4096, .minor_faults = 3});
  return profile;
}

TEST(LoadProfile, TheWaterfallPlacesEachPhaseInTime) {
  const std::string text = RenderWaterfall(Sample(), false);
  EXPECT_THAT(text, HasSubstr("vad:1: 10.0 ms"));
  const auto column = [&](const std::string& phase) {
    const std::size_t line = text.find("\n" + phase) + 1;
    return text.find("█", line) - line;
  };
  EXPECT_LT(column("map"), column("parse"));
  EXPECT_LT(column("parse"), column("populate"));
}

TEST(LoadProfile, WhatIsSharedIsSaidWhereSomethingIs) {
  LoadProfile profile = Sample();
  EXPECT_THAT(RenderWaterfall(profile, false), Not(HasSubstr("shared")));
  profile.load.shared_bytes = 2048;
  EXPECT_THAT(RenderWaterfall(profile, false), HasSubstr("; 2.0 KiB shared with other models"));
}

TEST(LoadProfile, NamesTheLongestPhaseAndWhatHelps) {
  LoadProfile profile = Sample();
  EXPECT_THAT(Bottleneck(profile), HasSubstr("80 %, went into compiling the program"));
  EXPECT_THAT(Bottleneck(profile), HasSubstr("cache.kept_programs"));
  profile.phases[2].milliseconds = 100;
  EXPECT_THAT(Bottleneck(profile), HasSubstr("in the page cache"));
  profile.load.cached_bytes = 0;
  EXPECT_THAT(Bottleneck(profile), HasSubstr("from the disk"));
  EXPECT_EQ(Bottleneck({}), "Nothing was measured.");
}

TEST(LoadProfile, TheTraceHasOneCompleteEventPerPhaseInMicroseconds) {
  const Json trace = Json::parse(ToTrace(Sample()));
  std::vector<Json> complete;
  for (const Json& event : trace.at("traceEvents")) {
    if (event.at("ph") == "X") complete.push_back(event);
  }
  ASSERT_EQ(complete.size(), 3u);
  EXPECT_EQ(complete[1].at("name"), "parse");
  EXPECT_EQ(complete[1].at("ts"), 1000.0);
  EXPECT_EQ(complete[1].at("dur"), 8000.0);
}

TEST(LoadProfile, ThePageNeedsNothingElseAndEscapesNames) {
  LoadProfile profile = Sample();
  profile.model = "<script>:1";
  const std::string html = ToHtml(profile);
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;:1"));
  EXPECT_THAT(html, Not(HasSubstr("<script>")));
  EXPECT_THAT(html, Not(HasSubstr("http")));
}

TEST(LoadProfile, ReadsBackWhatHearthdPrints) {
  const auto profile = ParseLoadProfile(
      R"({"model":"m","version":3,"weight_bytes":8,"copied_bytes":4,"mapped_bytes":4,"cached_bytes":2,"shared_bytes":1,)"
      R"("kept_program":true,"phases":[{"name":"map","start_ms":0,"ms":1.5,"cpu_ms":1,"bytes":4,)"
      R"("minor_faults":1,"major_faults":0}]})");
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->model, "m:3");
  EXPECT_EQ(profile->phases.at(0).milliseconds, 1.5);
  EXPECT_TRUE(profile->load.kept_program);
  EXPECT_EQ(profile->load.shared_bytes, 1u);
  for (const char* other : {"", "{}", "[]", R"({"model":1})", "not json"}) {
    EXPECT_EQ(ParseLoadProfile(other).status().code(), absl::StatusCode::kInvalidArgument) << other;
  }
}

}  // namespace
}  // namespace hearth::client

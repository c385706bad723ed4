#include "client/load_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace hearth::client {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
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
  EXPECT_THAT(Bottleneck(profile), HasSubstr("Most of the time, 80 %, went into making the program ready"));
  EXPECT_THAT(Bottleneck(profile), HasSubstr("cache.kept_programs"));
  profile.phases[2].milliseconds = 100;
  EXPECT_THAT(Bottleneck(profile), HasSubstr("in the page cache"));
  profile.load.cached_bytes = 0;
  EXPECT_THAT(Bottleneck(profile), HasSubstr("from the disk"));
  EXPECT_EQ(Bottleneck({}), "Nothing was measured.");
}

TEST(LoadProfile, TheSpeedOfPagesIsThatOfAllTheTimeTheyCame) {
  const LoadProfile profile = {"m:1", {},
                               {{.name = "map", .milliseconds = 1, .start_milliseconds = 1},
                                {.name = "parse", .milliseconds = 400, .start_milliseconds = 2},
                                {.name = "populate", .milliseconds = 600, .start_milliseconds = 402, .bytes = 1 << 30}}};
  EXPECT_THAT(Bottleneck(profile), HasSubstr("1.0 GiB at 1.0 GiB/s"));
}

TEST(LoadProfile, LessThanHalfIsNotMostOfTheTime) {
  LoadProfile profile = Sample();
  profile.phases[0].milliseconds = profile.phases[2].milliseconds = 4;
  EXPECT_THAT(Bottleneck(profile), HasSubstr("The largest part, 50 %, went into"));
  profile.phases[2].milliseconds = 3;
  EXPECT_THAT(Bottleneck(profile), HasSubstr("Most of the time, 53 %, went into"));
}

// The sentence about one phase of 100 ms.
std::string SentenceOf(PhaseStat phase, const LoadStat& load = {}) {
  phase.milliseconds = 100;
  return Bottleneck({"m:1", load, {phase}});
}

TEST(LoadProfile, TheSentenceSaysOnlyWhatTheReportShows) {
  EXPECT_EQ(SentenceOf({.name = "open", .cpu_milliseconds = 90, .major_faults = 2}),
            "Most of the time, 100 %, went into opening the files and checking their structure.");
  EXPECT_THAT(SentenceOf({.name = "open", .cpu_milliseconds = 5, .major_faults = 2}), HasSubstr("waited for the disk"));
  EXPECT_THAT(SentenceOf({.name = "open", .cpu_milliseconds = 5}), AllOf(HasSubstr("waited"), HasSubstr("HDF5")));
  EXPECT_EQ(SentenceOf({.name = "bind", .cpu_milliseconds = 90}),
            "Most of the time, 100 %, went into making tensors of the weights.");
  EXPECT_THAT(SentenceOf({.name = "parse", .cpu_milliseconds = 90}, {.kept_program = true}),
              Not(HasSubstr("cache.kept_programs")));
  EXPECT_THAT(SentenceOf({.name = "read", .bytes = 1 << 20}, {.copied_bytes = 1 << 20}),
              AllOf(HasSubstr("1.0 MiB at 10.0 MiB/s"), HasSubstr("hearth pack")));
  EXPECT_THAT(SentenceOf({.name = "read", .bytes = 1 << 20}), AllOf(HasSubstr("sealed"), Not(HasSubstr("hearth pack"))));
}

TEST(LoadProfile, APhaseOfANewerServerIsShownByItsName) {
  EXPECT_THAT(SentenceOf({.name = "verify", .cpu_milliseconds = 90}),
              AllOf(HasSubstr("comparing the weights with their checksums"), HasSubstr("integrity: background")));
  EXPECT_EQ(SentenceOf({.name = "dream", .cpu_milliseconds = 90}), "Most of the time, 100 %, went into dream.");
}

// bind, which is divided by parse.
LoadProfile Divided() {
  LoadProfile profile{"m:1", {}, {}};
  profile.phases.push_back({.name = "parse", .milliseconds = 4, .start_milliseconds = 3, .parts = {{3, 4}}});
  profile.phases.push_back({.name = "bind", .milliseconds = 6, .start_milliseconds = 0, .parts = {{0, 3}, {7, 3.0000004}}});
  return profile;
}

TEST(LoadProfile, APhaseThatIsDividedIsDrawnWhereItWasAtWork) {
  const std::string text = RenderWaterfall(Divided(), false);
  EXPECT_THAT(text, HasSubstr("m:1: 10.0 ms"));
  const auto bar = [&](const std::string& phase) {
    const std::size_t line = text.find("\n" + phase) + 1;
    const std::size_t end = text.find('\n', line);
    std::string cells;  // one letter for each
    for (std::size_t i = text.find("0  ", line) + 3; i < end; ++i) {
      if (text[i] == ' ') cells += '.';
      if (text.compare(i, 3, "█") == 0) cells += '#';
    }
    return cells.substr(cells.find('#'));
  };
  EXPECT_EQ(bar("parse"), std::string(16, '#'));
  EXPECT_EQ(bar("bind"), std::string(12, '#') + std::string(16, '.') + std::string(12, '#'));
}

TEST(LoadProfile, SlicesOfTheTraceDoNotOverlap) {
  std::vector<std::pair<double, double>> slices;
  const Json trace = Json::parse(ToTrace(Divided()));
  for (const Json& event : trace.at("traceEvents")) {
    if (event.at("ph") != "X") continue;
    slices.emplace_back(event.at("ts"), event.at("ts").get<double>() + event.at("dur").get<double>());
  }
  std::sort(slices.begin(), slices.end());
  EXPECT_THAT(slices, ElementsAre(Pair(0, 3000), Pair(3000, 7000), Pair(7000, 10000)));
}

TEST(LoadProfile, TheTraceHasOneCompleteEventPerPartInMicroseconds) {
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

TEST(LoadProfile, ThePageHasATimeAxisAndFitsNarrowScreens) {
  const std::string html = ToHtml(Divided());
  EXPECT_THAT(html, HasSubstr("name=\"viewport\""));
  EXPECT_THAT(html, HasSubstr("@media(max-width"));
  EXPECT_THAT(html, HasSubstr(">start<"));
  for (const char* tick : {">0<", ">2.0 ms<", ">4.0 ms<", ">6.0 ms<", ">8.0 ms<"}) EXPECT_THAT(html, HasSubstr(tick));
  EXPECT_THAT(html, HasSubstr("left:0.000%;width:30.000%"));
  EXPECT_THAT(html, HasSubstr("left:70.000%;width:30.000%"));
}

TEST(LoadProfile, ReadsBackWhatHearthdPrints) {
  const auto profile = ParseLoadProfile(
      R"({"model":"m","version":3,"weight_bytes":8,"copied_bytes":4,"mapped_bytes":4,"cached_bytes":2,"shared_bytes":1,)"
      R"("kept_program":true,"phases":[{"name":"map","start_ms":0,"ms":1.5,"cpu_ms":1,"bytes":4,)"
      R"("minor_faults":1,"major_faults":0,"parts":[{"start_ms":0,"ms":1},{"start_ms":2,"ms":0.5}]},)"
      R"({"name":"parse","start_ms":1,"ms":1,"cpu_ms":1,"bytes":0,"minor_faults":1,"major_faults":0}]})");
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->model, "m:3");
  EXPECT_EQ(profile->phases.at(0).milliseconds, 1.5);
  ASSERT_EQ(profile->phases.at(0).parts.size(), 2u);
  EXPECT_EQ(profile->phases.at(0).parts.at(1).start_milliseconds, 2);
  EXPECT_TRUE(profile->phases.at(1).parts.empty());  // of an older hearthd
  EXPECT_EQ(PartsOf(profile->phases.at(1)).at(0).start_milliseconds, 1);
  EXPECT_TRUE(profile->load.kept_program);
  EXPECT_EQ(profile->load.shared_bytes, 1u);
  for (const char* other : {"", "{}", "[]", R"({"model":1})", "not json"}) {
    EXPECT_EQ(ParseLoadProfile(other).status().code(), absl::StatusCode::kInvalidArgument) << other;
  }
}

}  // namespace
}  // namespace hearth::client

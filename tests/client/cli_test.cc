// The real `hearth` against a server in this process: what it prints where, and how it exits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <regex>

#include "client/npy.h"
#include "client/tensor.h"
#include "nlohmann/json.hpp"
#include "tests/client/fake_server.h"
#include "tests/client/fixtures.h"
#include "tests/client/process.h"

namespace hearth::client {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class Cli : public testing::Test {
 protected:
  Outcome Run(const std::vector<std::string>& arguments) {
    return RunHearth(arguments, {"HEARTH_ADDRESS=" + server_.address()});
  }
  nlohmann::json RunJson(std::vector<std::string> arguments) {
    arguments.push_back("--json");
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.err, "");
    const auto json = nlohmann::json::parse(outcome.out, nullptr, /*allow_exceptions=*/false);
    EXPECT_TRUE(json.is_object()) << outcome.out;
    return json;
  }

  FakeServer server_{{.reason = "not a zip\narchive \x1b[31m"}};
};

void ExpectOneSentence(const std::string& text) {
  EXPECT_THAT(text, StartsWith("hearth: "));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  EXPECT_EQ(text.back(), '\n');
}

TEST_F(Cli, InferPrintsOutputsForPeople) {
  const Outcome outcome = Run({"infer", "echo", "--input", "x=[[1,2],[3,4.5]]", "--input", "sr=16000",
                               "-i", "text=good morning"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(outcome.out,
            "x  FP32 [2, 2]\n[[1, 2],\n [3, 4.5]]\n"
            "sr  INT64 [1]\n[16000]\n"
            "text  BYTES [1]\n[\"good morning\"]\n");
}

TEST_F(Cli, InferTakesTypesFromTheModelAndFromTheCommandLine) {
  EXPECT_EQ(Run({"infer", "echo:3", "--input", "x=[[1]]", "--input", "any:UINT8[2]=[1,2]", "--id", "me",
                 "--output", "x"}).code, 0);
  const inference::ModelInferRequest sent = server_.last_request();
  EXPECT_EQ(sent.model_version(), "3");
  EXPECT_EQ(sent.id(), "me");
  EXPECT_EQ(sent.inputs(0).datatype(), "FP32");
  EXPECT_EQ(sent.inputs(1).datatype(), "UINT8");
  ASSERT_EQ(sent.outputs_size(), 1);
  EXPECT_EQ(sent.outputs(0).name(), "x");
}

TEST_F(Cli, InferPrintsJsonInTheProtocolsWords) {
  const auto json = RunJson({"infer", "echo", "--input", "x=[[0.1, nan]]"});
  EXPECT_EQ(json["model_name"], "echo");
  EXPECT_EQ(json["model_version"], "3");
  EXPECT_EQ(json["outputs"].dump(),
            R"([{"data":[0.1,"NaN"],"datatype":"FP32","name":"x","shape":[1,2]}])");
}

TEST_F(Cli, InferReadsFilesAndSavesOutputs) {
  const TempDir folder;
  const std::string saved = folder.Path("out.npy");
  const Outcome outcome = Run({"infer", "echo", "--input", "x=@" + FixturePath("stereo16.wav") + ":16000",
                               "--input", "any=@" + FixturePath("f8.npy"), "--save", "any=@" + saved});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("x  FP32 [1, 2]"));
  EXPECT_EQ(*ReadFile(saved), Fixture("f8.npy"));
}

TEST_F(Cli, InferResamplesARealRecording) {
  const std::string recording = "/usr/share/sounds/alsa/Front_Center.wav";
  if (!std::filesystem::exists(recording)) GTEST_SKIP() << "alsa-utils is not installed";
  EXPECT_EQ(Run({"infer", "echo", "--input", "x=@" + recording + ":16000"}).code, 0);
  const inference::ModelInferRequest sent = server_.last_request();
  const std::int64_t samples = sent.inputs(0).shape(1);
  EXPECT_NEAR(static_cast<double>(samples), 68545 / 3.0, 2);
  EXPECT_EQ(sent.raw_input_contents(0).size(), static_cast<std::size_t>(samples) * 4);
}

TEST_F(Cli, InferNamesWhatIsWrongWithTheCommandLine) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"infer"}, "MODEL is required"},
      {{"infer", "echo", "--input", "x"}, "write NAME=VALUE"},
      {{"infer", "echo", "--input", "x=[1,"}, "is not a value"},
      {{"infer", "echo", "--input", "x=@/no/such.npy"}, "cannot read /no/such.npy"},
      {{"infer", "echo", "--input", "x=@" + FixturePath("f8.npy")}, "write x:FP32=@"},
      {{"infer", "echo", "--save", "y"}, "OUTPUT=@FILE.npy"},
      {{"infer", "echo", "--bogus"}, "--bogus"},
      {{"bogus"}, "bogus"},
      {{}, "no command was given"},
      {{"ps", "extra"}, "extra"},
      {{"ps", "--timeout", "soon"}, "'soon' is no duration"},
      {{"health", "--live", "--ready"}, "excludes"}};
  for (const auto& [arguments, words] : cases) {
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, 2) << words;
    EXPECT_EQ(outcome.out, "") << words;
    EXPECT_THAT(outcome.err, HasSubstr(words));
    ExpectOneSentence(outcome.err);
  }
}

TEST_F(Cli, TheServersRefusalIsOneSentenceAndExitCodeOne) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"infer", "missing", "--input", "x=1"},
                                             {"load", "missing"},
                                             {"unload", "missing", "--json"},
                                             {"metadata", "missing"}}) {
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, 1) << arguments[0];
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.err, StartsWith("hearth: Request for unknown model: 'missing' is not found"));
    EXPECT_THAT(outcome.err, EndsWith(" (NOT_FOUND)\n"));
    ExpectOneSentence(outcome.err);
  }
}

TEST_F(Cli, AModelThatIsNotFoundMayBeNewAndTheMessageSaysWhatToDo) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"infer", "missing", "--input", "x=1"},
                                             {"infer", "missing:2", "--input", "x:INT8[1]=1"},
                                             {"metadata", "missing"},
                                             {"stats", "missing", "--json"},
                                             {"health", "missing"},
                                             {"health", "missing:2"}}) {
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.code, 1) << arguments[0];
    EXPECT_EQ(outcome.out, "") << arguments[0];
    EXPECT_THAT(outcome.err, HasSubstr("run 'hearth load missing' or 'hearth reload' (NOT_FOUND)"));
    ExpectOneSentence(outcome.err);
  }
}

TEST_F(Cli, AModelIsNamedByANameAndANumberOrALabel) {
  for (const char* command : {"infer", "metadata", "health"}) {
    for (const char* model : {"echo:1x", "echo:", ":3", "echo:-1"}) {
      const Outcome outcome = Run({command, model});
      EXPECT_EQ(outcome.code, 2) << command << " " << model;
      EXPECT_THAT(outcome.err, HasSubstr("write NAME, or NAME:VERSION"));
    }
  }
}

TEST_F(Cli, LoadAndUnloadTakeNoVersionAndDoNothingWhenTheyGetOne) {
  for (const std::string command : {"load", "unload"}) {
    const Outcome outcome = Run({command, "echo", "echo:1"});
    EXPECT_EQ(outcome.code, 2);
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("'echo:1': " + command + " takes no version"),
                                   HasSubstr("write 'hearth " + command + " echo'")));
    ExpectOneSentence(outcome.err);
  }
}

TEST_F(Cli, OneModelThatFailsDoesNotKeepTheOthersFromBeingLoaded) {
  const Outcome outcome = Run({"load", "missing", "echo"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, StartsWith("echo is ready, after "));
  EXPECT_THAT(outcome.err, HasSubstr("'missing'"));
  const Outcome json = Run({"load", "missing", "echo", "gone", "--json"});
  EXPECT_EQ(json.code, 1);
  EXPECT_EQ(nlohmann::json::parse(json.out)["models"].size(), 1U);
  EXPECT_EQ(std::count(json.err.begin(), json.err.end(), '\n'), 2) << json.err;
}

TEST_F(Cli, AnErrorOfSeveralLinesIsPrintedOnSeveral) {
  EXPECT_EQ(Run({"infer", "verbose"}).err,
            "hearth: first line\n        hearth: forged (INVALID_ARGUMENT)\n");
}

TEST_F(Cli, ASaveThatTheModelDoesNotFillIsTheCommandLinesMistake) {
  const Outcome outcome = Run({"infer", "echo", "--input", "x=[[1]]", "--save", "y=@/dev/null"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, HasSubstr("no output 'y' to save; the model has 'x'"));
}

TEST_F(Cli, ASaveThatTheModelDoesNotListIsRefusedBeforeItRuns) {
  const Outcome outcome = Run({"infer", "listed", "--input", "x=1", "--save", "y=@/dev/null"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("no output 'y' to save; the model has 'z'"));
  EXPECT_EQ(server_.last_request().model_name(), "");
}

TEST_F(Cli, AFileThatCannotBeWrittenIsNamedBeforeTheModelRuns) {
  const TempDir folder;
  for (const std::string& path : {folder.Path("no/such/folder.npy"), folder.Path(""),
                                  std::string("/dev/null/o.npy")}) {
    const Outcome outcome = Run({"infer", "echo", "--input", "x=[[1]]", "--save", "x=@" + path});
    EXPECT_EQ(outcome.code, 2) << path;
    EXPECT_THAT(outcome.err, HasSubstr("cannot write " + path));
    ExpectOneSentence(outcome.err);
  }
  EXPECT_EQ(server_.last_request().model_name(), "");
}

TEST_F(Cli, PsListsWhatIsResident) {
  const Outcome outcome = Run({"ps"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "MODEL   VERSION  STATE   DEVICE     HOST               MAPPED  IN USE  PIN  HITS  LAST USED     LOAD"
            "  ERROR\n"
            "broken        1  failed       0        0                    0       0  -       0  never            -"
            "  not a zip archive\n"
            "echo          3  ready        0  1.5 KiB  2.0 GiB of 64.0 GiB       2  yes    41  2h ago     42.0 ms\n");
  const auto json = RunJson({"ps"});
  EXPECT_EQ(json["models"][1]["bytes"]["mapped"], std::uint64_t{2} << 30);
  EXPECT_EQ(json["models"][1]["bytes"]["window"], std::uint64_t{2} << 30);
  EXPECT_EQ(json["models"][1]["load_phases"]["parse"], 40.5);  // it was sent with noise at its end
  EXPECT_EQ(json["models"][1]["load_milliseconds"], 42.0);
  EXPECT_THAT(json["models"][1]["last_used"].get<std::string>(),
              testing::MatchesRegex("20..-..-..T..:..:..Z"));
  EXPECT_TRUE(json["models"][0]["last_used"].is_null());
}

TEST_F(Cli, ModelsListsTheRepositoryAndDisarmsItsText) {
  const Outcome outcome = Run({"models"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "MODEL   VERSION  STATE        REASON\n"
            "broken  1        UNAVAILABLE  not a zip\n"
            "                              archive \\x1b[31m\n"
            "echo    3        READY\n"
            "other   -        not loaded\n");
  EXPECT_EQ(RunJson({"models"})["models"].size(), 3U);
  EXPECT_EQ(RunJson({"models", "--ready"})["models"].size(), 1U);
}

TEST_F(Cli, LoadAndUnloadSayWhatTheyDid) {
  const Outcome loaded = Run({"load", "echo"});
  EXPECT_EQ(loaded.code, 0) << loaded.err;
  EXPECT_THAT(loaded.out, StartsWith("echo is ready, after "));
  EXPECT_THAT(Run({"unload", "echo"}).out, StartsWith("echo is unloaded, after "));
  EXPECT_EQ(RunJson({"load", "echo"})["models"][0]["state"], "READY");
}

TEST_F(Cli, StatusShowsServerAndBudgets) {
  const Outcome outcome = Run({"status"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "fake 1.2.3 at " + server_.address() +
                             ": ready\n"
                             "up 3h 07m, models resident: 1, requests in flight: 2\n\n"
                             "MEMORY     USED       OF  RESIDENT  LOADING  UNLOADING\n"
                             "mapped  3.0 GiB  8.0 GiB   2.0 GiB  1.0 GiB          0\n");
  const auto json = RunJson({"status"});
  EXPECT_EQ(json["uptime_seconds"], 11220);
  EXPECT_EQ(json["resident_models"], 1);
  EXPECT_EQ(json["budgets"][0]["loading_bytes"], std::uint64_t{1} << 30);
}

TEST_F(Cli, EveryDeviceIsShownInPlaceOfTheirSum) {
  FakeServer server({.with_devices = true});
  const auto run = [&](const std::string& command) { return RunHearth({command, "--address", server.address()}).out; };
  EXPECT_THAT(run("ps"), HasSubstr("3.0 GiB on cuda:1"));
  EXPECT_THAT(run("top"), HasSubstr("cuda:0 0 of 12.0 GiB, cuda:1 0 of 12.0 GiB (1.0 GiB lost), mapped "));
  EXPECT_THAT(run("status"), HasSubstr("MEMORY     USED        OF  RESIDENT  LOADING  UNLOADING     LOST\n"
                                       "cuda:0        0  12.0 GiB         0        0          0        0\n"
                                       "cuda:1        0  12.0 GiB         0        0          0  1.0 GiB\n"
                                       "mapped  3.0 GiB   8.0 GiB   2.0 GiB  1.0 GiB          0        0\n"));
  const auto status = nlohmann::json::parse(RunHearth({"status", "--json", "--address", server.address()}).out);
  EXPECT_EQ(status["budgets"].size(), 2u) << "the sum is here for those who know no devices";
  EXPECT_EQ(status["devices"][1]["device"], "cuda:1");
  EXPECT_EQ(status["devices"][1]["lost_bytes"], std::uint64_t{1} << 30);
  const auto ps = nlohmann::json::parse(RunHearth({"ps", "--json", "--address", server.address()}).out);
  EXPECT_TRUE(ps["models"][0]["device"].is_null());
  EXPECT_EQ(ps["models"][1]["device"], "cuda:1");
}

TEST_F(Cli, StatsShowsRequestsByModel) {
  EXPECT_EQ(Run({"stats", "echo"}).out,
            "MODEL  VERSION  SUCCEEDED  FAILED  MEAN REQUEST  MEAN INFER  HITS\n"
            "echo         3         42       1       12.3 ms      800 us    41\n");
  EXPECT_EQ(RunJson({"stats"})["models"][1]["requests_failed"], 1);
  EXPECT_EQ(Run({"stats", "other"}).out, "other is not resident\n");
}

TEST_F(Cli, TopPrintsOneTableWhereThereIsNoTerminal) {
  const Outcome outcome = Run({"top"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "fake 1.2.3 at " + server_.address() +
                             ": ready, up 3h 07m, requests in flight: 2\n"
                             "mapped 3.0 GiB of 8.0 GiB\n\n"
                             "MODEL   VERSION  STATE   DEVICE     HOST   MAPPED  IN USE  PIN  REQ/S     MEAN  LAST USED\n"
                             "echo          3  ready        0  1.5 KiB  2.0 GiB       2  yes      -  12.3 ms  2h ago\n"
                             "broken        1  failed       0        0        0       0  -        -        -  never\n");
  EXPECT_EQ(RunJson({"top"})["models"].size(), 2U);
  EXPECT_EQ(Run({"top", "--every", "often"}).code, 2);
}

TEST_F(Cli, TopIsDrawnAgainAndAgainOnATerminal) {
  TerminalRun run({"top", "--every", "10ms"}, {"TERM=xterm", "HEARTH_ADDRESS=" + server_.address()});
  EXPECT_TRUE(run.WaitFor("\x1b[H\x1b[2J"));
  EXPECT_TRUE(run.WaitFor("0.0")) << "requests a second, from the second time on";
}

TEST_F(Cli, WhyTellsTheSentenceAndTheTimesOfDay) {
  const Outcome outcome = Run({"why", "echo"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, testing::MatchesRegex(
                               "echo:3 is not resident: evicted 5m ago .[0-9:]+. for other:1: 1 GiB needed\n"
                               "failed [0-9:]+ after 3ms: no .x1b.31m archive .INVALID_ARGUMENT.\n"))
      << "each event once, and nothing that the terminal would obey";
  const auto json = RunJson({"why", "echo:3"});
  EXPECT_EQ(json["last_eviction"]["cause"]["model"], "other");
  EXPECT_EQ(json["last_failure"]["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(json["evictions"], 2);
  EXPECT_EQ(Run({"why", "missing"}).code, 1);
  EXPECT_EQ(Run({"why", "echo:1x"}).code, 2);
}

TEST_F(Cli, EventsListsTheJournalAndWhatWasLostOfIt) {
  const Outcome outcome = Run({"events"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, testing::MatchesRegex(
                               ".7 events had left the server's journal before they could be sent.\n"
                               "[0-9:]+  echo:3 failed after 3ms: no .x1b.31m archive .INVALID_ARGUMENT.\n"
                               "[0-9:]+  echo:3 evicted for other:1: 1 GiB needed\n"));
  EXPECT_EQ(Run({"events", "other"}).out, "nothing has happened yet\n");
  EXPECT_EQ(Run({"events", "missing"}).code, 1);
  EXPECT_EQ(Run({"events", "echo:3"}).code, 2);
  const Outcome lines = Run({"events", "echo", "--json"});
  EXPECT_EQ(std::count(lines.out.begin(), lines.out.end(), '\n'), 3) << "an object a line: " << lines.out;
  const std::string last = lines.out.substr(lines.out.rfind('\n', lines.out.size() - 2) + 1);
  EXPECT_EQ(nlohmann::json::parse(last)["bytes"]["mapped"], 1024);
}

TEST_F(Cli, FollowingEventsEndsWithTheServer) {
  const Outcome outcome = Run({"events", "--follow"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, HasSubstr("echo:3 evicted"));
  EXPECT_EQ(outcome.err, "hearth: Server exiting (UNAVAILABLE)\n");
}

TEST_F(Cli, PrefetchPinUnpinAndEvictSayWhatBecameOfEachModel) {
  EXPECT_EQ(Run({"prefetch", "echo", "other"}).out, "echo is resident already\nother is being loaded\n");
  EXPECT_EQ(Run({"pin", "echo:2"}).out, "echo:2 is pinned, version 2\n");
  EXPECT_EQ(Run({"unpin", "echo"}).out, "echo is not pinned, version 3\n");
  const Outcome evicted = Run({"evict", "echo", "other"});
  EXPECT_EQ(evicted.code, 1) << "the first one is in use";
  EXPECT_EQ(evicted.err, "hearth: model 'echo' version 3 is in use (FAILED_PRECONDITION)\n");
  EXPECT_EQ(evicted.out, "other was not resident\n");
  EXPECT_EQ(RunJson({"pin", "echo"})["models"][0]["state"], "pinned");
  EXPECT_EQ(Run({"evict", "echo:1x"}).code, 2);
}

TEST_F(Cli, PlanSaysWhatMoreMemoryWouldSpareAndLeavesOutWhatAddsLittle) {
  const Outcome outcome = Run({"plan"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "Requests waited for 20.0 loads of late, 40.00 s in all; a load counts half after 1h 00m.\n"
            "The first load of a model is spared by no memory.\n\n"
            "host memory, 1.0 GiB: not short of late; more would spare nothing\n\n"
            "mapped memory, 1.0 GiB: with 3.0 GiB more, requests would have waited for 45 % fewer loads and 68 % less "
            "time\n"
            "   MORE   IN ALL  LOADS SPARED        TIME SPARED\n"
            "1.0 GiB  2.0 GiB           4.0  20 %      12.00 s  30 %\n"
            "3.0 GiB  4.0 GiB           9.0  45 %      27.00 s  68 %\n"
            "8.0 GiB  9.0 GiB          10.0  50 %      30.00 s  75 %\n");
  EXPECT_EQ(RunJson({"plan"})["memory"][1]["points"][3]["more_bytes"], 8ULL << 30);
}

TEST_F(Cli, MetadataShowsInputs) {
  const Outcome outcome = Run({"metadata", "echo"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "MODEL      echo\n"
            "platform   pytorch_libtorch\n"
            "versions   1, 3\n"
            "residency  mapped\n\n"
            "TENSOR  NAME  TYPE   SHAPE\n"
            "input   x     FP32   [-1, -1]\n"
            "input   sr    INT64  [1]\n"
            "input   text  BYTES  [-1]\n"
            "input   any   any    -\n");
  EXPECT_EQ(RunJson({"metadata", "echo"})["inputs"][3]["datatype"], "");
}

TEST_F(Cli, HealthAnswersByExitCode) {
  for (const char* flag : {"--ready", "--live", "echo", "echo:3"}) {
    EXPECT_EQ(Run({"health", flag}).code, 0) << flag;
  }
  EXPECT_EQ(Run({"health"}).out, "serving\n");
  EXPECT_EQ(RunJson({"health", "--ready"})["ready"], true);
  const Outcome cold = Run({"health", "other"});
  EXPECT_EQ(cold.code, 1);
  EXPECT_EQ(cold.out, "not ready\n");
  const Outcome version = Run({"health", "echo:9"});
  EXPECT_EQ(version.code, 1);
  EXPECT_EQ(version.out, "");
  EXPECT_THAT(version.err, HasSubstr("the repository has no version 9 of the model 'echo'"));
}

TEST(CliHealth, IsOneWhenTheServerIsNotReady) {
  FakeServer server({.ready = false});
  const std::string address = "--address=" + server.address();
  EXPECT_EQ(RunHearth({"health", address}).code, 1);
  EXPECT_EQ(RunHearth({"health", "--ready", address}).code, 1);
  EXPECT_EQ(RunHearth({"health", "--live", address}).code, 0);
  EXPECT_THAT(RunHearth({"status", address}).out, HasSubstr("not ready"));
}

TEST(CliUnreachable, IsSixtyNineExceptForHealth) {
  std::string address;
  {
    FakeServer server;
    address = server.address();
  }
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"ps"}, {"models"}, {"status"}, {"stats"}, {"load", "m"}, {"infer", "m", "--input", "x=1"}}) {
    std::vector<std::string> all = {"--address", address};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Outcome outcome = RunHearth(all);
    EXPECT_EQ(outcome.code, 69) << arguments[0];
    EXPECT_EQ(outcome.out, "");
    EXPECT_EQ(outcome.err, "hearth: no server answers at " + address + ": is hearthd running there?\n");
  }
  EXPECT_EQ(RunHearth({"health", "--address", address}).code, 1);
}

TEST_F(Cli, ATimeoutIsSeventyFive) {
  const Outcome outcome = Run({"load", "stuck", "--timeout", "600ms"});
  EXPECT_EQ(outcome.code, 75);
  EXPECT_THAT(outcome.err, HasSubstr("DEADLINE_EXCEEDED"));
  ExpectOneSentence(outcome.err);  // and so no spinner, which would have begun by then
}

TEST_F(Cli, AResultThatCannotBeWrittenIsAFailure) {
  const Outcome outcome = Run({"infer", "echo", "--input", "x=[[1]]", "--save", "x=@/dev/full"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("cannot write"));
}

TEST_F(Cli, ReloadShowsWhatChangedAndWithDryRunWhatWould) {
  const Outcome outcome = Run({"reload"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "KEY                BEFORE  AFTER  EFFECT\n"
            "cache.budget.host  50%     4GiB   applied\n"
            "grpc.port          8001    9001   needs a restart\n"
            "1 GiB is in use.\n");
  EXPECT_THAT(Run({"reload", "--dry-run"}).out, HasSubstr("4GiB   would be applied\n"));
  const auto json = RunJson({"reload"});
  EXPECT_EQ(json["changes"][1]["key"], "grpc.port");
  EXPECT_EQ(json["changes"][1]["needs_restart"], true);
  EXPECT_EQ(json["notes"][0], "1 GiB is in use.");
}

TEST(CliBadConfig, ReloadSaysEveryMistakeOnALineOfItsOwn) {
  FakeServer server({.bad_config = true});
  const Outcome outcome = RunHearth({"reload", "--address", server.address()});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, HasSubstr("f:1:1: unknown key\n"));
  EXPECT_THAT(outcome.err, HasSubstr("f:2:1: unknown key"));
}

TEST(CliPlainServer, StatusMakesDoWithWhatTheProtocolHas) {
  FakeServer server({.with_cache = false});
  const std::string address = "--address=" + server.address();
  EXPECT_EQ(RunHearth({"status", address}).out, "fake 1.2.3 at " + server.address() + ": ready\n");
  EXPECT_EQ(RunHearth({"ps", address}).code, 1);
}

TEST(CliHelp, GoesToStandardOutputAndNamesTheExitCodes) {
  const Outcome outcome = RunHearth({"--help"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, "");
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("Exit codes:"), HasSubstr("69"), HasSubstr("HEARTH_ADDRESS"),
                                 HasSubstr("infer")));
  EXPECT_THAT(RunHearth({"infer", "--help"}).out, HasSubstr("@speech.wav:16000"));
  EXPECT_THAT(RunHearth({"--version"}).out, testing::MatchesRegex("hearth [0-9.]+\n"));
}

TEST(CliPack, HandsItsWholeCommandLineToHearthPack) {
  const TempDir folder;
  const std::string program = folder.Path("hearth-pack");
  ASSERT_TRUE(WriteFile(program, "#!/bin/sh\nfor word; do echo \"<$word>\"; done\nexit 5\n").ok());
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  const Outcome outcome = RunHearth({"pack", "nets:make", "--help", "--json", "-t", "a b", "--", "--version"},
                                    {"PATH=" + folder.Path("")});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_EQ(outcome.out, "<nets:make>\n<--help>\n<--json>\n<-t>\n<a b>\n<-->\n<--version>\n");
}

TEST(CliPack, SaysHowToInstallHearthPackWhereItIsNot) {
  const TempDir folder;
  const Outcome outcome = RunHearth({"pack", "model.pt"}, {"PATH=" + folder.Path("")});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("pip install client/python"));
  ExpectOneSentence(outcome.err);
}

TEST(CliTrust, AFileThatIsNoGoodIsAMistakeOfTheCommandLineAndItsTextIsNotRepeated) {
  const TempDir folder;
  const std::string empty = folder.Path("empty"), broken = folder.Path("broken");
  ASSERT_TRUE(WriteFile(empty, "# nothing\n\n").ok());
  ASSERT_TRUE(WriteFile(broken, "to\x01ken\n").ok());
  for (const std::vector<std::string>& options : std::vector<std::vector<std::string>>{
           {"--token-file", empty}, {"--token-file", broken}, {"--token-file", folder.Path("absent")},
           {"--ca", folder.Path("absent")}, {"--key", empty}}) {
    std::vector<std::string> arguments = {"models"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    const Outcome outcome = RunHearth(arguments);
    EXPECT_EQ(outcome.code, 2) << options[0] << ' ' << options[1];
    EXPECT_THAT(outcome.err, Not(testing::AnyOf(HasSubstr("\x01"), HasSubstr("nothing"))));
    ExpectOneSentence(outcome.err);
  }
}

TEST(CliCompletion, OffersEveryCommandAndOption) {
  const std::string completion =
      *ReadFile(std::string(HEARTH_SOURCE_DIR) + "/client/hearth.bash-completion");
  const auto offers = [&](const std::string& help, const std::string& pattern) {
    int found = 0;
    const std::regex regex(pattern);
    for (std::sregex_iterator i(help.begin(), help.end(), regex), end; i != end; ++i, ++found) {
      EXPECT_THAT(completion, testing::ContainsRegex("[ \"]" + (*i)[1].str() + "[ \"]"));
    }
    return found;
  };
  const std::string help = RunHearth({"--help"}).out;
  const std::string commands = help.substr(help.find("Subcommands:"), help.find("Environment:"));
  EXPECT_EQ(offers(commands.substr(0, commands.find("\n\n")), "\n  ([a-z]+) "), 21);
  EXPECT_GE(offers(help, "[ ,](--[a-z-]+)"), 10);
  for (const char* command : {"infer", "models", "health", "top", "events"}) {
    EXPECT_GE(offers(RunHearth({command, "--help"}).out, "\n  [-a-z]*,?(--[a-z-]+)"), 2) << command;
  }
}

TEST_F(Cli, ATerminalSeesASpinnerWhileALoadRuns) {
  TerminalRun run({"load", "stuck"}, {"TERM=xterm", "HEARTH_ADDRESS=" + server_.address()});
  EXPECT_TRUE(run.WaitFor("loading stuck"));
  server_.Release();
  EXPECT_EQ(run.Finish(), 0) << run.shown();
  EXPECT_THAT(run.shown(), HasSubstr("\r\x1b[K"));
  EXPECT_THAT(run.shown(), HasSubstr("is ready, after"));
}

TEST_F(Cli, ATerminalSeesColoursUnlessItObjects) {
  const std::string address = "HEARTH_ADDRESS=" + server_.address();
  TerminalRun colorful({"models"}, {"TERM=xterm", address});
  EXPECT_EQ(colorful.Finish(), 0);
  EXPECT_THAT(colorful.shown(), HasSubstr("\x1b[32mREADY\x1b[0m"));
  const std::vector<std::vector<std::string>> objections = {{"TERM=xterm", "NO_COLOR=1"}, {"TERM=dumb"}, {}};
  for (std::vector<std::string> environment : objections) {
    environment.push_back(address);
    TerminalRun plain({"models"}, environment);
    EXPECT_EQ(plain.Finish(), 0);
    EXPECT_THAT(plain.shown(), HasSubstr("READY"));
    EXPECT_THAT(plain.shown(), Not(HasSubstr("\x1b[")));
  }
}

TEST(CliWait, FindsAServerThatStartsLateAndGivesUpOnOneThatDoesNot) {
  std::string address;
  {
    FakeServer gone;
    address = gone.address();
  }
  EXPECT_EQ(RunHearth({"ps", "--wait", "200ms", "--address", address}).code, 69);
  TerminalRun waiting({"health", "--wait", "1m", "--address", address});
  FakeServer late({.address = address});
  EXPECT_EQ(waiting.Finish(), 0) << waiting.shown();
}

}  // namespace
}  // namespace hearth::client

#include "server/config/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Action = CommandLine::Action;

CommandLine Good(const std::vector<std::string>& arguments, const Environment& environment = {}) {
  auto line = ParseCommandLine(arguments, environment);
  EXPECT_TRUE(line.ok()) << line.status();
  return line.ok() ? *std::move(line) : CommandLine();
}

std::string Refusal(const std::vector<std::string>& arguments) {
  const auto line = ParseCommandLine(arguments, {});
  EXPECT_EQ(line.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(line.status().message());
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  return message;
}

ServerConfig Configured(const std::vector<std::string>& arguments) {
  const auto config = LoadServerConfig("", Good(arguments).settings, {});
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : ServerConfig();
}

TEST(CommandLine, WithoutArgumentsServesTheDefaults) {
  const CommandLine line = Good({});
  EXPECT_EQ(line.action, Action::kServe);
  EXPECT_EQ(line.config_file, "");
  EXPECT_TRUE(line.settings.empty());
}

TEST(CommandLine, FindsItsFileByFlagElseByVariable) {
  const Environment environment = {{"HEARTH_CONFIG", "/etc/hearth.yaml"}};
  EXPECT_EQ(Good({}, environment).config_file, "/etc/hearth.yaml");
  EXPECT_EQ(Good({"--config", "a.yaml"}, environment).config_file, "a.yaml");
  EXPECT_EQ(Good({"-c", "a.yaml"}).config_file, "a.yaml");
  EXPECT_EQ(Good({"--config=b.yaml"}).config_file, "b.yaml");
}

TEST(CommandLine, KnowsItsActions) {
  EXPECT_EQ(Good({"--check-config"}).action, Action::kCheckConfig);
  EXPECT_EQ(Good({"--print-config"}).action, Action::kPrintConfig);
  EXPECT_EQ(Good({"--version"}).action, Action::kVersion);
  EXPECT_EQ(Good({"-h"}).action, Action::kHelp);
  const CommandLine help = Good({"--help", "--config", "x"});
  EXPECT_EQ(help.action, Action::kHelp);
  for (const char* flag : {"--config", "--check-config", "--print-config", "--set", "--version",
                           "--model-repository", "--grpc-port", "--http-port", "--log-level"}) {
    EXPECT_THAT(help.help, HasSubstr(flag));
  }
  EXPECT_THAT(Refusal({"--check-config", "--print-config"}), HasSubstr("exclude each other"));
}

TEST(CommandLine, SetsAnyKey) {
  const CommandLine line = Good({"--set", "cache.budget.host=4GiB", "--set=server.name=a=b, c"});
  ASSERT_EQ(line.settings.size(), 2u);
  EXPECT_EQ(line.settings[0].path, "cache.budget.host");
  EXPECT_EQ(line.settings[0].value, "4GiB");
  EXPECT_EQ(line.settings[0].origin, "--set cache.budget.host");
  EXPECT_EQ(line.settings[1].value, "a=b, c");
}

TEST(CommandLine, HasShortSpellingsForTheCommonKeys) {
  const ServerConfig config =
      Configured({"--model-repository", "/a b", "--grpc-port", "1", "--http-port=0", "--log-level",
                  "debug", "--model-repository", "[c]"});
  EXPECT_THAT(config.repository.roots, ElementsAre("/a b", "[c]"));
  EXPECT_EQ(config.grpc.port, 1);
  EXPECT_EQ(config.http.port, 0);
  EXPECT_EQ(config.logging.level, log::Level::kDebug);
}

TEST(CommandLine, LetsTheLastSpellingWin) {
  EXPECT_EQ(Configured({"--set", "grpc.port=1", "--grpc-port", "2"}).grpc.port, 2);
  EXPECT_EQ(Configured({"--grpc-port", "2", "--set", "grpc.port=1"}).grpc.port, 1);
  EXPECT_EQ(Configured({"--grpc-port", "2", "--set", "grpc.port=1", "--grpc-port", "3"}).grpc.port,
            3);
}

TEST(CommandLine, NamesTheFlagInMistakesOfTheConfiguration) {
  const auto config = LoadServerConfig("", Good({"--grpc-port", "x"}).settings, {});
  EXPECT_EQ(std::string(config.status().message()),
            "--grpc-port: key 'grpc.port': 'x' is not a whole number");
}

TEST(CommandLine, CollectsEverySettingThatIsNone) {
  const CommandLine line = Good({"--set", "port", "--set", "grpc.port=1", "--set", "=1"});
  EXPECT_EQ(line.settings.size(), 1u);
  EXPECT_EQ(std::string(line.mistakes.message()),
            "--set 'port': write --set path=value, for example --set cache.budget.host=4GiB\n"
            "--set '=1': write --set path=value, for example --set cache.budget.host=4GiB");
  EXPECT_TRUE(Good({"--set", "grpc.port=1"}).mistakes.ok());
}

TEST(CommandLine, RefusesWhatItDoesNotUnderstand) {
  EXPECT_THAT(Refusal({"--gprc-port", "1"}),
              HasSubstr("unknown flag --gprc-port; did you mean --grpc-port?"));
  EXPECT_THAT(Refusal({"--colour=red"}), HasSubstr("unknown flag --colour"));
  EXPECT_THAT(Refusal({"config.yaml"}), HasSubstr("unexpected argument 'config.yaml'"));
  EXPECT_THAT(Refusal({"--set", "a=1", "b=2"}), HasSubstr("unexpected argument 'b=2'"));
  EXPECT_THAT(Refusal({"--config"}), HasSubstr("--config"));
  EXPECT_THAT(Refusal({"--nope"}), HasSubstr("hearthd --help"));
}

}  // namespace
}  // namespace hearth

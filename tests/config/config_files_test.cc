// The files in config/ are part of the documentation: they must be true.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "server/config/config_diff.h"
#include "server/config/server_config.h"

namespace hearth {
namespace {

std::string SourceFile(const std::string& name) {
  return StrCat(HEARTH_SOURCE_DIR, "/config/", name);
}

std::vector<std::string> LinesOf(std::istream& in) {
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// "  port: 8001" -> "  port:", with its indentation; empty for a comment or an empty line.
std::string KeyOf(const std::string& line) {
  const std::size_t start = line.find_first_not_of(' ');
  const std::size_t colon = line.find(':');
  if (start == std::string::npos || line[start] == '#' || colon == std::string::npos) return "";
  return line.substr(0, colon + 1);
}

bool IsComment(const std::string& line) {
  const std::size_t start = line.find_first_not_of(' ');
  return start != std::string::npos && line[start] == '#';
}

TEST(ConfigFiles, HearthYamlHoldsTheDefaults) {
  const auto config = LoadServerConfig(SourceFile("hearth.yaml"), {}, {});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(DiffConfigs({}, *config).empty());
  EXPECT_EQ(PrintServerConfig(*config), PrintServerConfig(ServerConfig{}));
}

// A key that is left out would pass the test above: its default is what it is.
TEST(ConfigFiles, HearthYamlNamesEveryKeyInTheOrderOfPrintConfig) {
  std::ifstream in(SourceFile("hearth.yaml"));
  ASSERT_TRUE(in);
  std::string keys;
  for (const std::string& line : LinesOf(in)) {
    if (!KeyOf(line).empty()) keys += KeyOf(line) + "\n";
  }
  std::istringstream printed(PrintServerConfig(ServerConfig{}));
  std::string expected;
  for (const std::string& line : LinesOf(printed)) expected += KeyOf(line) + "\n";
  EXPECT_EQ(keys, expected);
}

TEST(ConfigFiles, HearthYamlExplainsEveryKey) {
  std::ifstream in(SourceFile("hearth.yaml"));
  ASSERT_TRUE(in);
  bool explained = false;  // by a comment above it, or above the key it follows directly
  int count = 0;
  for (const std::string& line : LinesOf(in)) {
    const std::string key = KeyOf(line);
    if (IsComment(line)) {
      explained = true;
    } else if (!key.empty() && line.size() > key.size()) {
      EXPECT_TRUE(explained) << line;
      ++count;
    } else {
      // A section or an empty line: what follows needs words of its own, but for http.host, which
      // is explained by the section's comment.
      explained = explained && key == "http:";
    }
  }
  EXPECT_EQ(static_cast<std::size_t>(count), ConfigKeys().size());
}

TEST(ConfigFiles, DevelopmentFileStaysOnThisMachine) {
  const auto config = LoadServerConfig(SourceFile("hearth.dev.yaml"), {}, {});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->grpc.host, "127.0.0.1");
  EXPECT_EQ(config->http.host, "127.0.0.1");
  EXPECT_EQ(config->repository.roots, std::vector<std::string>{"./models"});
  EXPECT_EQ(config->logging.level, log::Level::kDebug);
}

}  // namespace
}  // namespace hearth

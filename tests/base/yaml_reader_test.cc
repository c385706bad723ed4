#include "server/base/yaml_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

std::string Message(const YamlReader& yaml) { return std::string(yaml.status().message()); }

enum class Level { kDebug, kInfo };

TEST(YamlReader, ReadsEveryType) {
  YamlReader yaml(R"(
text: hello world
quoted: "12"
yes: true
small: -3
big: 18446744073709551
ratio: 2.5e-1
size: 12GiB
wait: 250ms
level: debug
names: [a, "b c"]
shape:
  - 1
  - -1
nested: {inner: {deep: 1}}
)",
                  "f");
  std::string text, quoted;
  bool yes = false;
  int small = 0;
  std::uint64_t big = 0, size = 0;
  double ratio = 0;
  Duration wait{};
  Level level = Level::kInfo;
  std::vector<std::string> names;
  std::vector<std::int64_t> shape;
  int deep = 0;
  EXPECT_TRUE(yaml.root().Map([&](YamlMap& m) {
    EXPECT_TRUE(m["text"].Read(text));
    EXPECT_TRUE(m["quoted"].Read(quoted));
    EXPECT_TRUE(m["yes"].Read(yes));
    EXPECT_TRUE(m["small"].Read(small));
    EXPECT_TRUE(m["big"].Read(big));
    EXPECT_TRUE(m["ratio"].Read(ratio));
    EXPECT_TRUE(m["size"].ReadBytes(size));
    EXPECT_TRUE(m["wait"].Read(wait));
    EXPECT_TRUE(m["level"].ReadEnum(level, {{"debug", Level::kDebug}, {"info", Level::kInfo}}));
    EXPECT_TRUE(m["names"].Read(names));
    EXPECT_TRUE(m["shape"].Read(shape));
    m["nested"].Map([&](YamlMap& nested) {
      nested["inner"].Map([&](YamlMap& inner) { inner["deep"].Read(deep); });
    });
  }));
  ASSERT_TRUE(yaml.status().ok()) << yaml.status();
  EXPECT_EQ(text, "hello world");
  EXPECT_EQ(quoted, "12");
  EXPECT_TRUE(yes);
  EXPECT_EQ(small, -3);
  EXPECT_EQ(big, 18446744073709551u);
  EXPECT_EQ(ratio, 0.25);
  EXPECT_EQ(size, 12ull << 30);
  EXPECT_EQ(wait, std::chrono::milliseconds(250));
  EXPECT_EQ(level, Level::kDebug);
  EXPECT_THAT(names, ElementsAre("a", "b c"));
  EXPECT_THAT(shape, ElementsAre(1, -1));
  EXPECT_EQ(deep, 1);
}

TEST(YamlReader, LeavesDefaultsAloneWhereAKeyIsAbsentOrBad) {
  YamlReader yaml("port: many\n", "f");
  int port = 8001;
  std::string name = "hearth";
  std::vector<std::string> list = {"kept"};
  yaml.root().Map([&](YamlMap& m) {
    EXPECT_FALSE(m["port"].Read(port));
    EXPECT_FALSE(m["name"].Read(name));
    EXPECT_FALSE(m["list"].Read(list));
    EXPECT_FALSE(m["map"].Map([](YamlMap&) { ADD_FAILURE() << "there is no such mapping"; }));
  });
  EXPECT_EQ(port, 8001);
  EXPECT_EQ(name, "hearth");
  EXPECT_THAT(list, ElementsAre("kept"));
  EXPECT_EQ(Message(yaml), "f:1:7: key 'port': 'many' is not a whole number");
}

TEST(YamlReader, ReportsAllErrorsAtOnceInTheOrderOfTheFile) {
  YamlReader yaml(
      "server:\n"
      "  threads: 99\n"
      "  wait: 10\n"
      "cache:\n"
      "  bugdet: 1\n"
      "  host: lots\n"
      "flag: maybe\n"
      "level: loud\n"
      "list: 3\n",
      "hearth.yaml");
  yaml.root().Map([](YamlMap& m) {
    // Asked for in another order than written.
    std::vector<std::string> list;
    m["list"].Read(list);
    Level level{};
    m["level"].ReadEnum(level, {{"debug", Level::kDebug}, {"info", Level::kInfo}});
    bool flag = false;
    m["flag"].Read(flag);
    m["cache"].Map([](YamlMap& cache) {
      std::uint64_t bytes = 0;
      cache["budget"].ReadBytes(bytes);
      cache["host"].ReadBytes(bytes);
    });
    m["server"].Map([](YamlMap& server) {
      int threads = 0;
      Duration wait{};
      server["threads"].Read(threads, 1, 64);
      server["wait"].Read(wait);
    });
  });
  EXPECT_EQ(yaml.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      Message(yaml),
      "hearth.yaml:2:12: key 'server.threads': 99 is out of range; it must be between 1 and 64\n"
      "hearth.yaml:3:9: key 'server.wait': '10' is not a time; write a number with a unit, such "
      "as 250ms, 10s, 5m or 1h\n"
      "hearth.yaml:5:3: key 'cache.bugdet': unknown key; did you mean 'budget'?\n"
      "hearth.yaml:6:9: key 'cache.host': 'lots' is not a size; write a number with a unit, such "
      "as 512MiB or 12GiB\n"
      "hearth.yaml:7:7: key 'flag': 'maybe' is not one of 'true', 'false'\n"
      "hearth.yaml:8:8: key 'level': 'loud' is not one of 'debug', 'info'\n"
      "hearth.yaml:9:7: key 'list': must be a list, not a single value");
}

TEST(YamlReader, RefusesAKeyGivenTwice) {
  YamlReader yaml("a: 1\nb: {c: 1, c: 2}\na: {d: 3}\n", "f");
  int a = 0, c = 0;
  yaml.root().Map([&](YamlMap& m) {
    m["a"].Read(a);
    m["b"].Map([&](YamlMap& b) { b["c"].Read(c); });
  });
  EXPECT_EQ(Message(yaml),
            "f:2:11: key 'b.c': given twice; the first one is on line 2\n"
            "f:3:1: key 'a': given twice; the first one is on line 1");
  EXPECT_EQ(a, 1);
  EXPECT_EQ(c, 1);
}

TEST(YamlReader, SaysWhereATextStopsBeingYaml) {
  YamlReader yaml("a: 1\nb: [1, 2\nc: 3\n", "f");
  yaml.root().Map([](YamlMap& m) { m["required"].Require(); });
  const std::string message = Message(yaml);
  EXPECT_EQ(message.rfind("f:", 0), 0u) << message;
  EXPECT_NE(message.find("not valid YAML"), std::string::npos) << message;
  EXPECT_EQ(message.find("required"), std::string::npos) << message;
}

TEST(YamlReader, RefusesAliasesTagsAndSecondDocuments) {
  EXPECT_EQ(Message(YamlReader("a: &x [1]\nb: *x\n", "f")),
            "f:2:4: key 'b': aliases (*name) are not read here; write the value out");
  EXPECT_EQ(Message(YamlReader("a: !secret x\n", "f")),
            "f:1:4: key 'a': the tag '!secret' means nothing here; remove it");
  EXPECT_EQ(Message(YamlReader("a: 1\n---\nb: 2\n", "f")),
            "f:3:1: only one document is read; remove what follows '---'");
}

TEST(YamlReader, RefusesAKeyThatIsNotAWord) {
  EXPECT_THAT(Message(YamlReader("? [a, b]\n: 1\n", "f")),
              testing::HasSubstr("a key must be a word"));
}

TEST(YamlReader, ReadsAnEmptyTextAsAnEmptyMapping) {
  for (const char* text : {"", "# only a comment\n", "---\n", "~\n"}) {
    YamlReader yaml(text, "f");
    bool read = false;
    yaml.root().Map([&](YamlMap& m) { read = !m["a"].present(); });
    EXPECT_TRUE(read) << text;
    EXPECT_TRUE(yaml.status().ok()) << text << yaml.status();
  }
}

TEST(YamlReader, TakesAKeyWithNothingBehindItForAbsentWhereACollectionIsMeant) {
  YamlReader yaml("map:\nlist:\nnumber:\n", "f");
  yaml.root().Map([](YamlMap& m) {
    EXPECT_FALSE(m["map"].Map([](YamlMap&) {}));
    EXPECT_FALSE(m["list"].List([](YamlNode) {}));
    int number = 0;
    EXPECT_FALSE(m["number"].Read(number));
  });
  EXPECT_EQ(Message(yaml),
            "f:3:1: key 'number': has no value; give a whole number or remove the key");
}

TEST(YamlReader, NamesItemsOfListsAndFreeKeysInItsMessages) {
  YamlReader yaml("models:\n- {name: a}\n- {nmae: b}\nlabels: {x: 1, y: [2]}\n", "f");
  std::map<std::string, std::string> labels;
  yaml.root().Map([&](YamlMap& m) {
    m["models"].List([](YamlNode item) {
      item.Map([](YamlMap& model) {
        std::string name;
        model["name"].Require().Read(name);
      });
    });
    m["labels"].Entries([&](const std::string& key, YamlNode value) { value.Read(labels[key]); });
  });
  EXPECT_EQ(Message(yaml),
            "f:3:3: key 'models[1].name': is required\n"
            "f:3:4: key 'models[1].nmae': unknown key; did you mean 'name'?\n"
            "f:4:19: key 'labels.y': must be a text, not a list");
  EXPECT_THAT(labels, ElementsAre(Pair("x", "1"), Pair("y", "")));
}

TEST(YamlReader, RefusesNumbersThatDoNotFit) {
  YamlReader yaml("a: 300\nb: -1\nc: 9223372036854775808\nd: 1.5\ne: 0x10\nf: nan\ng: 2\n", "f");
  std::uint8_t a = 7;
  std::uint64_t b = 7;
  std::int64_t c = 7, d = 7, e = 7;
  double f = 7, g = 7;
  yaml.root().Map([&](YamlMap& m) {
    EXPECT_FALSE(m["a"].Read(a));
    EXPECT_FALSE(m["b"].Read(b));
    EXPECT_FALSE(m["c"].Read(c));
    EXPECT_FALSE(m["d"].Read(d));
    EXPECT_FALSE(m["e"].Read(e));
    EXPECT_FALSE(m["f"].Read(f));
    EXPECT_FALSE(m["g"].Read(g, 0, 1));
  });
  EXPECT_EQ(a + b + c + d + e + f + g, 49);
  EXPECT_EQ(std::ranges::count(Message(yaml), '\n'), 6) << Message(yaml);
}

TEST(YamlReader, LetsOverridesWinTheLastOneMost) {
  YamlReader yaml("grpc:\n  port: 1\n  host: a\n", "f",
                  {{"grpc.port", "2", "$HEARTH_GRPC__PORT"},
                   {"grpc.port", "3", "--set grpc.port"},
                   {"new.deep", "x: y", "--set new.deep"},
                   {"roots", "[a, b]", "--set roots"},
                   {"one", "/models", "--set one"}});
  int port = 0;
  std::string host, deep;
  std::vector<std::string> roots, one;
  yaml.root().Map([&](YamlMap& m) {
    m["grpc"].Map([&](YamlMap& grpc) {
      grpc["port"].Read(port);
      grpc["host"].Read(host);
    });
    m["new"].Map([&](YamlMap& fresh) { fresh["deep"].Read(deep); });
    m["roots"].Read(roots);
    m["one"].Read(one);
  });
  ASSERT_TRUE(yaml.status().ok()) << yaml.status();
  EXPECT_EQ(port, 3);
  EXPECT_EQ(host, "a");
  EXPECT_EQ(deep, "x: y");
  EXPECT_THAT(roots, ElementsAre("a", "b"));
  EXPECT_THAT(one, ElementsAre("/models"));
}

TEST(YamlReader, LetsNoOverrideHideTheMistakesOfAnother) {
  YamlReader yaml("log: loud\nfine:\n", "f",
                  {{"grpc.prot", "3", "--set grpc.prot"},
                   {"grpc", "3", "--set grpc"},
                   {"http", "3", "--set http"},
                   {"http.port", "x", "--set http.port"},
                   {"log.level", "1", "$LOG"},
                   {"fine.a", "1", "--set fine.a"}});
  yaml.root().Map([&](YamlMap& m) {
    int number = 0;
    m["grpc"].Map([&](YamlMap& grpc) { grpc["port"].Read(number); });
    m["http"].Map([&](YamlMap& http) { http["port"].Read(number); });
    m["log"].Map([&](YamlMap& log) { log["level"].Read(number); });
    m["fine"].Map([&](YamlMap& fine) { fine["a"].Read(number); });
  });
  EXPECT_EQ(std::string(yaml.status().message()),
            "f:1:6: key 'log': is a single value, but $LOG sets a key under it; "
            "remove one of them\n"
            "--set http: key 'http': is a single value, but --set http.port sets a key under it; "
            "remove one of them\n"
            "--set grpc: key 'grpc': is a mapping; set a key in it, such as grpc.prot\n"
            "--set grpc.prot: key 'grpc.prot': unknown key; did you mean 'port'?\n"
            "--set http.port: key 'http.port': 'x' is not a whole number");
}

TEST(YamlReader, LetsASingleValueTakeThePlaceOfAMappingWhereEitherMayStand) {
  const auto read = [](const std::vector<YamlOverride>& overrides) {
    YamlReader yaml("size: {a: 1, b: 2}\nword: x\n", "f", overrides);
    std::string text;
    yaml.root().Map([&](YamlMap& m) {
      const YamlNode node = m["size"];
      m["word"];
      if (!node.is_map()) {
        node.Read(text);
        return;
      }
      node.Entries([&](const std::string& key, const YamlNode& value) {
        std::string each;
        value.Read(each);
        text += StrCat(key, "=", each, "@", value.where(), " ");
      });
    });
    return yaml.status().ok() ? text : Message(yaml);
  };
  EXPECT_EQ(read({}), "a=1@f:1:11 b=2@f:1:17 ");
  EXPECT_EQ(read({{"size", "7", "--set size"}}), "7");
  EXPECT_EQ(read({{"size", "7", "--set size"}, {"size", "8", "--set size"}}), "8");
  EXPECT_EQ(read({{"size", "7", "--set size"}, {"size", "{c: 3}", "--set size"}}), "c=3@--set size ");
  EXPECT_EQ(read({{"size.b", "3", "--set size.b"}}), "a=1@f:1:11 b=3@--set size.b ");
  EXPECT_EQ(read({{"size", "7", "--set size"}, {"size.a", "8", "--set size.a"}}),
            "--set size: key 'size': is a single value, but --set size.a sets a key under it; remove one of them");
}

TEST(YamlReader, NamesTheOverrideInsteadOfALine) {
  YamlReader yaml("grpc: {port: 1}\nbad: 1\n", "f",
                  {{"grpc.prot", "2", "$HEARTH_GRPC__PROT"},
                   {"grpc.port", "x", "--set grpc.port"},
                   {"grpc..port", "x", "--set grpc..port"},
                   {"list", "[1, 2", "--set list"}});
  yaml.root().Map([&](YamlMap& m) {
    m["grpc"].Map([&](YamlMap& grpc) {
      int port = 0;
      grpc["port"].Read(port);
    });
    m["list"];
  });
  const std::string message = Message(yaml);
  EXPECT_THAT(message, testing::StartsWith("f:2:1: key 'bad': unknown key\n"));
  EXPECT_THAT(
      message,
      testing::HasSubstr("$HEARTH_GRPC__PROT: key 'grpc.prot': unknown key; did you mean 'port'?"));
  EXPECT_THAT(message,
              testing::HasSubstr("--set grpc.port: key 'grpc.port': 'x' is not a whole number"));
  EXPECT_THAT(message,
              testing::HasSubstr("--set grpc..port: 'grpc..port' is not a path such as grpc.port"));
  EXPECT_THAT(message, testing::HasSubstr("--set list: key 'list': not valid YAML"));
}

TEST(YamlReader, PointsLateErrorsAtTheNearestThingThatExists) {
  YamlReader yaml("http:\n  port: 1\n", "f");
  yaml.ErrorAt("http.port", "taken");
  yaml.ErrorAt("http.host", "missing");
  EXPECT_EQ(Message(yaml), "f:2:3: key 'http.host': missing\nf:2:9: key 'http.port': taken");
}

TEST(YamlReader, KeepsHostileValuesShortAndOnOneLine) {
  YamlReader yaml("a: \"x\\ny" + std::string(500, 'z') + "\"\n", "f");
  int a = 0;
  yaml.root().Map([&](YamlMap& m) { m["a"].Read(a); });
  EXPECT_EQ(Message(yaml).find('\n'), std::string::npos);
  EXPECT_LT(Message(yaml).size(), 150u);
}

TEST(YamlReader, SurvivesDeepNesting) {
  YamlReader yaml(std::string(100000, '['), "f");
  EXPECT_FALSE(yaml.status().ok());
  YamlReader closed(std::string(400, '[') + std::string(400, ']'), "f");
  EXPECT_FALSE(closed.root().Map([](YamlMap&) {}));
}

TEST(ClosestWord, FindsTyposAndNothingElse) {
  const std::vector<std::string> known = {"budget", "host", "device"};
  EXPECT_EQ(ClosestWord("bugdet", known), "budget");
  EXPECT_EQ(ClosestWord("hots", known), "host");
  EXPECT_EQ(ClosestWord("hos", known), "host");
  EXPECT_EQ(ClosestWord("devices", known), "device");
  EXPECT_EQ(ClosestWord("colour", known), "");
  EXPECT_EQ(ClosestWord(std::string(100000, 'b'), known), "");
}

}  // namespace
}  // namespace hearth

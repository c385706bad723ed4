#include "server/storage/catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "tests/storage/files.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing_files::TempDir;

std::vector<std::string> Models(const Catalog& catalog) {
  std::vector<std::string> names;
  for (const Catalog::Row& row : catalog.List()) names.push_back(row.model);
  return names;
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(Catalog, IsEmptyBeforeTheFirstScan) {
  TempDir dir;
  dir.Write("net/1/model.pt", "x");
  const Catalog catalog({dir.path()});
  EXPECT_THAT(catalog.List(), IsEmpty());
}

TEST(Catalog, FindsVersionsAndBareFiles) {
  TempDir dir;
  dir.Write("net/1/model.pt", "x");
  dir.Write("net/3/model.pt", "x");
  dir.Write("net/12/model.jit", "x");
  dir.Write("bare.pt", "x");
  dir.Write("v5.1.jit", "x");
  dir.Write("README.md", "x");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_THAT(Models(catalog), ElementsAre("bare", "net", "v5.1"));
  EXPECT_THAT(catalog.Versions("net"), ElementsAre(1, 3, 12));
  EXPECT_THAT(catalog.Versions("bare"), ElementsAre(1));
  EXPECT_THAT(catalog.Versions("none"), IsEmpty());
  EXPECT_EQ(*catalog.Resolve("net", std::nullopt), (ModelId{"net", 12}));
  EXPECT_EQ(*catalog.Resolve("net", 3), (ModelId{"net", 3}));
  const auto spec = catalog.Spec({"net", 12});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->file, dir.path() / "net/12/model.jit");
  EXPECT_EQ(spec->format, "torchscript");
  EXPECT_EQ(spec->options.method, "forward");
  EXPECT_EQ(catalog.Spec({"bare", 1})->file, dir.path() / "bare.pt");
}

TEST(Catalog, ASpecSaysWhichContentOfItsFilesItFound) {
  TempDir dir;
  dir.Write("net/1/model.pt", "x");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  const std::uint64_t first = catalog.Spec({"net", 1})->revision;
  EXPECT_EQ(catalog.Spec({"net", 1})->revision, first);
  dir.Write("net/1/model.pt", "xy");
  EXPECT_NE(catalog.Spec({"net", 1})->revision, first);
}

TEST(Catalog, FindsPackagesWithTheWeightsBesideThem) {
  TempDir dir;
  dir.Write("archive/1/model.pt2", "x");
  dir.Write("folder/1/model.pt2/data/aotinductor/model/a.so", "x");
  dir.Write("folder/1/model.safetensors", "x");
  dir.Write("bare.pt2", "x");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_THAT(Models(catalog), ElementsAre("archive", "bare", "folder"));
  for (const char* name : {"archive", "bare", "folder"}) EXPECT_EQ(catalog.Spec({name, 1})->format, "aoti");
  EXPECT_THAT(catalog.Spec({"archive", 1})->weights, IsEmpty());
  EXPECT_THAT(catalog.Spec({"folder", 1})->weights, ElementsAre(dir.path() / "folder/1/model.safetensors"));
  EXPECT_EQ(catalog.Spec({"folder", 1})->file, dir.path() / "folder/1/model.pt2");
}

TEST(Catalog, IgnoresWhatIsNoVersion) {
  TempDir dir;
  for (const char* name : {"1", "01", "0", "-1", "+2", "v3", "1.0", "99999999999999999999", ".4"}) {
    dir.Write(fs::path("net") / name / "model.pt", "x");
  }
  dir.Write("net/5", "a file");
  fs::create_directories(dir.path() / "net/7");  // no model.pt inside
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_THAT(catalog.Versions("net"), ElementsAre(1));
}

TEST(Catalog, IgnoresHiddenAndUnfitNames) {
  TempDir dir;
  dir.Write(".hidden.pt", "x");
  dir.Write(".git/1/model.pt", "x");
  dir.Write("with space/1/model.pt", "x");
  dir.Write("-dash.pt", "x");
  dir.Write(std::string(129, 'a') + ".pt", "x");
  dir.Write(std::string(128, 'b') + ".pt", "x");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_THAT(Models(catalog), ElementsAre(std::string(128, 'b')));
}

TEST(Catalog, KnowsModelNames) {
  for (const char* good : {"a", "A9", "resnet-50_v1.5", "0"})
    EXPECT_TRUE(IsModelName(good)) << good;
  for (const char* bad : {"", ".", "..", "a/b", "-a", "_a", "a b", "../a", "a\n", "\xc3\xa4"}) {
    EXPECT_FALSE(IsModelName(bad)) << bad;
  }
  EXPECT_FALSE(IsModelName(std::string_view("a\0b", 3)));
}

TEST(Catalog, FollowsSymbolicLinksAsKubernetesMakesThem) {
  TempDir dir;
  dir.Write("volume/..2026_01_02/net.pt", "x");
  fs::create_directory_symlink("..2026_01_02", dir.path() / "volume/..data");
  fs::create_symlink("..data/net.pt", dir.path() / "volume/net.pt");
  dir.Write("elsewhere/other/1/model.pt", "x");
  fs::create_directory_symlink(dir.path() / "elsewhere/other", dir.path() / "volume/other");
  fs::create_symlink("nowhere.pt", dir.path() / "volume/dangling.pt");
  fs::create_directory_symlink(dir.path() / "volume", dir.path() / "models");
  Catalog catalog({dir.path() / "models"});
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_THAT(Models(catalog), ElementsAre("net", "other"));
}

TEST(Catalog, TheFirstRootWins) {
  TempDir dir;
  dir.Write("a/net/1/model.pt", "x");
  dir.Write("b/net/2/model.pt", "x");
  dir.Write("b/only.pt", "x");
  Catalog catalog({dir.path() / "a", dir.path() / "b"});
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_THAT(Models(catalog), ElementsAre("net", "only"));
  EXPECT_THAT(catalog.Versions("net"), ElementsAre(1));
  ASSERT_TRUE(catalog.Rescan("net").ok());
  EXPECT_THAT(catalog.Versions("net"), ElementsAre(1));
}

TEST(Catalog, AFolderWinsOverABareFileAndPtOverJit) {
  TempDir dir;
  dir.Write("net/4/model.pt", "x");
  dir.Write("net.pt", "x");
  dir.Write("bare.pt", "x");
  dir.Write("bare.jit", "x");
  Catalog catalog({dir.path()});
  for (int i = 0; i < 2; ++i) {
    const bool read =
        i == 0 ? catalog.Scan().ok() : catalog.Rescan("net").ok() && catalog.Rescan("bare").ok();
    ASSERT_TRUE(read);
    EXPECT_THAT(catalog.Versions("net"), ElementsAre(4));
    EXPECT_EQ(catalog.Spec({"bare", 1})->file.extension(), ".pt");
  }
}

TEST(Catalog, AModelThatCannotBeUnderstoodStaysListed) {
  TempDir dir;
  dir.Write("bad/model.yaml", "devise: cpu\n");
  dir.Write("bad/1/model.pt", "x");
  dir.Write("flat/model.pt", "x");
  dir.Write("good.pt", "x");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  const auto rows = catalog.List();
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].model, "bad");
  EXPECT_THAT(rows[0].versions, IsEmpty());
  EXPECT_THAT(Message(rows[0].error), HasSubstr("devise"));
  EXPECT_EQ(rows[1].model, "flat");
  EXPECT_THAT(Message(rows[1].error), HasSubstr("flat/1/model.pt"));
  EXPECT_TRUE(rows[2].error.ok());
  EXPECT_EQ(catalog.Resolve("bad", std::nullopt).status(), rows[0].error);
  EXPECT_EQ(catalog.Spec({"bad", 1}).status(), rows[0].error);

  dir.Write("bad/model.yaml", "instances: 2\n");
  ASSERT_TRUE(catalog.Rescan("bad").ok());
  EXPECT_EQ(catalog.Spec({"bad", 1})->options.instances, 2);
}

TEST(Catalog, ABadModelYamlLeavesTheLastGoodOneInForce) {
  TempDir dir;
  dir.Write("net/model.yaml", "instances: 2\n");
  dir.Write("net/1/model.pt", "x");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_TRUE(catalog.Fault("net").ok());
  dir.Write("net/model.yaml", "metod: x\n");
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(i == 1 ? catalog.Rescan("net").ok() : catalog.Scan().ok());
    EXPECT_EQ(*catalog.Resolve("net", std::nullopt), (ModelId{"net", 1}));
    EXPECT_EQ(catalog.Spec({"net", 1})->options.instances, 2);
    EXPECT_THAT(Message(catalog.Fault("net")), HasSubstr("metod"));
    EXPECT_EQ(catalog.List()[0].error, catalog.Fault("net"));
    EXPECT_THAT(catalog.List()[0].versions, ElementsAre(1));
  }
  dir.Write("net/model.yaml", "instances: 3\n");
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_TRUE(catalog.Fault("net").ok());
  EXPECT_EQ(catalog.Spec({"net", 1})->options.instances, 3);
}

TEST(Catalog, WhatIsLeftOfAModelElsewhereIsNoLastGoodOne) {
  TempDir dir;
  dir.Write("a/net/1/model.pt", "x");
  dir.Write("b/net/model.yaml", "metod: x\n");
  dir.Write("b/net/1/model.pt", "x");
  Catalog catalog({dir.path() / "a", dir.path() / "b"});
  ASSERT_TRUE(catalog.Scan().ok());
  fs::remove_all(dir.path() / "a/net");
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_THAT(Message(catalog.Resolve("net", std::nullopt).status()), HasSubstr("metod"));
}

// Reads "instances 2" and the like; "bad" is none.
absl::Status ReadFake(const std::string&, const TritonConfig& config, ModelOptions& options,
                      std::vector<std::string>& remarks) {
  std::istringstream words(config.text);
  std::string key;
  std::string value;
  while (words >> key >> value) {
    if (key == "bad") return absl::InvalidArgumentError(StrCat(config.source, ": ", value));
    if (key == "instances") options.instances = std::stoi(value);
    if (key == "batch") options.max_batch_size = std::stoi(value);
    if (key == "preferred") options.batching = {.enabled = true, .preferred = {std::stoi(value)}};
    if (key == "program") options.program = value;
    if (key == "format") options.format = value;
    if (key == "classes") options.class_names["y"].file = value;
    if (key == "remark") remarks.push_back(value);
  }
  return absl::OkStatus();
}

std::shared_ptr<const TritonConfig> Given(const std::string& text) {
  return std::make_shared<const TritonConfig>(TritonConfig{TritonConfig::Form::kJson, text, "config"});
}

TEST(CatalogTriton, AConfigurationOfTritonsIsReadWhereItIs) {
  TempDir dir;
  dir.Write("net/config.pbtxt", "instances 2 program old.pt classes c.txt");
  dir.Write("net/c.txt", "cat\r\n\ndog\n\n");
  dir.Write("net/1/old.pt", "x");
  dir.Write("net/1/model.pt", "x");
  Catalog catalog({dir.path()}, ReadFake);
  ASSERT_TRUE(catalog.Scan().ok());
  const auto spec = catalog.Spec({"net", 1});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->options.instances, 2);
  EXPECT_EQ(spec->file.filename(), "old.pt");
  EXPECT_THAT(*spec->options.class_names.at("y").names, ElementsAre("cat", "", "dog"));
  EXPECT_EQ(spec->options.source, "config.pbtxt");
  dir.Write("net/c.txt", "cat\n");
  EXPECT_NE(catalog.Spec({"net", 1})->revision, spec->revision) << "its class names are others";

  Catalog without({dir.path()});
  ASSERT_TRUE(without.Scan().ok());
  EXPECT_EQ(without.Spec({"net", 1})->options.instances, 0);
}

TEST(CatalogTriton, KeysOfModelYamlTakeThePlaceOfWhatItSays) {
  TempDir dir;
  dir.Write("net/config.pbtxt", "instances 2 batch 8");
  dir.Write("net/model.yaml", "instances: 3\nidle_unload: 5m\n");
  dir.Write("net/1/model.pt", "x");
  Catalog catalog({dir.path()}, ReadFake);
  ASSERT_TRUE(catalog.Scan().ok());
  const ModelOptions options = catalog.Spec({"net", 1})->options;
  EXPECT_EQ(options.instances, 3);
  EXPECT_EQ(options.max_batch_size, 8);
  EXPECT_EQ(options.idle_unload, std::chrono::minutes(5));
  dir.Write("net/model.yaml", "inputs: [{name: x, shape: [4]}]\n");
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_THAT(Message(catalog.Fault("net")), HasSubstr("must begin with -1"));
  dir.Write("net/config.pbtxt", "batch 8 preferred 4");
  dir.Write("net/model.yaml", "max_batch_size: 4\n");
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_TRUE(catalog.Fault("net").ok());
  dir.Write("net/model.yaml", "max_batch_size: 3\n");
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_THAT(Message(catalog.Fault("net")), HasSubstr("batching needs a max_batch_size of at least 4, not 3"));
}

TEST(CatalogTriton, ABadOneBreaksItsModelAlone) {
  TempDir dir;
  dir.Write("good/1/model.pt", "x");
  dir.Write("net/config.pbtxt", "bad luck");
  dir.Write("net/1/model.pt", "x");
  dir.Write("aoti/config.pbtxt", "format aoti");
  dir.Write("aoti/1/model.pt", "x");
  dir.Write("names/config.pbtxt", "classes absent.txt");
  dir.Write("names/1/model.pt", "x");
  Catalog catalog({dir.path()}, ReadFake);
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_TRUE(catalog.Resolve("good", std::nullopt).ok());
  EXPECT_THAT(Message(catalog.Resolve("net", std::nullopt).status()), HasSubstr("net/config.pbtxt: luck"));
  EXPECT_THAT(Message(catalog.Resolve("aoti", std::nullopt).status()), HasSubstr("aoti/1/model.pt2"));
  EXPECT_THAT(Message(catalog.Resolve("names", std::nullopt).status()), HasSubstr("absent.txt"));
  dir.Write("net/config.pbtxt", "instances 2");
  ASSERT_TRUE(catalog.Rescan("net").ok());
  EXPECT_EQ(catalog.Spec({"net", 1})->options.instances, 2);
}

TEST(CatalogTriton, AnOverrideHoldsOverWhatTheRepositorySaysUntilItIsLifted) {
  TempDir dir;
  dir.Write("net/config.pbtxt", "instances 2 batch 8");
  dir.Write("net/model.yaml", "instances: 3\nidle_unload: 5m\n");
  dir.Write("net/1/model.pt", "x");
  dir.Write("bare.pt", "x");
  Catalog catalog({dir.path()}, ReadFake);
  ASSERT_TRUE(catalog.Scan().ok());
  const std::uint64_t before = catalog.Spec({"net", 1})->revision;
  ASSERT_TRUE(catalog.RescanWith("net", Given("instances 5")).ok());
  const std::uint64_t given = catalog.Spec({"net", 1})->revision;
  EXPECT_NE(given, before);
  for (int i = 0; i < 2; ++i) {
    const ModelOptions options = catalog.Spec({"net", 1})->options;
    EXPECT_EQ(options.instances, 5);
    EXPECT_EQ(options.max_batch_size, 0) << "config.pbtxt is not looked at";
    EXPECT_EQ(options.idle_unload, std::chrono::minutes(5));
    ASSERT_TRUE(i == 0 ? catalog.Rescan("net").ok() : catalog.Scan().ok());
  }
  EXPECT_EQ(catalog.Spec({"net", 1})->revision, given);
  ASSERT_TRUE(catalog.RescanWith("bare", Given("instances 4")).ok());
  EXPECT_EQ(catalog.Spec({"bare", 1})->options.instances, 4);
  ASSERT_TRUE(catalog.RescanWith("net", nullptr).ok());
  EXPECT_EQ(catalog.Spec({"net", 1})->options.instances, 3);
  EXPECT_EQ(catalog.Spec({"net", 1})->revision, before);

  ASSERT_TRUE(catalog.RescanWith("net", Given("instances 5")).ok());
  catalog.SetUnloaded("net", true);
  EXPECT_EQ(catalog.Override("net"), nullptr);
  fs::remove(dir.path() / "bare.pt");
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_EQ(catalog.Override("bare"), nullptr) << "forgotten with its model";
}

TEST(CatalogTriton, AnOverrideThatCannotBeChangesNothing) {
  TempDir dir;
  dir.Write("net/1/model.pt", "x");
  Catalog catalog({dir.path()}, ReadFake);
  ASSERT_TRUE(catalog.Scan().ok());
  const auto good = Given("instances 5");
  ASSERT_TRUE(catalog.RescanWith("net", good).ok());
  for (const char* text : {"bad idea", "program absent.pt", "classes absent.txt"}) {
    const absl::Status refused = catalog.RescanWith("net", Given(text));
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(catalog.Override("net"), good);
    EXPECT_EQ(catalog.Spec({"net", 1})->options.instances, 5);
    EXPECT_TRUE(catalog.Fault("net").ok());
  }
  EXPECT_EQ(catalog.RescanWith("nobody", good).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(catalog.Override("nobody"), nullptr);
  Catalog without({dir.path()});
  EXPECT_EQ(without.RescanWith("net", good).code(), absl::StatusCode::kUnimplemented);
}

TEST(Catalog, RefusesAsTritonDoes) {
  TempDir dir;
  dir.Write("m/1/model.pt", "x");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  const absl::Status unknown = catalog.Resolve("foo", std::nullopt).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(unknown.message(), "Request for unknown model: 'foo' is not found");
  const absl::Status version = catalog.Resolve("m", 9).status();
  EXPECT_EQ(version.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(version.message(), "Request for unknown model: 'm' version 9 is not found");
  catalog.SetUnloaded("m", true);
  const absl::Status unloaded = catalog.Resolve("m", std::nullopt).status();
  EXPECT_EQ(unloaded.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(unloaded.message(), "Request for unknown model: 'm' has no available versions: it was unloaded; load it explicitly");
  const absl::Status unloaded_version = catalog.Resolve("m", 1).status();
  EXPECT_EQ(unloaded_version.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(unloaded_version.message(), "Request for unknown model: 'm' version 1 is not at ready state: it was unloaded; "
                                        "load it explicitly");
  EXPECT_TRUE(catalog.List()[0].unloaded);
  EXPECT_TRUE(catalog.Spec({"m", 1}).ok());
  catalog.SetUnloaded("m", false);
  EXPECT_TRUE(catalog.Resolve("m", 1).ok());
}

TEST(Catalog, AnUnloadOutlivesAScanButNotTheModel) {
  TempDir dir;
  dir.Write("m.pt", "x");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  catalog.SetUnloaded("m", true);
  catalog.SetUnloaded("never-heard-of", true);
  EXPECT_FALSE(catalog.IsUnloaded("never-heard-of"));
  ASSERT_TRUE(catalog.Scan().ok());
  ASSERT_TRUE(catalog.Rescan("m").ok());
  EXPECT_TRUE(catalog.IsUnloaded("m"));
  fs::remove(dir.path() / "m.pt");
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_FALSE(catalog.IsUnloaded("m"));
}

TEST(Catalog, RescanReadsOneModel) {
  TempDir dir;
  dir.Write("a.pt", "x");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  dir.Write("b.pt", "x");
  dir.Write("c.pt", "x");
  ASSERT_TRUE(catalog.Rescan("b").ok());
  EXPECT_THAT(Models(catalog), ElementsAre("a", "b"));
  fs::remove(dir.path() / "a.pt");
  EXPECT_EQ(catalog.Rescan("a").code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Models(catalog), ElementsAre("b"));
  EXPECT_EQ(catalog.Rescan("../b").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(catalog.Rescan("").code(), absl::StatusCode::kNotFound);
}

TEST(Catalog, AnUnreadableRootLeavesTheOldSnapshot) {
  TempDir dir;
  dir.Write("a/net.pt", "x");
  fs::create_directories(dir.path() / "b");
  Catalog catalog({dir.path() / "a", dir.path() / "b"});
  ASSERT_TRUE(catalog.Scan().ok());
  fs::remove(dir.path() / "b");
  dir.Write("a/new.pt", "x");
  const absl::Status status = catalog.Scan();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), HasSubstr((dir.path() / "b").string()));
  EXPECT_THAT(Models(catalog), ElementsAre("net"));
  EXPECT_EQ(catalog.Rescan("gone").code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Models(catalog), ElementsAre("net"));
}

TEST(Catalog, LookupsGoOnDuringScans) {
  TempDir dir;
  dir.Write("net/1/model.pt", "x");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  std::jthread scanner([&](std::stop_token stop) {
    while (!stop.stop_requested()) {
      if (!catalog.Scan().ok() || !catalog.Rescan("net").ok()) ADD_FAILURE();
    }
  });
  for (int i = 0; i < 2000; ++i) {
    ASSERT_TRUE(catalog.Resolve("net", std::nullopt).ok());
    ASSERT_EQ(catalog.List().size(), 1u);
  }
}

TEST(Catalog, APolicyDecidesWhichVersionsThereAre) {
  TempDir dir;
  for (const char* version : {"1", "2", "3"}) dir.Write(std::string("net/") + version + "/model.pt", "x");
  dir.Write("net/4/notes.txt", "x");  // no version, so not the latest one either
  dir.Write("net/model.yaml", "versions: {latest: 2}");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_THAT(catalog.Versions("net"), ElementsAre(2, 3));
  EXPECT_EQ(*catalog.Resolve("net", std::nullopt), (ModelId{"net", 3}));
  const absl::Status refused = catalog.Resolve("net", 1).status();
  EXPECT_EQ(refused, absl::NotFoundError("Request for unknown model: 'net' version 1 is not found: the policy in its "
                                         "model.yaml ('versions') leaves it out"));
  EXPECT_EQ(catalog.Spec({"net", 1}).status(), refused);
  EXPECT_THAT(Message(catalog.Resolve("net", 9).status()), testing::EndsWith("version 9 is not found"));

  dir.Write("net/model.yaml", "versions: {specific: [1, 7]}");
  ASSERT_TRUE(catalog.Rescan("net").ok());
  EXPECT_THAT(catalog.Versions("net"), ElementsAre(1));
  EXPECT_EQ(*catalog.Resolve("net", std::nullopt), (ModelId{"net", 1}));

  dir.Write("net/model.yaml", "versions: all");
  ASSERT_TRUE(catalog.Rescan("net").ok());
  EXPECT_THAT(catalog.Versions("net"), ElementsAre(1, 2, 3));
}

TEST(Catalog, APolicyThatLeavesEverythingOutIsSaid) {
  TempDir dir;
  dir.Write("net/1/model.pt", "x");
  dir.Write("net/model.yaml", "versions: {specific: [2]}");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_THAT(Message(catalog.Resolve("net", std::nullopt).status()), HasSubstr("leaves out every version"));
}

TEST(Catalog, ALabelIsANameForAVersion) {
  TempDir dir;
  dir.Write("net/1/model.pt", "x");
  dir.Write("net/2/model.pt", "x");
  dir.Write("net/model.yaml", "labels: {stable: 1, next: 5}");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_EQ(*catalog.ResolveLabel("net", "stable"), (ModelId{"net", 1}));
  EXPECT_EQ(catalog.ResolveLabel("net", "canary").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(catalog.ResolveLabel("net", "next").status()), HasSubstr("label 'next': Request for unknown"));
  EXPECT_EQ(catalog.ResolveLabel("nobody", "stable").status().code(), absl::StatusCode::kNotFound);
  catalog.SetUnloaded("net", true);
  EXPECT_EQ(catalog.ResolveLabel("net", "stable").status().code(), absl::StatusCode::kUnavailable);
}

TEST(Catalog, AScanTellsWhatMeansAnotherVersionNow) {
  TempDir dir;
  dir.Write("net/2/model.pt", "x");
  dir.Write("net/model.yaml", "labels: {stable: 2}");
  dir.Write("other/1/model.pt", "x");
  Catalog catalog({dir.path()});
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_FALSE(catalog.has_moves());
  dir.Write("net/3/model.pt", "x");
  dir.Write("net/model.yaml", "labels: {stable: 3, fresh: 3}");
  ASSERT_TRUE(catalog.Scan().ok());
  EXPECT_TRUE(catalog.has_moves());
  const std::vector<Catalog::Move> moves = catalog.TakeMoves();
  EXPECT_FALSE(catalog.has_moves());
  ASSERT_EQ(moves.size(), 2u);
  EXPECT_EQ(moves[0].label, "");
  EXPECT_EQ(moves[1].label, "stable");
  for (const Catalog::Move& move : moves) {
    EXPECT_EQ(move.model, "net");
    EXPECT_EQ(move.from, 2);
    EXPECT_EQ(move.to, 3);
  }

  fs::remove_all(dir.path() / "net/3");  // taken away: nobody goes on with it, but a label says where it was
  dir.Write("net/model.yaml", "labels: {stable: 2}");
  ASSERT_TRUE(catalog.Rescan("net").ok());
  const std::vector<Catalog::Move> back = catalog.TakeMoves();
  ASSERT_EQ(back.size(), 1u);
  EXPECT_EQ(back[0].label, "stable");
}

}  // namespace
}  // namespace hearth

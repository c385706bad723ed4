// Serving over a real catalog, a real manager and a fake loader; time and threads are the test's.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/residency/model_manager.h"
#include "server/serving/infer_service.h"
#include "server/serving/repository_service.h"
#include "server/serving/version_routes.h"
#include "server/storage/catalog.h"
#include "tests/fakes/fake_loader.h"
#include "tests/fakes/manual_clock.h"
#include "tests/fakes/manual_executor.h"
#include "tests/fakes/manual_timer.h"

namespace hearth {

class ServingTest : public testing::Test {
 protected:
  static constexpr Duration kLoadTimeout = std::chrono::hours(10000);

  ServingTest() {
    std::string pattern = testing::TempDir() + "/serving-XXXXXX";
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    catalog_.emplace(std::vector<std::filesystem::path>{root_}, ReadInstances);
    manager_.emplace(ModelManager::Deps{
                         .find_spec = [this](const ModelId& id) { return catalog_->Spec(id); },
                         .find_loader = [this](std::string_view) -> absl::StatusOr<const Loader*> {
                           return &loader_;
                         },
                         .load_executor = load_,
                         .timer = timer_,
                         .clock = clock_,
                         .metrics = metrics_},
                     ModelManager::Options{.capacity = {1000, 1000, 1000}, .load_timeout = kLoadTimeout, .rests = 4});
    versions_.emplace(VersionRoutes::Deps{*catalog_, *manager_});
    StartInfer({});
    repository_.emplace(RepositoryService::Deps{*catalog_, *manager_, clock_, *versions_});
  }

  // In the place of what reads Triton's configuration: "2" is two instances, anything else none.
  static absl::Status ReadInstances(const std::string&, const TritonConfig& config, ModelOptions& options,
                                    std::vector<std::string>&) {
    options.instances = std::atoi(config.text.c_str());
    if (options.instances > 0) return absl::OkStatus();
    return absl::InvalidArgumentError(StrCat(config.source, ": no number of instances"));
  }

  ~ServingTest() override {
    compute_.ShutDown();
    manager_->Shutdown();
    load_.RunAll();
    infer_.reset();
    load_.RunAll();  // what live sequences held
    manager_.reset();
    std::filesystem::remove_all(root_);
  }

  void StartInfer(InferService::Options options, Executor* answers = nullptr) {
    infer_.reset();
    infer_.emplace(InferService::Deps{*catalog_, *manager_, compute_, timer_, clock_, metrics_, *versions_, buffers_, &reserve_,
                                      answers},
                   options);
  }

  void WriteFile(const std::filesystem::path& file, const std::string& text) {
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  // A model with one fp32 input "x" of any shape, which it answers with, unless `script` says more.
  void AddModel(const std::string& name, fakes::FakeModel::Options model,
                const std::string& yaml = "", std::int64_t version = 1) {
    WriteFile(root_ / name / std::to_string(version) / "model.pt", "program");
    if (!yaml.empty()) WriteFile(root_ / name / "model.yaml", yaml);
    SetModel(name, std::move(model));
    EXPECT_TRUE(catalog_->Scan().ok());
  }
  void AddModel(const std::string& name) { AddModel(name, EchoModel()); }

  // One that leaves something when it is evicted.
  void AddModelOnDevice(const std::string& name) {
    AddModel(name);
    fakes::FakeLoader::Script script;
    script.model = EchoModel();
    script.model.footprint.device_bytes = 600;
    script.rest = fakes::FakeRest::Options{{0, 0, {{{1, 1, 0, 0}, 0, 500}}}, {}, {}};
    loader_.Set(name, std::move(script));
  }

  // What the next load of it gives.
  void SetModel(const std::string& name, fakes::FakeModel::Options model) {
    fakes::FakeLoader::Script script;
    script.model = std::move(model);
    loader_.Set(name, std::move(script));
  }

  static fakes::FakeModel::Options EchoModel() {
    fakes::FakeModel::Options model;
    model.signature.platform = "fake";
    model.signature.inputs = {{"x", DType::kFp32, std::nullopt, false}};
    model.signature.outputs = {{"x", DType::kFp32, std::nullopt, false}};
    return model;
  }

  static InferRequest Request(const std::string& model, std::vector<float> values = {1, 2}) {
    const auto owner = std::make_shared<std::vector<float>>(std::move(values));
    InferRequest request;
    request.model = model;
    request.inputs = {{"x",
                       {DType::kFp32,
                        {static_cast<std::int64_t>(owner->size())},
                        std::as_bytes(std::span<const float>(*owner)),
                        owner}}};
    return request;
  }

  // An answer that may not be there yet.
  using Answer = std::shared_ptr<std::optional<absl::StatusOr<InferResponse>>>;
  Answer Infer(InferRequest request, std::stop_token cancelled = {}) {
    auto answer = std::make_shared<std::optional<absl::StatusOr<InferResponse>>>();
    infer_->Infer(std::move(request), std::move(cancelled),
                  [answer](absl::StatusOr<InferResponse> response) {
                    EXPECT_FALSE(answer->has_value()) << "answered twice";
                    answer->emplace(std::move(response));
                  });
    return answer;
  }

  // Everything that can be done now, is done.
  void RunAll() {
    while (load_.RunAll() + compute_.RunAll() > 0) {
    }
  }

  void MakeResident(const std::string& name) {
    std::optional<absl::StatusOr<LoadReport>> loaded;
    manager_->Load({name, 1}, {}, kNoDeadline, [&](auto report) { loaded = std::move(report); });
    load_.RunAll();
    ASSERT_TRUE(loaded && loaded->ok());
  }

  std::optional<ModelCache::Row> Row(const std::string& name) const {
    for (const ModelCache::Row& row : manager_->Snapshot()) {
      if (row.id.name == name) return row;
    }
    return std::nullopt;
  }

  bool Exposes(const std::string& line) const {
    return metrics_.Text().find("\n" + line + "\n") != std::string::npos;
  }

  std::filesystem::path root_;
  fakes::ManualClock clock_;
  fakes::ManualTimer timer_{clock_};
  fakes::ManualExecutor load_;
  fakes::ManualExecutor compute_;
  fakes::ManualExecutor reserve_;
  BufferPool buffers_{1 << 20};
  fakes::FakeLoader loader_;
  Metrics metrics_{{}};
  std::optional<Catalog> catalog_;
  std::optional<ModelManager> manager_;
  std::optional<VersionRoutes> versions_;
  std::optional<InferService> infer_;
  std::optional<RepositoryService> repository_;
};

inline std::string Text(const absl::Status& status) {
  return std::string(FromAbsl(status.message()));
}

}  // namespace hearth

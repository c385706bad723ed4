// A ModelManager on a manual clock, executor and timer: every interleaving is one thread's program.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/residency/model_manager.h"
#include "tests/fakes/fake_loader.h"
#include "tests/fakes/manual_clock.h"
#include "tests/fakes/manual_executor.h"
#include "tests/fakes/manual_timer.h"

namespace hearth {

// An answer to come. Copies see the same one.
template <typename T>
class Answer {
 public:
  auto callback() {
    return [state = state_](absl::StatusOr<T> result) {
      EXPECT_FALSE(state->has_value()) << "answered twice";
      state->emplace(std::move(result));
    };
  }
  bool done() const { return state_->has_value(); }
  absl::Status status() const {
    EXPECT_TRUE(done()) << "not answered";
    return done() ? (*state_)->status() : absl::UnknownError("not answered");
  }
  bool ok() const { return done() && status().ok(); }
  T& operator*() { return ***state_; }
  T* operator->() { return &***state_; }

 private:
  std::shared_ptr<std::optional<absl::StatusOr<T>>> state_ =
      std::make_shared<std::optional<absl::StatusOr<T>>>();
};

struct Cold : Answer<ModelManager::Acquired> {
  ModelManager::Ticket ticket = 0;
  void Release() { (**this).handle.Reset(); }
};

class ManagerTest : public testing::Test {
 protected:
  explicit ManagerTest(MemoryBudget::Capacity capacity = {0, 100, 100})
      : options_{.capacity = capacity} {}

  ~ManagerTest() override {
    if (!manager_) return;
    manager_->CheckInvariants();
    manager_->Shutdown();
    RunAll();
    manager_.reset();
    EXPECT_EQ(loader_.alive(), 0);
    EXPECT_EQ(loader_.rests(), 0);
    EXPECT_EQ(loader_.pages(), 0);
  }

  ModelManager& manager() {
    if (!manager_) {
      manager_ = std::make_unique<ModelManager>(
          ModelManager::Deps{
              .find_spec =
                  [this](const ModelId& id) -> absl::StatusOr<ModelSpec> {
                if (!spec_error_.ok()) return spec_error_;
                ModelSpec spec{id, "fake", id.name, spec_options_};
                spec.revision = revision_;
                return spec;
              },
              .find_loader = [this](std::string_view) -> absl::StatusOr<const Loader*> {
                return &loader_;
              },
              .load_executor = executor_,
              .timer = timer_,
              .clock = clock_,
              .metrics = metrics_,
              .eviction = policy_,
              .background_executor = &background_,
              .devices = devices_,
              .lost_bytes = [this] { return lost_; }},
          options_);
    }
    return *manager_;
  }

  static ModelId Id(const std::string& model) { return {model, 1}; }
  static Footprint Host(std::uint64_t bytes) { return {0, bytes, {}}; }
  static Footprint On(DeviceNumber device, std::uint64_t bytes, std::uint64_t host = 0) {
    return {.device_bytes = bytes, .host_bytes = host, .device = device};
  }

  // A model that holds `host` bytes.
  fakes::FakeLoader::Script Sized(std::uint64_t host) {
    fakes::FakeLoader::Script script;
    script.model.footprint = Host(host);
    return script;
  }
  void Exists(const std::string& model, std::uint64_t host) { loader_.Set(model, Sized(host)); }

  // On both executors, until nothing is left to do.
  void RunAll() {
    while (executor_.RunAll() + background_.RunAll() > 0) {
    }
  }

  Cold Acquire(const std::string& model, Deadline deadline = kNoDeadline) {
    Cold cold;
    clock_.Advance(std::chrono::milliseconds(1));
    cold.ticket = manager().Acquire(Id(model), deadline, cold.callback());
    return cold;
  }
  Answer<LoadReport> Load(const std::string& model, ModelManager::LoadRequest request = {}) {
    Answer<LoadReport> answer;
    clock_.Advance(std::chrono::milliseconds(1));
    manager().Load(Id(model), request, kNoDeadline, answer.callback());
    return answer;
  }
  // Loaded, used just now, and not pinned.
  void Resident(const std::string& model, std::uint64_t host) {
    Exists(model, host);
    Cold cold = Acquire(model);
    executor_.RunAll();
    ASSERT_TRUE(cold.ok()) << cold.status();
    cold.Release();
  }
  // Loaded and held by the answer.
  Cold Held(const std::string& model, std::uint64_t host) {
    Exists(model, host);
    Cold cold = Acquire(model);
    executor_.RunAll();
    EXPECT_TRUE(cold.ok()) << cold.status();
    return cold;
  }
  bool IsResident(const std::string& model) { return static_cast<bool>(manager().Peek(Id(model))); }
  std::uint64_t used() { return manager().usage().used().host_bytes; }
  std::vector<std::string> States(const std::string& model) {
    std::vector<std::string> states;
    for (const auto& row : manager().Snapshot()) {
      if (row.id == Id(model)) states.emplace_back(ToString(row.state));
    }
    return states;
  }
  void Pass(Duration time) {
    clock_.Advance(time);
    timer_.RunDue();
    RunAll();
  }

  ModelManager::Options options_;
  const LruPolicy lru_;
  const EvictionPolicy* policy_ = &lru_;  // who goes can be told from the order of calls
  DeviceNames devices_;
  Bytes lost_;  // what frees have failed to give back
  absl::Status spec_error_;
  std::uint64_t revision_ = 0;  // of every model
  ModelOptions spec_options_;  // of every model
  fakes::ManualClock clock_;
  fakes::ManualExecutor executor_;
  fakes::ManualExecutor background_;
  fakes::ManualTimer timer_{clock_};
  fakes::FakeLoader loader_;
  Metrics metrics_{{}};
  std::unique_ptr<ModelManager> manager_;
};

MATCHER_P2(Fails, code, text, "") {
  return arg.code() == code &&
         std::string(arg.message()).find(text) != std::string::npos;
}

}  // namespace hearth

// A loader without files: does what the test scripted for each model.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include "server/base/mutex.h"
#include "server/model/loader.h"
#include "tests/fakes/fake_model.h"
#include "tests/fakes/fake_rest.h"

namespace hearth::fakes {

// Thread-safe; `on_load` and friends run without its lock.
class FakeLoader final : public Loader {
 public:
  struct Script {
    FakeModel::Options model;         // `model.footprint` is what the loaded model measures
    std::optional<Footprint> peak;    // what Estimate() says; none: as measured
    std::optional<FakeRest::Options> rest;  // what is left of its models; none: nothing
    bool files_changed = false;             // so that EstimateRest() has none
    absl::Status estimate_error;
    absl::Status load_error;
    std::function<void()> on_estimate;                               // before Estimate() decides
    std::function<void(const ModelSpec&, std::stop_token)> on_load;  // before Load() decides
  };

  // Models never scripted load with an empty footprint.
  void Set(const std::string& model, Script script) {
    MutexLock lock(mu_);
    scripts_[model] = std::move(script);
  }
  // The `n`th call from now, of any model, fails. 1 is the next one.
  void FailLoad(int n, absl::Status error) {
    MutexLock lock(mu_);
    load_faults_[loads_ + n] = std::move(error);
  }
  void FailEstimate(int n, absl::Status error) {
    MutexLock lock(mu_);
    estimate_faults_[estimates_ + n] = std::move(error);
  }

  absl::StatusOr<LoadEstimate> Estimate(const ModelSpec& spec) const override {
    Script script;
    absl::Status fault;
    {
      MutexLock lock(mu_);
      script = Find(spec.id.name);
      ++estimates_by_model_[spec.id.name];
      fault = Fault(estimate_faults_, ++estimates_);
    }
    if (script.on_estimate) script.on_estimate();
    HEARTH_RETURN_IF_ERROR(fault);
    HEARTH_RETURN_IF_ERROR(script.estimate_error);
    return LoadEstimate{script.peak.value_or(script.model.footprint), script.model.footprint,
                        std::make_shared<Opened>(opened_)};
  }

  std::optional<LoadEstimate> EstimateRest(const ModelSpec& spec, const Rest&) const override {
    MutexLock lock(mu_);
    const Script script = Find(spec.id.name);
    if (script.files_changed) return std::nullopt;
    return LoadEstimate{script.peak.value_or(script.model.footprint), script.model.footprint};
  }

  using Loader::Load;
  absl::StatusOr<std::unique_ptr<Model>> Load(const ModelSpec& spec, const OpenedFiles*,
                                              std::stop_token stop) const override {
    Script script;
    absl::Status fault;
    {
      MutexLock lock(mu_);
      script = Find(spec.id.name);
      ++loads_by_model_[spec.id.name];
      fault = Fault(load_faults_, ++loads_);
    }
    if (script.on_load) script.on_load(spec, stop);
    HEARTH_RETURN_IF_ERROR(fault);
    HEARTH_RETURN_IF_ERROR(script.load_error);
    if (stop.stop_requested()) return absl::CancelledError("stopped");
    ++*alive_;
    script.model.on_destroy = [alive = alive_, then = std::move(script.model.on_destroy)] {
      if (then) then();
      --*alive;
    };
    if (script.rest) script.model.rest = std::make_shared<FakeRest>(*script.rest, rests_, pages_);
    return std::make_unique<FakeModel>(std::move(script.model));
  }

  int loads(const std::string& model) const {
    MutexLock lock(mu_);
    return Count(loads_by_model_, model);
  }
  int estimates(const std::string& model) const {
    MutexLock lock(mu_);
    return Count(estimates_by_model_, model);
  }
  int alive() const { return *alive_; }  // models that exist
  int opened() const { return *opened_; }  // estimates that keep files open
  int rests() const { return *rests_; }  // also those of models that exist
  int pages() const { return *pages_; }  // of rests, held

 private:
  struct Opened final : OpenedFiles {
    explicit Opened(FakeRest::Count n) : count(std::move(n)) { ++*count; }
    ~Opened() override { --*count; }
    const FakeRest::Count count;
  };

  using Counts = std::map<std::string, int>;
  using Faults = std::map<int, absl::Status>;

  Script Find(const std::string& model) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const auto found = scripts_.find(model);
    return found == scripts_.end() ? Script{} : found->second;
  }
  static absl::Status Fault(const Faults& faults, int call) {
    const auto found = faults.find(call);
    return found == faults.end() ? absl::OkStatus() : found->second;
  }
  static int Count(const Counts& counts, const std::string& model) {
    const auto found = counts.find(model);
    return found == counts.end() ? 0 : found->second;
  }

  const FakeRest::Count alive_ = std::make_shared<std::atomic<int>>(0), opened_ = std::make_shared<std::atomic<int>>(0);
  const FakeRest::Count rests_ = std::make_shared<std::atomic<int>>(0), pages_ = std::make_shared<std::atomic<int>>(0);
  mutable Mutex mu_;
  std::map<std::string, Script> scripts_ ABSL_GUARDED_BY(mu_);
  Faults load_faults_ ABSL_GUARDED_BY(mu_);
  Faults estimate_faults_ ABSL_GUARDED_BY(mu_);
  mutable int loads_ ABSL_GUARDED_BY(mu_) = 0;
  mutable int estimates_ ABSL_GUARDED_BY(mu_) = 0;
  mutable Counts loads_by_model_ ABSL_GUARDED_BY(mu_);
  mutable Counts estimates_by_model_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hearth::fakes

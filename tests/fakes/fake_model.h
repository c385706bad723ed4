// A model without a program.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "server/model/model.h"

namespace hearth::fakes {

// Answers with its inputs unless told otherwise. Thread-safe if `run` is.
class FakeModel final : public Model {
 public:
  struct Options {
    Signature signature{.platform = "fake", .inputs = {}, .outputs = {}, .declared_outputs = {}};
    Footprint footprint;
    LoadReport report;
    std::function<absl::StatusOr<TensorList>(const TensorList&, Session*)> run;  // none: echo
    std::shared_ptr<const Rest> rest;
    std::function<std::unique_ptr<Session>()> new_session;  // none: it is not stateful
    std::function<void()> on_destroy;  // first thing in the destructor
  };

  explicit FakeModel(Options options) : options_(std::move(options)) {}
  ~FakeModel() override {
    if (options_.on_destroy) options_.on_destroy();
  }

  const Signature& signature() const override { return options_.signature; }
  const Footprint& footprint() const override { return options_.footprint; }
  const LoadReport& load_report() const override { return options_.report; }
  std::shared_ptr<const Rest> rest() const override { return options_.rest; }
  bool stateful() const override { return options_.new_session != nullptr; }
  absl::StatusOr<std::unique_ptr<Session>> NewSession() const override {
    return options_.new_session ? options_.new_session() : std::make_unique<Session>();
  }
  absl::StatusOr<TensorList> Run(const TensorList& inputs, Session* session) const override {
    return options_.run ? options_.run(inputs, session) : inputs;
  }

 private:
  const Options options_;
};

}  // namespace hearth::fakes

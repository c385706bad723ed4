// A loaded AOTInductor package behind the Model interface.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "server/model/model.h"
#include "server/torch_backend/aoti_container.h"
#include "server/torch_backend/aoti_signature.h"
#include "server/torch_backend/background_verifier.h"
#include "server/torch_backend/source_file.h"

namespace hearth {

// Writes nothing between runs: a package that changes its buffers is refused at load, so a session has
// nothing to hold.
//
// Thread-safe, as Model asks.
class AotiModel final : public Model {
 public:
  AotiModel(std::unique_ptr<AotiContainer> container, std::vector<SourceFile> files, SourceUse use,
            std::shared_ptr<Device> device, AotiSignature signature, int threads)
      : files_(std::move(files)),
        use_(std::move(use)),
        device_(std::move(device)),
        signature_(std::move(signature)),
        threads_(threads),
        container_(std::move(container)) {}

  const Signature& signature() const override { return signature_.signature(); }
  const Footprint& footprint() const override { return footprint_; }
  const LoadReport& load_report() const override { return report_; }
  std::shared_ptr<const Rest> rest() const override { return rest_; }
  absl::StatusOr<std::unique_ptr<Session>> NewSession() const override { return std::make_unique<Session>(); }
  absl::StatusOr<TensorList> Run(const TensorList& inputs, Session* session) const override;

  // Only while loading, before anybody else sees the model.
  // Runs made-up inputs. FAILED_PRECONDITION: the program has written to its buffers.
  absl::Status Probe() const;
  void LearnOutputs(const TensorList& outputs) { signature_.LearnOutputs(outputs); }
  void set_check(std::unique_ptr<BackgroundVerifier::Check> check) { check_ = std::move(check); }
  void set_footprint(Footprint footprint) { footprint_ = std::move(footprint); }
  void set_report(const LoadReport& report) { report_ = report; }
  void set_rest(std::shared_ptr<const Rest> rest) { rest_ = std::move(rest); }

 private:
  absl::StatusOr<TensorList> RunChecked(const std::vector<const Tensor*>& inputs) const;

  const std::vector<SourceFile> files_;  // that weights are mapped from; none where they are on a device
  const SourceUse use_;
  const DeviceUse device_;
  AotiSignature signature_;
  const int threads_;  // UseTorchThreads()
  const std::unique_ptr<AotiContainer> container_;
  Footprint footprint_;
  LoadReport report_;
  std::shared_ptr<const Rest> rest_;
  std::unique_ptr<const BackgroundVerifier::Check> check_;  // null: the weights are not being verified
};

}  // namespace hearth

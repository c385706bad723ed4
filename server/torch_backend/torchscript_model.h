// A loaded TorchScript module behind the Model interface.
#pragma once

#include <memory>
#include <vector>

#include "server/base/mutex.h"
#include "server/model/model.h"
#include "server/torch_backend/background_verifier.h"
#include "server/torch_backend/program_signature.h"
#include "server/torch_backend/script_source.h"
#include "server/torch_backend/script_session.h"

namespace hearth {

// Runs one method of a module. Most modules write nothing and every run shares the one module; one
// that writes gets a copy of just that per session (script_session.h).
//
// Safety net: the version counters of all weights are compared after every run. If one moved although
// analysis said that nothing writes it, the weights are bound anew from the file, the attribute counts
// as written from then on, and the run is repeated from the fresh state: no request ever sees what
// another one wrote.
//
// The mapping of the weights may be shared with other models, and says when anybody wrote to it
// (MappedFile::written()). That is looked at after every run, too: then the run is repeated with a
// mapping that nobody has written to. A run that is disturbed twice, and whose own counters are still, is
// taken for the one that writes, past the counters: its model gets a mapping of its own, where it disturbs
// nobody else.
//
// Thread-safe, as Model asks.
class TorchScriptModel final : public Model {
 public:
  struct Parts {
    ScriptSource source;  // kept to bind anew; shares the mappings with the weights
    SourceUse use;        // of `source`
    BoundModule bound;
    std::shared_ptr<Device> device;  // never null
    std::string method;
    ProgramSignature program;
    std::shared_ptr<MappedFiles> files;  // where an untouched mapping comes from
    int threads = 0;                     // UseTorchThreads()
  };
  // INVALID_ARGUMENT: the module has no such method.
  static absl::StatusOr<std::unique_ptr<TorchScriptModel>> Create(Parts parts);

  const Signature& signature() const override { return program_.signature; }
  const Footprint& footprint() const override { return footprint_; }
  const LoadReport& load_report() const override { return report_; }
  std::shared_ptr<const Rest> rest() const override { return rest_; }
  bool stateful() const override;
  absl::StatusOr<std::unique_ptr<Session>> NewSession() const override;
  absl::StatusOr<TensorList> Run(const TensorList& inputs, Session* session) const override;

  // Only while loading, before anybody else sees the model.
  void set_footprint(Footprint footprint) { footprint_ = std::move(footprint); }
  void set_report(const LoadReport& report) { report_ = report; }
  void set_rest(std::shared_ptr<const Rest> rest) { rest_ = std::move(rest); }
  void LearnOutputs(const TensorList& outputs);  // data types that only a run can tell
  void set_outputs(std::vector<TensorInfo> outputs) { program_.signature.outputs = std::move(outputs); }
  void set_check(std::unique_ptr<BackgroundVerifier::Check> check) { check_ = std::move(check); }
  std::uint64_t session_bytes() const;

 private:
  // One binding of the weights, with what is known about writes to it. Immutable, but for the weights
  // a program writes against expectation; then a new one takes its place.
  struct Binding {
    ScriptSource source;
    SourceUse use;
    BoundModule bound;
    torch::jit::Function* function;           // the method, owned by the module's class
    std::vector<AttributeTensor> attributes;  // fixed order, the same in every binding
    std::vector<std::uint32_t> versions;      // of attributes, then constants; as loaded
    SessionPlan plan;
  };
  class ScriptSession;

  // What became of a binding in the course of a run.
  struct Disturbance {
    std::vector<std::size_t> changed;  // indices into `versions` of what this model has written
    bool written = false;              // somebody has written to a mapping
    bool any() const { return written || !changed.empty(); }
  };

  explicit TorchScriptModel(Parts& parts);

  static absl::StatusOr<std::shared_ptr<const Binding>> MakeBinding(
      ScriptSource source, SourceUse use, BoundModule bound, const std::string& method,
      const std::vector<std::size_t>& also_written);
  std::shared_ptr<const Binding> CurrentBinding() const ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<TensorList> RunOn(const Binding& binding, torch::jit::Module module,
                                   const TensorList& inputs) const;
  // What happens to the files and their mappings does not reach weights that were copied to a device.
  absl::Status Intact(const Binding& binding) const;
  Disturbance Disturbed(const Binding& binding) const;
  // Replaces `spoilt`, unless somebody already has. FAILED_PRECONDITION when only constants changed.
  // `own_mapping`: from now on, the model shares no mapping.
  absl::Status Rebind(const std::shared_ptr<const Binding>& spoilt, const Disturbance& disturbance,
                      bool own_mapping) const ABSL_LOCKS_EXCLUDED(mu_);

  const std::shared_ptr<MappedFiles> files_;
  const DeviceUse device_;
  const std::string method_;
  const int threads_;
  ProgramSignature program_;
  Footprint footprint_;
  LoadReport report_;
  std::shared_ptr<const Rest> rest_;
  std::unique_ptr<const BackgroundVerifier::Check> check_;  // null: the weights are not being verified

  mutable Mutex mu_;
  mutable std::shared_ptr<const Binding> binding_ ABSL_GUARDED_BY(mu_);
  mutable std::vector<std::size_t> also_written_ ABSL_GUARDED_BY(mu_);  // indices into attributes
  mutable bool own_mapping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace hearth

#include "server/torch_backend/torchscript_loader.h"

#include <optional>
#include <utility>

#include "server/model/phase_timer.h"
#include "server/torch_backend/device.h"
#include "server/torch_backend/devices.h"
#include "server/torch_backend/host_bytes.h"
#include "server/torch_backend/integrity.h"
#include "server/torch_backend/program_cache.h"
#include "server/torch_backend/runtime.h"
#include "server/torch_backend/script_source.h"
#include "server/torch_backend/state_analysis.h"
#include "server/torch_backend/torch_status.h"
#include "server/torch_backend/torchscript_model.h"
#include "server/torch_backend/warm_up.h"

namespace hearth {
namespace {

// What a program costs beside its tensors: graphs, types and the executor's plans. LibTorch does not
// say, and the heap of one thread cannot be told from another's: a guess from the size of the code.
std::uint64_t ProgramBytes(std::uint64_t code_bytes) { return 256 * 1024 + 48 * code_bytes; }

Footprint FootprintOf(const ScriptSource& source, const Device& device, std::uint64_t host_bytes) {
  Footprint footprint;
  footprint.host_bytes = host_bytes + source.sealed_bytes();
  if (device.is_host()) {
    footprint.extents = source.extents();
  } else {
    footprint.device_bytes = source.weight_bytes();
    footprint.device = device.number();
  }
  return footprint;
}

// What a warm-up depends on: the method, what model.yaml says about inputs, outputs and samples, and the
// types and shapes of the weights.
std::string WarmUpKey(const ModelSpec& spec, const torch::jit::Module& module) {
  const ModelOptions& options = spec.options;
  std::string key = StrCat(options.method, "|", options.device, "|", options.max_batch_size);
  const auto add_infos = [&key](const std::vector<TensorInfo>& infos) {
    for (const TensorInfo& info : infos) {
      absl::StrAppend(&key, "|", info.name, ToAbsl(ToString(info.dtype)),
                      info.shape ? ToString(*info.shape) : "?");
    }
    key += '/';
  };
  add_infos(options.inputs);
  add_infos(options.outputs);
  for (const WarmUpSample& sample : options.warm_up) {
    for (const WarmUpSample::Input& input : sample.inputs) {
      absl::StrAppend(&key, "|", input.name, ToAbsl(ToString(input.dtype)), ToString(input.shape),
                      static_cast<int>(input.fill), input.value.value_or(0));
    }
    absl::StrAppend(&key, "x", sample.count, "/");
  }
  for (const AttributeTensor& attribute : AttributeTensors(module)) {
    absl::StrAppend(&key, static_cast<int>(attribute.tensor.scalar_type()), ":");
    for (const std::int64_t size : attribute.tensor.sizes()) absl::StrAppend(&key, size, ",");
  }
  return key;
}

using OpenedScript = Opened<ScriptSource>;

class TorchScriptLoader final : public Loader {
 public:
  explicit TorchScriptLoader(TorchScriptOptions options)
      : options_(std::move(options)),
        files_(options_.mapped_files ? options_.mapped_files : std::make_shared<MappedFiles>()),
        verifier_(options_.verifier ? options_.verifier : std::make_shared<BackgroundVerifier>(files_)),
        devices_(options_.devices ? options_.devices : std::make_shared<Devices>()),
        programs_(options_.kept_program_bytes, options_.kept_programs) {
    InitialiseTorch();
  }

  absl::StatusOr<LoadEstimate> Estimate(const ModelSpec& spec) const override {
    HEARTH_ASSIGN_OR_RETURN(const std::shared_ptr<Device> device, devices_->Find(spec.options.device));
    LoadReport report{.began = std::chrono::steady_clock::now()};
    std::optional<ScriptSource> source;
    {
      const PhaseTimer timer(report, LoadPhase::kOpen);
      const auto begun = BeginReading(spec, options_.populate, *files_);
      HEARTH_ASSIGN_OR_RETURN(source, OpenScriptSource(spec, *files_, /*seal=*/false));
    }
    return EstimateOf(*std::move(source), std::move(report), *device);
  }

  std::optional<LoadEstimate> EstimateRest(const ModelSpec& spec, const Rest& rest) const override {
    const auto* left = dynamic_cast<const OpenedScript*>(&rest);
    const auto device = devices_->Find(spec.options.device);
    if (left == nullptr || !device.ok() || !AsOpened(left->source.files)) return std::nullopt;
    return EstimateOf(left->source, {.began = std::chrono::steady_clock::now()}, **device);
  }

  absl::StatusOr<std::unique_ptr<Model>> Load(const ModelSpec& spec, const OpenedFiles* opened_before,
                                              std::stop_token stop) const override {
    HostByteCounter host_bytes;
    const auto* before = static_cast<const OpenedScript*>(opened_before);
    LoadReport report{.began = before != nullptr ? before->report.began : std::chrono::steady_clock::now()};
    HEARTH_ASSIGN_OR_RETURN(const std::shared_ptr<Device> device, devices_->Find(spec.options.device));
    HEARTH_ASSIGN_OR_RETURN(BoundSource opened, OpenAndBind(spec, before, *device, stop, report));
    auto& [source, own, use, pages, program_found, bound, rest] = opened;
    const std::uint64_t code_bytes = source.program.code_bytes;
    programs_.Keep(program_found, ProgramBytes(code_bytes));
    const std::string warm_up = WarmUpKey(spec, bound.module);
    if (stop.stop_requested()) return absl::CancelledError("the load was cancelled");

    const auto method = bound.module.find_method(spec.options.method);
    ProgramSignature program;
    if (method) {  // its absence is reported by Create(), with the names there are
      HEARTH_ASSIGN_OR_RETURN(program, ReadSignature(method->function().getSchema(), spec.options));
    }
    Footprint footprint = FootprintOf(source, *device, 0);
    if (device->is_host()) {
      HEARTH_RETURN_IF_ERROR(MakeResident(use, *pages, ResidencyOf(spec.options, options_.populate), report));
    } else {
      pages.reset();
      use = SourceUse();  // they have done their service
    }

    std::unique_ptr<BackgroundVerifier::Check> check;
    if (spec.options.integrity == Integrity::kBackground) check = verifier_->Prepare(spec.id, Checksums(source));
    absl::StatusOr<std::unique_ptr<TorchScriptModel>> made;
    {
      const PhaseTimer timer(report, LoadPhase::kAnalyse);
      made = TorchScriptModel::Create({std::move(source), std::move(use), std::move(bound), device,
                                       spec.options.method, std::move(program), files_, spec.options.intra_op_threads});
    }
    HEARTH_ASSIGN_OR_RETURN(std::unique_ptr<TorchScriptModel> model, std::move(made));
    HEARTH_RETURN_IF_ERROR(WarmUpOnce(*program_found.program, warm_up, *model, spec, stop, report));
    footprint.host_bytes += ProgramBytes(code_bytes) + host_bytes.held();
    (device->is_host() ? footprint.host_bytes : footprint.device_bytes) += model->session_bytes();
    model->set_footprint(std::move(footprint));
    model->set_report(report);
    model->set_rest(std::move(rest));
    if (check != nullptr) {
      verifier_->Begin(*check);
      model->set_check(std::move(check));
    }
    return model;
  }

 private:
  struct BoundSource {
    ScriptSource source;
    std::vector<SourceFile> own;  // the files before any of them was shared
    SourceUse use;
    std::unique_ptr<PagesAhead> pages;
    ProgramCache::Found program;
    BoundModule bound;
    std::shared_ptr<const Rest> rest;  // of a model on a device: the files as `own` has them
  };

  LoadEstimate EstimateOf(ScriptSource opened, LoadReport report, const Device& device) const {
    auto files = std::make_shared<OpenedScript>(std::move(opened));
    files->report = std::move(report);
    files->shared = Shared(files->source, *files_, MappedFiles::Own::kKeep);
    const ScriptSource& source = *files->shared;
    const std::uint64_t host = ProgramBytes(source.program.code_bytes) + source.copied_bytes();
    LoadEstimate estimate{FootprintOf(source, device, host), FootprintOf(source, device, host), nullptr};
    if (!device.is_host()) {  // mapped while it is copied to the device
      estimate.peak.extents = source.extents();
    }
    estimate.opened = std::move(files);
    return estimate;
  }

  // Other models may write to what they share with this one while it is read and copied here: then all of
  // it is done again with a mapping that nobody has written to.
  absl::StatusOr<BoundSource> OpenAndBind(const ModelSpec& spec, const OpenedScript* before, Device& device,
                                          const std::stop_token& stop, LoadReport& report) const {
    while (true) {
      report = LoadReport{.began = report.began};
      HEARTH_ASSIGN_OR_RETURN(BoundSource made, Open(spec, std::exchange(before, nullptr), device, stop, report));
      const Verdict verdict = Verify(spec, made.source, stop, report);
      if (made.source.written()) continue;
      if (verdict.damaged && !made.source.sealed) {
        files_->Distrust(*verdict.damaged);
        // Another model's file, whose bytes are stated to be the same: those of its own may be whole.
        if (!AnyIs(made.own, *verdict.damaged)) continue;
      }
      HEARTH_RETURN_IF_ERROR(verdict.status);
      if (stop.stop_requested()) return absl::CancelledError("the load was cancelled");
      made.pages = std::make_unique<PagesAhead>(made.use, PagesFor(spec, device), stop);
      made.program = FindProgram(made.source, device, report);
      auto bound = BindSource(*made.program.program, made.source, device, report, stop);
      if (made.source.written()) continue;
      if (!bound.ok()) return bound.status();
      if (!device.is_host()) HEARTH_RETURN_IF_ERROR(made.source.Intact());  // it is what was copied
      made.bound = *std::move(bound);
      return made;
    }
  }

  absl::StatusOr<BoundSource> Open(const ModelSpec& spec, const OpenedScript* before, const Device& device,
                                   const std::stop_token& stop, LoadReport& report) const {
    std::optional<ScriptSource> source;
    const bool sealed = spec.options.residency == Residency::kSealed;
    if (before != nullptr) report = before->report;
    if (before != nullptr && !sealed && AsOpened(before->source.files)) {
      source = before->source;
    } else {
      PhaseTimer timer(report, sealed ? LoadPhase::kRead : LoadPhase::kOpen);
      HEARTH_ASSIGN_OR_RETURN(source, OpenScriptSource(spec, *files_, /*seal=*/true, stop));
      timer.AddBytes(source->sealed_bytes());
    }
    PhaseTimer timer(report, LoadPhase::kMap);
    std::vector<SourceFile> own = source->files;
    std::shared_ptr<const Rest> rest;  // of what is sealed none: what happens to its files is not to matter
    if (!device.is_host() && !sealed) rest = std::make_shared<OpenedScript>(*source);
    source = Shared(*std::move(source), *files_, MappedFiles::Own::kOffer);
    SourceUse use(source->files);
    use.Report(source->sealed, report);
    timer.AddBytes(report.mapped_bytes);
    return BoundSource{*std::move(source), std::move(own), std::move(use), nullptr, {}, {}, std::move(rest)};
  }

  Verdict Verify(const ModelSpec& spec, const ScriptSource& source, const std::stop_token& stop,
                 LoadReport& report) const {
    if (!verifier_->OnLoad(spec.options.integrity, source.files)) return {};
    PhaseTimer timer(report, LoadPhase::kVerify);
    timer.AddBytes(FileBytes(source.files));
    Verdict verdict = VerifyChecksums(Checksums(source), stop);
    if (verdict.status.ok()) verifier_->Acquit(source.files);
    return verdict;
  }

  static std::vector<Checksummed<MappedFile>> Checksums(const ScriptSource& source) {
    std::vector<Checksummed<MappedFile>> parts = ChecksummedParts(source.program);
    for (auto& part : ChecksummedParts(source.weights)) parts.push_back(std::move(part));
    return parts;
  }

  PagesAhead::Which PagesFor(const ModelSpec& spec, const Device& device) const {
    return device.is_host() ? PagesOf(ResidencyOf(spec.options, options_.populate)) : PagesAhead::Which::kCold;
  }

  ProgramCache::Found FindProgram(const ScriptSource& source, const Device& device, LoadReport& report) const {
    const PhaseTimer timer(report, LoadPhase::kParse);
    ProgramCache::Found found = programs_.Find(source.program, device);
    report.kept_program = found.kept;
    return found;
  }

  // A kept program has its plans from an earlier warm-up of the same kind.
  static absl::Status WarmUpOnce(ScriptProgram& program, const std::string& key, TorchScriptModel& model,
                                 const ModelSpec& spec, const std::stop_token& stop, LoadReport& report) {
    if (auto outputs = program.Warmed(key)) {
      model.set_outputs(*std::move(outputs));
      return absl::OkStatus();
    }
    const PhaseTimer timer(report, LoadPhase::kWarmUp);
    bool has_run = false;
    HEARTH_RETURN_IF_ERROR(WarmUp(model, spec, stop, [&](const TensorList& outputs) {
      model.LearnOutputs(outputs);
      has_run = true;
    }));
    if (!has_run) program.HurryOnce();
    program.SetWarmed(key, model.signature().outputs);
    return absl::OkStatus();
  }

  const TorchScriptOptions options_;
  const std::shared_ptr<MappedFiles> files_;  // models keep it, to bind anew
  const std::shared_ptr<BackgroundVerifier> verifier_;
  const std::shared_ptr<Devices> devices_;
  mutable ProgramCache programs_;
};

}  // namespace

std::unique_ptr<Loader> MakeTorchScriptLoader(TorchScriptOptions options) {
  return std::make_unique<TorchScriptLoader>(std::move(options));
}

}  // namespace hearth

#include "server/torch_backend/aoti_loader.h"

#include <chrono>
#include <optional>
#include <utility>

#include "server/base/cpu_features.h"
#include "server/base/log.h"
#include "server/model/phase_timer.h"
#include "server/storage/aoti_package.h"
#include "server/storage/weights_file.h"
#include "server/torch_backend/aoti_model.h"
#include "server/torch_backend/aoti_programs.h"
#include "server/torch_backend/device.h"
#include "server/torch_backend/host_bytes.h"
#include "server/torch_backend/integrity.h"
#include "server/torch_backend/runtime.h"
#include "server/torch_backend/warm_up.h"

namespace hearth {
namespace {

// A container with its names and handles. LibTorch does not say: a guess.
constexpr std::uint64_t kContainerBytes = 256 * 1024;

// Opened and checked, nothing read but headers, and nothing run.
struct AotiSource {
  AotiPackage package;
  Weights weights;
  std::vector<SourceFile> files;  // of weights
  std::vector<SourceFile> own = {};  // the same before any of them was shared
  bool sealed = false;            // or to be: copies of those files in memory, and no extents of them
  std::shared_ptr<const Rest> rest = nullptr;  // for a device: the same before any of it was shared

  // With its weights where others have mapped the same. What is sealed is shared with nobody.
  void Share(MappedFiles& mapped, MappedFiles::Own how) {
    if (sealed) return;
    own = files;
    mapped.Share(weights, how);
    files.clear();
    AddFilesOf(weights, files);
  }
  std::uint64_t sealed_bytes() const { return sealed ? FileBytes(files) : 0; }
  std::vector<Extent> extents() const {
    std::vector<Extent> extents;
    if (sealed) return extents;
    for (const SourceFile& file : files) {
      for (const Extent& extent : Extents(file)) extents.push_back(extent);
    }
    return extents;
  }
};

using OpenedAoti = Opened<AotiSource>;

// Whether `opened` is what there is still.
bool IsAsOpened(const ModelSpec& spec, const AotiSource& opened) {
  const auto package = AotiPackage::Open(spec.file);
  return package.ok() && package->ids() == opened.package.ids() && AsOpened(opened.files);
}

// `seal`: weights are copied, with residency: sealed. Not for an estimate.
absl::StatusOr<AotiSource> OpenSource(const ModelSpec& spec, const Device& device, MappedFiles& mapped, bool seal,
                                      std::stop_token stop = {}) {
  HEARTH_ASSIGN_OR_RETURN(AotiPackage package, AotiPackage::Open(spec.file));
  if (package.has_metadata()) {
    HEARTH_ASSIGN_OR_RETURN(const CpuFeatures features, ReadCpuFeatures());
    if (const absl::Status fit = CheckMachine(package.metadata(), MachineName(), features); !fit.ok()) {
      return AboutFile(spec.file, fit);
    }
  }
  const std::string& compiled = package.metadata().device;
  if (!compiled.empty() && compiled != c10::DeviceTypeName(device.torch().type(), /*lower_case=*/true)) {
    return AboutFile(spec.file, absl::FailedPreconditionError(StrCat(
        "was compiled for the device '", compiled, "', and model.yaml asks for '", spec.options.device, "'")));
  }
  const bool sealed = spec.options.residency == Residency::kSealed;
  const OpenWeights open = Opener(mapped, sealed && seal, std::move(stop));
  HEARTH_ASSIGN_OR_RETURN(Weights weights, ReadAllWeights(spec.weights, open));
  std::vector<SourceFile> files;
  AddFilesOf(weights, files);
  return AotiSource{std::move(package), std::move(weights), std::move(files), {}, sealed};
}

class AotiLoader final : public Loader {
 public:
  explicit AotiLoader(AotiOptions options)
      : options_(std::move(options)),
        files_(options_.mapped_files ? options_.mapped_files : std::make_shared<MappedFiles>()),
        verifier_(options_.verifier ? options_.verifier : std::make_shared<BackgroundVerifier>(files_)),
        devices_(options_.devices ? options_.devices : std::make_shared<Devices>()),
        programs_(options_.temporary) {
    InitialiseTorch();
  }

  absl::StatusOr<LoadEstimate> Estimate(const ModelSpec& spec) const override {
    HEARTH_ASSIGN_OR_RETURN(const std::shared_ptr<Device> device, devices_->Find(spec.options.device));
    LoadReport report{.began = std::chrono::steady_clock::now()};
    std::optional<AotiSource> source;
    {
      const PhaseTimer timer(report, LoadPhase::kOpen);
      const auto begun = BeginReading(spec, options_.populate, *files_);
      HEARTH_ASSIGN_OR_RETURN(source, OpenSource(spec, *device, *files_, /*seal=*/false));
    }
    return EstimateOf(*std::move(source), std::move(report), *device);
  }

  std::optional<LoadEstimate> EstimateRest(const ModelSpec& spec, const Rest& rest) const override {
    const auto* left = dynamic_cast<const OpenedAoti*>(&rest);
    const auto device = devices_->Find(spec.options.device);
    if (left == nullptr || !device.ok() || !IsAsOpened(spec, left->source)) return std::nullopt;
    return EstimateOf(left->source, {.began = std::chrono::steady_clock::now()}, **device);
  }

  absl::StatusOr<std::unique_ptr<Model>> Load(const ModelSpec& spec, const OpenedFiles* opened_before,
                                              std::stop_token stop) const override {
    HostByteCounter host_bytes;
    const auto* before = static_cast<const OpenedAoti*>(opened_before);
    LoadReport report{.began = before != nullptr ? before->report.began : std::chrono::steady_clock::now()};
    HEARTH_ASSIGN_OR_RETURN(const std::shared_ptr<Device> device, devices_->Find(spec.options.device));
    HEARTH_ASSIGN_OR_RETURN(AotiSource source, OpenAndVerify(spec, before, *device, stop, report));
    SourceUse use(source.files);
    use.Report(source.sealed, report);
    if (stop.stop_requested()) return absl::CancelledError("the load was cancelled");
    const Residency residency = ResidencyOf(spec.options, options_.populate);
    std::optional<PagesAhead> pages;
    pages.emplace(use, device->is_host() ? PagesOf(residency) : PagesAhead::Which::kCold, stop);
    HEARTH_ASSIGN_OR_RETURN(std::unique_ptr<AotiContainer> container, Parse(spec, source, device->torch(), report));
    HEARTH_ASSIGN_OR_RETURN(AotiSignature signature,
                            AotiSignature::Make(source.package.metadata(), spec.options, container->inputs(),
                                                container->outputs()));
    HEARTH_RETURN_IF_ERROR(container->Bind(source.weights, source.package.metadata(), *device, stop, report));
    if (!device->is_host()) HEARTH_RETURN_IF_ERROR(Intact(source.files));  // it is what was copied
    if (stop.stop_requested()) return absl::CancelledError("the load was cancelled");
    if (device->is_host()) HEARTH_RETURN_IF_ERROR(MakeResident(use, *pages, residency, report));
    std::unique_ptr<BackgroundVerifier::Check> check;
    if (spec.options.integrity == Integrity::kBackground) {
      check = verifier_->Prepare(spec.id, ChecksummedParts(source.weights));
    }
    Footprint footprint = FootprintOf(source, *device, *container);
    if (!device->is_host()) {  // the files have done their service
      pages.reset();
      use = SourceUse();
      source.files.clear();
    }
    auto model = std::make_unique<AotiModel>(std::move(container), std::move(source.files), std::move(use), device,
                                             std::move(signature), spec.options.intra_op_threads);
    {
      const PhaseTimer timer(report, LoadPhase::kAnalyse);
      HEARTH_RETURN_IF_ERROR(model->Probe());
    }
    {
      const PhaseTimer timer(report, LoadPhase::kWarmUp);
      HEARTH_RETURN_IF_ERROR(
          WarmUp(*model, spec, stop, [&model](const TensorList& outputs) { model->LearnOutputs(outputs); }));
    }
    footprint.host_bytes += host_bytes.held();
    model->set_footprint(std::move(footprint));
    model->set_report(report);
    model->set_rest(std::move(source.rest));
    if (check != nullptr) {
      verifier_->Begin(*check);
      model->set_check(std::move(check));
    }
    return model;
  }

 private:
  LoadEstimate EstimateOf(AotiSource opened, LoadReport report, const Device& device) const {
    auto files = std::make_shared<OpenedAoti>(std::move(opened));
    files->report = std::move(report);
    files->shared = files->source;
    files->shared->Share(*files_, MappedFiles::Own::kKeep);
    const AotiSource& source = *files->shared;
    Footprint steady;
    // Weights inside of the library are copied out of it; how many they are, only the library knows.
    steady.host_bytes = kContainerBytes + source.package.library().size + source.weights.copied_bytes() +
                        source.sealed_bytes();
    Footprint peak = steady;
    peak.extents = source.extents();
    if (device.is_host()) {
      steady.extents = peak.extents;
    } else {
      steady.device_bytes = source.weights.mapped_bytes() + source.weights.copied_bytes() +
                            source.package.library().size;
      steady.device = device.number();
      peak.device_bytes = steady.device_bytes;
      peak.device = steady.device;
    }
    return LoadEstimate{std::move(peak), std::move(steady), std::move(files)};
  }

  // Others may write to what is shared while it is verified: then it is done again with a mapping that nobody
  // has written to.
  absl::StatusOr<AotiSource> OpenAndVerify(const ModelSpec& spec, const OpenedAoti* before, const Device& device,
                                           const std::stop_token& stop, LoadReport& report) const {
    while (true) {
      report = LoadReport{.began = report.began};
      HEARTH_ASSIGN_OR_RETURN(AotiSource source, Open(spec, std::exchange(before, nullptr), device, stop, report));
      if (!verifier_->OnLoad(spec.options.integrity, source.files)) return source;
      PhaseTimer timer(report, LoadPhase::kVerify);
      timer.AddBytes(FileBytes(source.files));
      const Verdict verdict = VerifyChecksums(ChecksummedParts(source.weights), stop);
      if (verdict.status.ok()) {
        verifier_->Acquit(source.files);
        return source;
      }
      if (Written(source.files)) continue;
      if (!verdict.damaged || source.sealed) return verdict.status;
      files_->Distrust(*verdict.damaged);
      // Another model's file, whose bytes are stated to be the same: those of its own may be whole.
      if (AnyIs(source.own, *verdict.damaged)) return verdict.status;
    }
  }

  absl::StatusOr<AotiSource> Open(const ModelSpec& spec, const OpenedAoti* before, const Device& device,
                                  const std::stop_token& stop, LoadReport& report) const {
    std::optional<AotiSource> source;
    const bool sealed = spec.options.residency == Residency::kSealed;
    if (before != nullptr) report = before->report;
    if (before != nullptr && !sealed) {
      const PhaseTimer timer(report, LoadPhase::kOpen);
      if (IsAsOpened(spec, before->source)) source = before->source;
    }
    if (!source) {
      PhaseTimer timer(report, sealed ? LoadPhase::kRead : LoadPhase::kOpen);
      HEARTH_ASSIGN_OR_RETURN(source, OpenSource(spec, device, *files_, /*seal=*/true, stop));
      timer.AddBytes(source->sealed_bytes());
    }
    PhaseTimer timer(report, LoadPhase::kMap);
    // Of what is sealed none is left: what happens to its files is not to matter.
    if (!device.is_host() && !source->sealed) source->rest = std::make_shared<OpenedAoti>(*source);
    source->Share(*files_, MappedFiles::Own::kOffer);
    timer.AddBytes(source->sealed ? 0 : MappedBytes(source->files));
    return *std::move(source);
  }

  absl::StatusOr<std::unique_ptr<AotiContainer>> Parse(const ModelSpec& spec, const AotiSource& source,
                                                       const at::Device& device, LoadReport& report) const {
    const PhaseTimer timer(report, LoadPhase::kParse);
    HEARTH_ASSIGN_OR_RETURN(AotiPrograms::Found found, programs_.Find(source.package));
    report.kept_program = found.kept;
    if (!source.package.has_metadata() && !found.kept) {
      log::Warning("the package does not say what it was compiled for; if the CPU lacks an instruction, hearthd ends",
                   {{"model", spec.id.name}});
    }
    const int runs = spec.options.instances > 0 ? spec.options.instances : options_.runs;
    return AotiContainer::Make(std::move(found.program), device, runs);
  }

  static Footprint FootprintOf(const AotiSource& source, const Device& device, const AotiContainer& container) {
    Footprint footprint;
    footprint.device = device.number();
    footprint.host_bytes = kContainerBytes + (device.is_host() ? source.sealed_bytes() : 0);
    // A library's own weights are where it computes.
    (device.torch().is_cpu() ? footprint.host_bytes : footprint.device_bytes) += container.own_bytes();
    if (device.is_host()) {
      footprint.extents = source.extents();
    } else {
      footprint.device_bytes += source.weights.mapped_bytes() + source.weights.copied_bytes();
    }
    return footprint;
  }

  const AotiOptions options_;
  const std::shared_ptr<MappedFiles> files_;
  const std::shared_ptr<BackgroundVerifier> verifier_;
  const std::shared_ptr<Devices> devices_;
  mutable AotiPrograms programs_;
};

}  // namespace

std::unique_ptr<Loader> MakeAotiLoader(AotiOptions options) {
  return std::make_unique<AotiLoader>(std::move(options));
}

}  // namespace hearth

#include "server/torch_backend/aoti_container.h"

#include <ATen/EmptyTensor.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/inductor/aoti_runtime/constant_type.h>
#include <torch/csrc/inductor/aoti_torch/utils.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "server/base/log.h"
#include "server/model/phase_timer.h"
#include "server/torch_backend/torch_status.h"
#include "server/torch_backend/weight_tensors.h"

namespace hearth {
namespace {

using torch::inductor::AOTIModelContainerRunner;

// The runner has the container that its library made, and no call that tells how many inputs it takes.
struct ContainerOf : AOTIModelContainerRunner {
  static AOTInductorModelContainerHandle Get(AOTIModelContainerRunner& runner) {
    return runner.*&ContainerOf::container_handle_;
  }
};

// One of the C functions that every library has.
class Library {
 public:
  Library(const AotiProgram& program, AOTInductorModelContainerHandle container)
      : program_(program), container_(container) {}

  // Calls FUNCTION(container, arguments...). INVALID_ARGUMENT: the library has none, or it fails.
  template <typename Function, typename... Arguments>
  absl::Status Call(Function*, const char* name, Arguments... arguments) const {
    auto* const function = reinterpret_cast<Function*>(program_.Symbol(name));
    if (function != nullptr && function(container_, arguments...) == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(
        StrCat("the package's library has no working ", name, "(); compile it with PyTorch 2.11 or newer"));
  }

 private:
  const AotiProgram& program_;
  const AOTInductorModelContainerHandle container_;
};

#define HEARTH_AOTI_CALL(library, function, ...) \
  HEARTH_RETURN_IF_ERROR((library).Call(static_cast<decltype(&function)>(nullptr), #function, __VA_ARGS__))

// Inductor writes constants of this size into the code, unless told to keep them.
bool MayBeInCode(const WeightTensor& tensor) {
  return tensor.sizes.size() <= 1 && ElementCount(tensor.sizes).value_or(0) <= 8 &&
         !tensor.name.ends_with("num_batches_tracked");  // which nothing reads at inference
}

// From the first element to behind the last: more than the elements where others lie between them, as in a view.
std::uint64_t SpanBytes(const Shape& shape, const Shape& strides, std::uint64_t element) {
  return at::detail::computeStorageNbytes(shape, strides, element);
}

// Each is laid out at a multiple of 64 bytes, and some releases count that in.
bool Takes(const AotiConstant& constant, std::uint64_t bytes) {
  return bytes == constant.bytes || (bytes + 63) / 64 * 64 == constant.bytes;
}

// The strides that the code counts on; nothing where the package does not say.
std::optional<Shape> StridesOf(const AotiConstant& constant, const Shape& shape, const AotiMetadata& metadata) {
  if (!metadata.constants.contains(constant.name)) return std::nullopt;
  const auto known = metadata.strides.find(constant.name);
  return known == metadata.strides.end() ? ContiguousStrides(shape) : known->second;
}

// Why a tensor is not what the program reads; empty: it is.
std::string Misfit(const AotiConstant& constant, const at::Tensor& tensor, const AotiMetadata& metadata) {
  const Shape shape = tensor.sizes().vec();
  const auto known = metadata.constants.find(constant.name);
  if (known != metadata.constants.end() && known->second != shape) {
    return StrCat("'", constant.name, "' has shape ", ToString(shape), ", the program wants ", ToString(known->second));
  }
  const Shape strides = StridesOf(constant, shape, metadata).value_or(tensor.strides().vec());
  if (Takes(constant, tensor.nbytes())) return "";
  if (strides.size() == shape.size() && Takes(constant, SpanBytes(shape, strides, tensor.itemsize()))) return "";
  return StrCat("'", constant.name, "' has shape ", ToString(shape), " and ", tensor.nbytes(),
                " bytes, the program wants ", constant.bytes);
}

// Without dimensions whose indices all have one element.
at::Tensor WithoutRepeats(at::Tensor tensor, const Shape& strides) {
  for (std::size_t i = 0; i < strides.size(); ++i) {
    const auto dim = static_cast<std::int64_t>(i);
    if (strides[i] == 0 && tensor.size(dim) > 1) tensor = tensor.narrow(dim, 0, 1);
  }
  return tensor;
}

// A copy where the code counts on other strides than the file has; safetensors keeps none. Where they are
// not known, at least every element has memory of its own: the code may read so much, whatever the file
// says about strides.
at::Tensor LaidOut(const AotiConstant& constant, at::Tensor tensor, const AotiMetadata& metadata,
                   std::uint64_t& copied_bytes) {
  const Shape shape = tensor.sizes().vec();
  const std::optional<Shape> known = StridesOf(constant, shape, metadata);
  const std::uint64_t span = SpanBytes(shape, tensor.strides().vec(), tensor.itemsize());
  if (!known && span >= tensor.nbytes() && Takes(constant, span)) return tensor;
  const Shape strides = known.value_or(ContiguousStrides(shape));
  bool same = true;
  for (std::size_t i = 0; i < shape.size(); ++i) same &= shape[i] < 2 || tensor.strides()[i] == strides[i];
  if (same) return tensor;
  at::Tensor copy = at::empty_strided(shape, strides, tensor.options());
  copied_bytes += tensor.nbytes();
  WithoutRepeats(copy, strides).copy_(WithoutRepeats(tensor, strides));
  const bool repeats = std::find(strides.begin(), strides.end(), 0) != strides.end();
  if (repeats && !at::equal(copy, tensor)) {
    throw std::runtime_error(StrCat("the program has one element for several of '", constant.name, "', which differ"));
  }
  return copy;
}

}  // namespace

AotiContainer::AotiContainer(std::shared_ptr<const AotiProgram> program, const at::Device& device)
    : program_(std::move(program)), device_(device) {}

// The code in a library compiled with PyTorch 2.13 holds a tensor of its own over each that it was given,
// and forgets to free it: with it would stay the weights' mapping. So these are freed here. Other
// releases may do it themselves, which shows in who still refers to the bound tensor.
AotiContainer::~AotiContainer() {
  const std::vector<std::pair<const at::Tensor*, AtenTensorHandle>> copies = CopiesOfBound();
  loader_.reset();
  for (const auto& [bound, copy] : copies) {
    if (bound->use_count() > 1) aoti_torch_delete_tensor_object(copy);
  }
}

std::vector<std::pair<const at::Tensor*, AtenTensorHandle>> AotiContainer::CopiesOfBound() const {
  std::vector<std::pair<const at::Tensor*, AtenTensorHandle>> copies;
  std::unordered_map<std::string, AtenTensorHandle> read;
  if (bound_.empty() || !ReadByCode(read).ok()) return copies;
  for (const AotiConstant& constant : constants_) {
    const auto bound = bound_.find(constant.symbol);
    const auto at = read.find(constant.name);
    if (bound == bound_.end() || at == read.end()) continue;
    if (torch::aot_inductor::tensor_handle_to_tensor_pointer(at->second) == &bound->second) continue;
    copies.emplace_back(&bound->second, at->second);
  }
  return copies;
}

// The function of which every release that hearth builds with has a declaration. What the opaque handle points to is
// what model_container_runner.cpp, in LibTorch, has it point to.
absl::Status AotiContainer::ReadByCode(std::unordered_map<std::string, AtenTensorHandle>& tensors) const {
  const Library library(*program_, ContainerOf::Get(*loader_->get_runner()));
  HEARTH_AOTI_CALL(library, AOTInductorModelContainerExtractConstantsMap,
                   reinterpret_cast<AOTInductorConstantMapHandle>(&tensors), /*use_inactive=*/false);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<AotiContainer>> AotiContainer::Make(std::shared_ptr<const AotiProgram> program,
                                                                   const at::Device& device, int runs) {
  std::unique_ptr<AotiContainer> made(new AotiContainer(std::move(program), device));
  auto opened = CatchTorch("the package cannot be loaded", absl::StatusCode::kInvalidArgument,
                           [&] { return made->Open(runs); });
  HEARTH_RETURN_IF_ERROR(opened.ok() ? *opened : opened.status());
  return made;
}

absl::Status AotiContainer::Open(int runs) {
  loader_ = std::make_unique<torch::inductor::AOTIModelPackageLoader>(
      program_->directory.string(), program_->model, /*run_single_threaded=*/false, static_cast<std::size_t>(runs),
      device_.has_index() ? device_.index() : c10::DeviceIndex(-1));
  const Library library(*program_, ContainerOf::Get(*loader_->get_runner()));
  HEARTH_AOTI_CALL(library, AOTInductorModelContainerGetNumInputs, &inputs_);
  HEARTH_AOTI_CALL(library, AOTInductorModelContainerGetNumOutputs, &outputs_);
  HEARTH_RETURN_IF_ERROR(ReadConstants());
  has_own_ = !constants_.empty() && !loader_->get_runner()->extract_constants_map(false).empty();
  if (!has_own_) return absl::OkStatus();
  for (const AotiConstant& constant : constants_) own_bytes_ += constant.bytes;
  return absl::OkStatus();
}

absl::Status AotiContainer::ReadConstants() {
  const Library library(*program_, ContainerOf::Get(*loader_->get_runner()));
  std::size_t count = 0;
  HEARTH_AOTI_CALL(library, AOTInductorModelContainerGetNumConstants, &count);
  for (std::size_t i = 0; i < count; ++i) {
    bool folded = false;
    HEARTH_AOTI_CALL(library, AOTInductorModelContainerGetConstantFromFolded, i, &folded);
    if (folded) continue;  // computed from the others at the first run
    const char *name = nullptr, *symbol = nullptr;
    std::int32_t type = 0, kind = 0;
    std::size_t bytes = 0;
    HEARTH_AOTI_CALL(library, AOTInductorModelContainerGetConstantOriginalFQN, i, &name);
    HEARTH_AOTI_CALL(library, AOTInductorModelContainerGetConstantName, i, &symbol);
    HEARTH_AOTI_CALL(library, AOTInductorModelContainerGetConstantDtype, i, &type);
    HEARTH_AOTI_CALL(library, AOTInductorModelContainerGetConstantType, i, &kind);
    HEARTH_AOTI_CALL(library, AOTInductorModelContainerGetConstantDataSize, i, &bytes);
    constants_.push_back({name, symbol, static_cast<at::ScalarType>(type), bytes,
                          kind != torch::aot_inductor::ConstantType::Parameter});
  }
  return absl::OkStatus();
}

absl::Status AotiContainer::Bind(const Weights& weights, const AotiMetadata& metadata, Device& device,
                                 const std::stop_token& stop, LoadReport& report) {
  PhaseTimer timer(report, LoadPhase::kBind);
  report.weight_bytes += weights.tensors.empty() ? own_bytes_ : 0;
  report.copied_bytes += own_bytes_;
  if (weights.tensors.empty() && has_own_) return absl::OkStatus();
  auto bound = CatchTorch("the weights cannot be bound", absl::StatusCode::kInvalidArgument, [&]() -> absl::Status {
    HEARTH_ASSIGN_OR_RETURN(std::vector<at::Tensor> tensors, MakeTensors(weights, device, stop, report, timer));
    std::unordered_map<std::string_view, at::Tensor*> given;
    for (std::size_t i = 0; i < tensors.size(); ++i) given.emplace(weights.tensors[i].name, &tensors[i]);
    WeightComplaints complaints;
    for (const AotiConstant& constant : constants_) {
      const auto found = given.find(constant.name);
      if (found == given.end()) {
        if (!has_own_) complaints.Missing(constant.name);
        continue;
      }
      at::Tensor tensor = *found->second;
      if (tensor.scalar_type() != constant.type) {
        tensor = tensor.to(constant.type);
        report.copied_bytes += tensor.nbytes();
      }
      if (tensor.is_conj() || tensor.is_neg()) {  // compiled code reads what lies there
        tensor = tensor.resolve_conj().resolve_neg();
        report.copied_bytes += tensor.nbytes();
      }
      if (std::string misfit = Misfit(constant, tensor, metadata); !misfit.empty()) {
        complaints.Misfit(std::move(misfit));
        continue;
      }
      tensor = LaidOut(constant, std::move(tensor), metadata, report.copied_bytes);
      bound_.emplace(constant.symbol, tensor.alias());  // one that nobody else refers to: see the destructor
    }
    HEARTH_RETURN_IF_ERROR(complaints.status());
    HEARTH_RETURN_IF_ERROR(RefuseUnused(weights));
    return HandOver();
  });
  return bound.ok() ? *bound : bound.status();
}

absl::Status AotiContainer::HandOver() {
  if (bound_.empty()) return absl::OkStatus();
  std::vector<AOTInductorConstantMapEntry> entries;
  for (auto& [symbol, tensor] : bound_) {
    entries.push_back({symbol.c_str(), torch::aot_inductor::tensor_pointer_to_tensor_handle(&tensor)});
  }
  const Library library(*program_, ContainerOf::Get(*loader_->get_runner()));
  HEARTH_AOTI_CALL(library, AOTInductorModelContainerUpdateUserManagedConstantBufferPairs, entries.data(),
                   entries.size(), /*use_inactive=*/false, /*validate_full_update=*/false);
  return absl::OkStatus();
}

absl::Status AotiContainer::RefuseUnused(const Weights& weights) const {
  std::unordered_set<std::string_view> names;
  for (const AotiConstant& constant : constants_) names.insert(constant.name);
  std::vector<std::string_view> unused, in_code;
  for (const WeightTensor& tensor : weights.tensors) {
    if (names.contains(tensor.name)) continue;
    auto& list = MayBeInCode(tensor) ? in_code : unused;
    if (list.size() < kNamesInMessage) list.push_back(tensor.name);
  }
  if (!unused.empty()) log::Warning("weights that the program does not use", {{"tensors", QuotedList(unused)}});
  if (in_code.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      StrCat("the program has no place for ", QuotedList(in_code), ", which may be compiled into its code with other "
             "values: inductor does so with small tensors; compile it with always_keep_tensor_constants=True, as "
             "`hearth pack` does, or leave them out of the weights if nothing uses them"));
}

std::size_t AotiContainer::Fingerprint() const {
  std::unordered_set<std::string_view> writable;
  for (const AotiConstant& constant : constants_) {
    if (constant.may_be_written) writable.insert(constant.name);
  }
  std::size_t sum = 0;
  if (writable.empty()) return sum;
  for (const auto& [name, tensor] : loader_->get_runner()->extract_constants_map(false)) {
    if (!writable.contains(name) || !tensor.defined() || tensor.numel() == 0) continue;
    const at::Tensor host = tensor.device().is_cpu() ? tensor.contiguous() : tensor.cpu().contiguous();
    const std::string_view bytes(static_cast<const char*>(host.const_data_ptr()), host.nbytes());
    sum += std::hash<std::string_view>{}(name) * (std::hash<std::string_view>{}(bytes) | 1);  // in any order
  }
  return sum;
}

std::vector<at::Tensor> AotiContainer::Run(std::vector<at::Tensor> inputs) const {
  return loader_->boxed_run(std::move(inputs));
}

}  // namespace hearth

#include "server/storage/pickle_calls.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

namespace hearth::pickle_internal {
namespace {

constexpr std::size_t kMaxRank = 64;
// A call of a few bytes can make a tensor of many dimensions: dimensions are counted.
constexpr std::uint64_t kMaxDimensions = 16 << 20;
constexpr std::uint64_t kDimensionsPerTensor = 4;
constexpr std::size_t kMaxTypeText = 64 << 10;
constexpr int kMaxTypeNesting = 100;

absl::Status Bad(std::string_view what) { return absl::InvalidArgumentError(std::string(what)); }

Value Make(Kind kind, std::uint32_t index = 0) {
  Value value;
  value.kind = kind;
  value.index = index;
  return value;
}

Value MakeFunction(Function f) { return Make(Kind::kFunction, static_cast<std::uint32_t>(f)); }
Value MakeScheme(QScheme s) { return Make(Kind::kQScheme, static_cast<std::uint32_t>(s)); }

// "a.b.C" of plain identifiers.
bool IsQualifiedName(std::string_view name) {
  bool at_start = true;
  for (const char c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    const bool digit = c >= '0' && c <= '9';
    if (c == '.' ? at_start : !(letter || (digit && !at_start))) return false;
    at_start = c == '.';
  }
  return !at_start;
}

std::string Printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 100)) out += (c < ' ' || c > '~') ? '?' : c;
  return out;
}

absl::Status UnknownGlobal(const Heap& heap, std::string_view module, std::string_view name) {
  const std::string shown = StrCat("'", Printable(module), ".", Printable(name), "'");
  if (heap.dialect == PickleDialect::kTorchScript) {
    return Bad(StrCat("global ", shown, " is not one that TorchScript archives use"));
  }
  return Bad(StrCat("it holds a Python object (", shown,
                    "), which only running its code could restore; where PyTorch runs, turn it into a "
                    "model with `hearth pack`, or save model.state_dict() instead"));
}

absl::StatusOr<Value> ResolveTorch(const Heap& heap, std::string_view name) {
  if (heap.dialect == PickleDialect::kTorchSave) {
    if (const ElementType* type = FindTorchType(name)) {
      Value value = Make(Kind::kElementType);
      value.element_type = type;
      return value;
    }
  }
  if (const ElementType* type = FindStorageType(name)) {
    Value value = Make(Kind::kElementType);
    value.element_type = type;
    return value;
  }
  if (name == "device") return MakeFunction(Function::kDevice);
  if (name == "per_tensor_affine") return MakeScheme(QScheme::kPerTensor);
  if (name == "per_channel_affine") return MakeScheme(QScheme::kPerChannel);
  if (name == "per_channel_affine_float_qparams") return MakeScheme(QScheme::kPerChannelFloat);
  return UnknownGlobal(heap, "torch", name);
}

struct KnownFunction {
  std::string_view module;
  std::string_view name;
  Function function;
};
constexpr KnownFunction kFunctions[] = {
    {"torch._utils", "_rebuild_tensor_v2", Function::kRebuildTensor},
    {"torch._utils", "_rebuild_tensor_v3", Function::kRebuildTensorV3},
    {"torch._utils", "_rebuild_qtensor", Function::kRebuildQTensor},
    {"torch._utils", "_rebuild_parameter", Function::kRebuildParameter},
    {"torch.jit._pickle", "build_intlist", Function::kBuildIntList},
    {"torch.jit._pickle", "build_tensorlist", Function::kBuildTensorList},
    {"torch.jit._pickle", "build_doublelist", Function::kBuildDoubleList},
    {"torch.jit._pickle", "build_boollist", Function::kBuildBoolList},
    {"torch.jit._pickle", "restore_type_tag", Function::kRestoreTypeTag},
    {"collections", "OrderedDict", Function::kOrderedDict},
    {"builtins", "complex", Function::kComplex},
};

// Reads a tuple of integers. Nothing when it is anything else.
std::optional<std::vector<std::int64_t>> Integers(const Heap& heap, const Value& value) {
  if (value.kind != Kind::kTuple) return std::nullopt;
  const std::span<const Value> items = heap.Items(value);
  if (items.size() > kMaxRank) return std::nullopt;
  std::vector<std::int64_t> out;
  out.reserve(items.size());
  for (const Value& item : items) {
    if (item.kind != Kind::kInt) return std::nullopt;
    out.push_back(item.number);
  }
  return out;
}

// Whether every element of the tensor lies inside `numel` elements of storage.
absl::Status CheckView(const PickledTensor& t, std::uint64_t numel) {
  if (t.sizes.size() != t.strides.size()) return Bad("a tensor has not as many sizes as strides");
  if (t.offset < 0) return Bad("a tensor begins before its storage");
  const auto limit = static_cast<std::int64_t>(
      std::min<std::uint64_t>(numel, std::numeric_limits<std::int64_t>::max()));
  std::int64_t last = t.offset;
  bool overflow = false;
  for (std::size_t i = 0; i < t.sizes.size(); ++i) {
    if (t.sizes[i] < 0 || t.strides[i] < 0) return Bad("a tensor has a negative size or stride");
    std::int64_t reach = 0;
    overflow |=
        __builtin_mul_overflow(std::max<std::int64_t>(t.sizes[i] - 1, 0), t.strides[i], &reach);
    overflow |= __builtin_add_overflow(last, reach, &last);
  }
  const std::optional<std::int64_t> count = ElementCount(t.sizes);
  if (!count) return Bad("a tensor has more elements than can be counted");
  const bool inside = *count == 0 ? t.offset <= limit : !overflow && last < limit;
  if (inside) return absl::OkStatus();
  return Bad(StrCat("a tensor of shape ", ToString(t.sizes), " with strides ", ToString(t.strides),
                    " at element ", t.offset, " does not fit into its storage of ", numel,
                    " elements"));
}

bool HasNoHooks(const Heap& heap, const Value& hooks) {
  if (hooks.kind == Kind::kDict) return heap.containers[hooks.index].kinds == 0;
  return hooks.kind == Kind::kNone;
}

// What only the kernels of quantised tensors look at, and do not check.
absl::Status CheckQuantizer(const Heap& heap, const PickledTensor& t, const Value& parameters) {
  const absl::Status bad = Bad("a quantized tensor's parameters are not of the form torch writes");
  if (parameters.kind != Kind::kTuple) return bad;
  const std::span<const Value> p = heap.Items(parameters);
  if (p.empty() || p[0].kind != Kind::kQScheme) return bad;
  if (p[0].index == static_cast<std::uint32_t>(QScheme::kPerTensor)) {
    return p.size() == 3 && p[1].kind == Kind::kFloat && p[2].kind == Kind::kInt ? absl::OkStatus()
                                                                                 : bad;
  }
  if (p.size() != 4 || p[1].kind != Kind::kTensor || p[2].kind != Kind::kTensor ||
      p[3].kind != Kind::kInt) {
    return bad;
  }
  const std::int64_t axis = p[3].number;
  if (axis < 0 || axis >= static_cast<std::int64_t>(t.sizes.size())) return bad;
  const Shape channels = {t.sizes[static_cast<std::size_t>(axis)]};
  const std::vector<PickledTensor>& tensors = heap.summary.tensors;
  if (tensors[p[1].index].sizes != channels || tensors[p[2].index].sizes != channels) {
    return Bad("a quantized tensor has not one scale and zero point for each channel");
  }
  return absl::OkStatus();
}

absl::Status ReadFlags(const Heap& heap, const Value& flags, PickledTensor& tensor) {
  const bool booleans = flags.kind == Kind::kDict &&
                        (heap.containers[flags.index].kinds & ~Bit(Kind::kString)) == 0 &&
                        (heap.containers[flags.index].value_kinds & ~Bit(Kind::kBool)) == 0;
  if (!booleans) return Bad("a tensor's flags are not a dictionary of booleans");
  const Container& said = heap.containers[flags.index];
  if (said.other_flags) return Bad("a tensor has a flag other than 'conj' and 'neg'");
  tensor.conjugated = said.conjugated;
  tensor.negated = said.negated;
  if (tensor.conjugated && !tensor.type->name.starts_with("Complex")) {
    return Bad(StrCat("a conjugated tensor has elements of type ", tensor.type->name));
  }
  return absl::OkStatus();
}

// (storage, offset, sizes, strides, [quantizer,] requires_grad, hooks [, {"conj": True}])
// `type`: of the elements, if not the storage's.
absl::StatusOr<Value> RebuildTensor(Heap& heap, std::span<const Value> args, bool quantized,
                                    const ElementType* type = nullptr) {
  const std::size_t expected = quantized ? 7 : 6;
  if (args.size() != expected && !(args.size() == 7 && !quantized)) {
    return Bad(StrCat("a tensor is made from ", args.size(), " values"));
  }
  if (args[0].kind != Kind::kStorage || args[1].kind != Kind::kInt) {
    return Bad("a tensor is made from something other than a storage");
  }
  PickledTensor tensor;
  tensor.storage = args[0].index;
  tensor.offset = args[1].number;
  auto sizes = Integers(heap, args[2]);
  auto strides = Integers(heap, args[3]);
  if (!sizes || !strides)
    return Bad("a tensor's sizes or strides are not a short tuple of integers");
  tensor.sizes = *std::move(sizes);
  tensor.strides = *std::move(strides);
  tensor.quantized = quantized;
  const PickledStorage& storage = heap.summary.storages[tensor.storage];
  tensor.type = type != nullptr ? type : storage.type;
  if (tensor.type->quantized != quantized) {
    return Bad(StrCat("a ", quantized ? "quantized" : "plain", " tensor has elements of type ",
                      tensor.type->name));
  }
  heap.dimensions += tensor.sizes.size() + kDimensionsPerTensor;
  if (heap.dimensions > kMaxDimensions) return Bad("there are too many tensors");
  HEARTH_RETURN_IF_ERROR(CheckView(tensor, storage.bytes() / tensor.type->size));
  if (quantized) HEARTH_RETURN_IF_ERROR(CheckQuantizer(heap, tensor, args[4]));
  const Value& grad = args[quantized ? 5 : 4];
  const Value& hooks = args[quantized ? 6 : 5];
  if (grad.kind != Kind::kBool || !HasNoHooks(heap, hooks)) {
    return Bad("a tensor's gradient flag or hooks are not of the form torch writes");
  }
  tensor.requires_grad = grad.number != 0;
  if (!quantized && args.size() == 7) HEARTH_RETURN_IF_ERROR(ReadFlags(heap, args[6], tensor));
  heap.summary.tensors.push_back(std::move(tensor));
  return Make(Kind::kTensor, static_cast<std::uint32_t>(heap.summary.tensors.size() - 1));
}

// (storage of bytes, offset, sizes, strides, requires_grad, hooks, element type [, metadata])
absl::StatusOr<Value> RebuildTensorV3(Heap& heap, std::span<const Value> args) {
  if (args.size() < 7 || args[0].kind != Kind::kStorage || args[6].kind != Kind::kElementType) {
    return Bad("a tensor is made from something other than a storage and a type");
  }
  return RebuildTensor(heap, args.first(6), false, args[6].element_type);
}

absl::StatusOr<Value> TypedList(const Heap& heap, std::span<const Value> args, Kind item) {
  if (args.size() != 1 || args[0].kind != Kind::kList)
    return Bad("a typed list is made from no list");
  if ((heap.containers[args[0].index].kinds & ~Bit(item)) != 0) {
    return Bad("a typed list has items of another type");
  }
  return args[0];
}

// LibTorch parses the type recursively.
absl::StatusOr<Value> RestoreTypeTag(const Heap& heap, std::span<const Value> args) {
  const bool container = args.size() == 2 && args[1].kind == Kind::kString &&
                         (args[0].kind == Kind::kList || args[0].kind == Kind::kDict);
  if (!container) return Bad("a type tag is not on a list or dictionary");
  const std::string_view type = heap.Text(args[1]);
  if (type.size() > kMaxTypeText) return Bad("a type tag is too long");
  int nesting = 0;
  for (const char c : type) {
    nesting += (c == '[' || c == '(') ? 1 : (c == ']' || c == ')') ? -1 : 0;
    if (nesting < 0 || nesting > kMaxTypeNesting) return Bad("a type tag is nested too deep");
  }
  return args[0];
}

}  // namespace

absl::StatusOr<Value> ResolveGlobal(Heap& heap, std::string_view module, std::string_view name) {
  for (const KnownFunction& known : kFunctions) {
    if (known.module != module || known.name != name) continue;
    const bool torch_save_only = known.function == Function::kRebuildTensorV3;
    if (torch_save_only && heap.dialect != PickleDialect::kTorchSave) break;
    return MakeFunction(known.function);
  }
  const bool saved = heap.dialect == PickleDialect::kTorchSave;
  if (name == "UntypedStorage" && (module == "torch" || (saved && module == "torch.storage"))) {
    if (saved) return ResolveTorch(heap, name);
    return Bad("global 'torch.UntypedStorage' is of torch.save files; TorchScript cannot read it");
  }
  if (module == "torch") return ResolveTorch(heap, name);
  if (module == "torch._utils" && name == "_rebuild_sparse_tensor") {
    return Bad(
        "it has a sparse tensor, whose indices nobody checks when it is loaded; make it dense "
        "(.to_dense()) before saving");
  }
  if (module == "torch.jit._pickle" && name == "build_tensor_from_id") {
    return Bad(
        "it was written by PyTorch 1.2 or older; load it there and save it again with a newer one");
  }
  if (saved) return UnknownGlobal(heap, module, name);
  if (module == "__torch__" || module.starts_with("__torch__.")) {
    std::string qualified = StrCat(module, ".", name);
    if (!IsQualifiedName(qualified)) {
      return Bad(StrCat("'", Printable(qualified), "' is not the name of a class"));
    }
    heap.classes.insert(std::move(qualified));
    return Make(Kind::kClass);
  }
  return UnknownGlobal(heap, module, name);
}

absl::StatusOr<Value> Call(Heap& heap, const Value& callee, const Value& argument) {
  if (argument.kind != Kind::kTuple)
    return Bad("a function is called without a tuple of arguments");
  const std::span<const Value> args = heap.Items(argument);
  switch (static_cast<Function>(callee.index)) {
    case Function::kRebuildTensor:
      return RebuildTensor(heap, args, false);
    case Function::kRebuildTensorV3:
      return RebuildTensorV3(heap, args);
    case Function::kRebuildQTensor:
      return RebuildTensor(heap, args, true);
    case Function::kRebuildParameter:
      if (args.size() != 3 || args[0].kind != Kind::kTensor || args[1].kind != Kind::kBool ||
          !HasNoHooks(heap, args[2])) {
        return Bad("a parameter is made from no tensor");
      }
      return args[0];
    case Function::kBuildIntList:
      return TypedList(heap, args, Kind::kInt);
    case Function::kBuildTensorList:
      return TypedList(heap, args, Kind::kTensor);
    case Function::kBuildDoubleList:
      return TypedList(heap, args, Kind::kFloat);
    case Function::kBuildBoolList:
      return TypedList(heap, args, Kind::kBool);
    case Function::kRestoreTypeTag:
      return RestoreTypeTag(heap, args);
    case Function::kOrderedDict:  // a tensor's hooks; LibTorch makes it None
      return args.empty() ? absl::StatusOr<Value>(Make(Kind::kNone)) : Bad("a tensor has hooks");
    case Function::kDevice:
      if (args.size() != 1 || args[0].kind != Kind::kString) return Bad("a device has no name");
      return Make(Kind::kDevice);
    case Function::kComplex:
      if (args.size() != 2 || args[0].kind != Kind::kFloat || args[1].kind != Kind::kFloat) {
        return Bad("a complex number is not made from two floats");
      }
      return Make(Kind::kComplex);
  }
  return Bad("an unknown function is called");
}

absl::StatusOr<Value> LoadStorage(Heap& heap, const Value& id, const RecordSize& record_size) {
  const std::span<const Value> args =
      id.kind == Kind::kTuple ? heap.Items(id) : std::span<const Value>();
  if (args.size() != 5 || args[0].kind != Kind::kString || heap.Text(args[0]) != "storage" ||
      args[1].kind != Kind::kElementType || args[2].kind != Kind::kString ||
      args[3].kind != Kind::kString || args[4].kind != Kind::kInt) {
    return Bad("a storage is not described as torch does it");
  }
  PickledStorage storage{.key = std::string(heap.Text(args[2])),
                         .type = args[1].element_type,
                         .numel = static_cast<std::uint64_t>(args[4].number),
                         .device = std::string(heap.Text(args[3]))};
  const std::string shown = Printable(storage.key);
  if (storage.device == "meta") {
    return Bad("it has tensors without values (on the meta device); initialize them before saving");
  }
  std::uint64_t bytes = 0;
  if (args[4].number < 0 || __builtin_mul_overflow(storage.numel, storage.type->size, &bytes)) {
    return Bad(StrCat("storage '", shown, "' claims an impossible size"));
  }
  if (bytes > 0) {
    const std::optional<std::uint64_t> available = record_size(storage.key);
    if (!available) return Bad(StrCat("storage '", shown, "' has no record in the archive"));
    if (*available < bytes) {
      return Bad(StrCat("storage '", shown, "' claims ", bytes, " bytes, but its record has ",
                        *available));
    }
  }
  const auto [known, is_new] = heap.storage_by_key.try_emplace(
      storage.key, static_cast<std::uint32_t>(heap.summary.storages.size()));
  if (is_new) {
    heap.summary.storages.push_back(std::move(storage));
  } else {
    const PickledStorage& before = heap.summary.storages[known->second];
    if (before.type != storage.type || before.numel != storage.numel ||
        before.device != storage.device) {
      return Bad(StrCat("storage '", shown, "' is described in two ways"));
    }
  }
  return Make(Kind::kStorage, known->second);
}

bool IsNewDict(const Heap& heap, const Value& callee, const Value& arguments) {
  return callee.kind == Kind::kFunction &&
         callee.index == static_cast<std::uint32_t>(Function::kOrderedDict) &&
         arguments.kind == Kind::kTuple && heap.Items(arguments).empty();
}

namespace {

// The tensors that are items of this dictionary itself. A name that comes twice has its last value.
std::vector<StateDictItem> TensorsIn(const Heap& heap, std::uint32_t dict) {
  std::vector<StateDictItem> found;
  std::unordered_map<std::string_view, std::size_t> by_name;
  for (const Entry& entry : heap.entries) {
    if (entry.dict != dict || entry.key.kind != Kind::kString || entry.value.kind != Kind::kTensor) continue;
    const std::string_view name = heap.Text(entry.key);
    const auto [at, is_new] = by_name.try_emplace(name, found.size());
    if (is_new) found.push_back({std::string(name), 0});
    found[at->second].tensor = entry.value.index;
  }
  return found;
}

// Quantized modules have tuples of tensors in their state_dict: passed over, the model would answer without them.
absl::Status RefusePackedIn(const Heap& heap, std::uint32_t dict) {
  for (const Entry& entry : heap.entries) {
    if (entry.dict != dict || entry.key.kind != Kind::kString) continue;
    const std::string_view name = heap.Text(entry.key);
    if (name.substr(name.rfind('.') + 1) != "_packed_params") continue;
    return Bad(StrCat("holds the weights of a quantized module ('", Printable(name),
                      "'); quantized models are served as TorchScript, see `hearth pack`"));
  }
  return absl::OkStatus();
}

bool IsEmptyDict(const Heap& heap, const Value& value) {
  return std::none_of(heap.entries.begin(), heap.entries.end(),
                      [&value](const Entry& entry) { return entry.dict == value.index; });
}

}  // namespace

absl::StatusOr<std::vector<StateDictItem>> StateDict(const Heap& heap, const Value& top) {
  if (top.kind != Kind::kDict) return Bad("it holds no dictionary of tensors; save model.state_dict()");
  std::vector<StateDictItem> found = TensorsIn(heap, top.index);
  if (!found.empty()) HEARTH_RETURN_IF_ERROR(RefusePackedIn(heap, top.index));
  if (!found.empty() || IsEmptyDict(heap, top)) return found;  // empty: of a model without weights
  constexpr std::string_view kUsualKeys[] = {"state_dict", "model_state_dict", "model"};
  for (const std::string_view key : kUsualKeys) {
    for (const Entry& entry : heap.entries) {
      if (entry.dict != top.index || entry.value.kind != Kind::kDict) continue;
      if (entry.key.kind != Kind::kString || heap.Text(entry.key) != key) continue;
      found = TensorsIn(heap, entry.value.index);
      if (found.empty()) continue;
      HEARTH_RETURN_IF_ERROR(RefusePackedIn(heap, entry.value.index));
      return found;
    }
  }
  return Bad(
      "its dictionary holds no tensors by name, neither directly nor under 'state_dict', "
      "'model_state_dict' or 'model'; save model.state_dict()");
}

}  // namespace hearth::pickle_internal

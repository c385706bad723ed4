#include "server/torch_backend/tensor_bridge.h"

#include <array>
#include <cstring>
#include <set>
#include <utility>

#include "server/base/check.h"

namespace hearth {
namespace {

constexpr std::pair<DType, at::ScalarType> kTypes[] = {
    {DType::kBool, at::kBool},     {DType::kUInt8, at::kByte},    {DType::kUInt16, at::kUInt16},
    {DType::kUInt32, at::kUInt32}, {DType::kUInt64, at::kUInt64}, {DType::kInt8, at::kChar},
    {DType::kInt16, at::kShort},   {DType::kInt32, at::kInt},     {DType::kInt64, at::kLong},
    {DType::kFp16, at::kHalf},     {DType::kBf16, at::kBFloat16}, {DType::kFp32, at::kFloat},
    {DType::kFp64, at::kDouble}};

Tensor StringTensor(const std::vector<std::string_view>& elements, Shape shape) {
  return PackBytes(elements, std::move(shape));
}

template <typename T>
Tensor ScalarTensor(DType dtype, T value) {
  auto owner = std::make_shared<T>(value);
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(owner.get()), sizeof(T));
  return {dtype, {}, bytes, std::move(owner)};
}

// Collects leaves; what a leaf is becomes clear from the value, since a program may return Any.
struct Leaf {
  std::string own_name;  // a NamedTuple's field or a dictionary's key; may be empty
  at::IValue value;      // None: it is left out, and has its number all the same
};

bool IsListOfStrings(const at::IValue& value) {
  return value.isList() && value.toList().elementType()->kind() == c10::TypeKind::StringType;
}

void Flatten(at::IValue value, std::string own_name, std::vector<Leaf>& leaves) {
  if (value.isTuple()) {
    const auto& tuple = value.toTupleRef();
    const auto schema = tuple.type<c10::TupleType>()->schema();
    for (std::size_t i = 0; i < tuple.elements().size(); ++i) {
      Flatten(tuple.elements()[i], schema != nullptr ? schema->arguments()[i].name() : "", leaves);
    }
  } else if (value.isGenericDict()) {
    for (const auto& item : value.toGenericDict()) {
      Flatten(item.value(), item.key().isString() ? item.key().toStringRef() : "", leaves);
    }
  } else if (value.isTensorList() ||
             (value.isList() && !IsListOfStrings(value) && !value.isIntList() && !value.isDoubleList() &&
              !value.isBoolList())) {
    for (const at::IValue& element : value.toListRef()) Flatten(element, "", leaves);
  } else {
    leaves.push_back({std::move(own_name), std::move(value)});
  }
}

absl::StatusOr<Tensor> UnwrapLeaf(at::IValue value, std::string_view name) {
  if (value.isTensor()) return UnwrapTensor(std::move(value).toTensor(), name);
  if (value.isInt()) return ScalarTensor<std::int64_t>(DType::kInt64, value.toInt());
  if (value.isDouble()) return ScalarTensor<double>(DType::kFp64, value.toDouble());
  if (value.isBool()) return ScalarTensor<bool>(DType::kBool, value.toBool());
  if (value.isString()) return StringTensor({value.toStringRef()}, {});
  if (value.isIntList()) return UnwrapTensor(at::tensor(value.toIntVector(), at::kLong), name);
  if (value.isDoubleList()) return UnwrapTensor(at::tensor(value.toDoubleVector(), at::kDouble), name);
  if (value.isBoolList()) {
    const auto list = value.toBoolList();
    at::Tensor tensor = at::empty({static_cast<std::int64_t>(list.size())}, at::kBool);
    for (std::size_t i = 0; i < list.size(); ++i) tensor.data_ptr<bool>()[i] = list.get(i);
    return UnwrapTensor(std::move(tensor), name);
  }
  if (IsListOfStrings(value)) {
    std::vector<std::string_view> elements;
    for (const at::IValue& element : value.toListRef()) elements.push_back(element.toStringRef());
    const auto count = static_cast<std::int64_t>(elements.size());
    return StringTensor(elements, {count});
  }
  return absl::InternalError(StrCat("the model returned a ", value.tagKind(), " as output '", name,
                                    "', which the protocol has no form for"));
}

}  // namespace

std::optional<at::ScalarType> ToScalarType(DType dtype) {
  for (const auto& [ours, torchs] : kTypes) {
    if (ours == dtype) return torchs;
  }
  return std::nullopt;
}

std::optional<DType> ToDType(at::ScalarType type) {
  for (const auto& [ours, torchs] : kTypes) {
    if (torchs == type) return ours;
  }
  return std::nullopt;
}

at::Tensor WrapTensor(const Tensor& tensor) {
  const auto type = ToScalarType(tensor.dtype);
  HEARTH_CHECK(type.has_value());
  // An empty tensor may have no address; from_blob wants one.
  static std::byte nothing[64];
  void* data = tensor.data.empty() ? nothing : const_cast<std::byte*>(tensor.data.data());
  return at::from_blob(
      data, tensor.shape, [owner = tensor.owner](void*) {}, at::TensorOptions().dtype(*type));
}

// An answer that a client does not take would keep all of its storage, and count for what it shows of it.
bool IsSmallPart(const at::Tensor& tensor) {
  constexpr std::size_t kNoMatter = 4096;
  const std::size_t all = tensor.storage().nbytes();
  return all > kNoMatter && all / 2 > tensor.nbytes();
}

absl::StatusOr<Tensor> UnwrapTensor(at::Tensor tensor, std::string_view name) {
  const auto dtype = tensor.defined() ? ToDType(tensor.scalar_type()) : std::nullopt;
  if (!dtype) {
    return absl::InternalError(
        StrCat("the model returned ", tensor.defined() ? c10::toString(tensor.scalar_type()) : "undefined",
               " for output '", name, "', which the protocol has no data type for"));
  }
  if (tensor.layout() != at::kStrided) tensor = tensor.to_dense();
  if (!tensor.device().is_cpu()) tensor = tensor.cpu();
  if (tensor.is_conj()) tensor = tensor.resolve_conj();
  if (tensor.is_neg()) tensor = tensor.resolve_neg();
  const bool shared = tensor.storage().use_count() > 1 || tensor.use_count() > 1;
  if (!tensor.is_contiguous()) {
    tensor = tensor.contiguous();
  } else if (shared || IsSmallPart(tensor)) {
    tensor = tensor.clone(at::MemoryFormat::Contiguous);
  }
  auto owner = std::make_shared<at::Tensor>(std::move(tensor));
  const auto* bytes = static_cast<const std::byte*>(owner->const_data_ptr());
  const std::size_t size = owner->nbytes();
  Shape shape(owner->sizes().begin(), owner->sizes().end());
  return Tensor{*dtype, std::move(shape), {bytes, size}, std::move(owner)};
}

absl::StatusOr<TensorList> UnwrapResult(at::IValue result, const std::vector<std::string>& names) {
  std::vector<Leaf> leaves;
  Flatten(std::move(result), "", leaves);
  TensorList outputs;
  outputs.reserve(leaves.size());
  std::set<std::string_view> taken;  // by a leaf before, also by one that is left out
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const bool own = !leaves[i].own_name.empty() && taken.insert(leaves[i].own_name).second;
    std::string name = i < names.size() ? names[i] : own ? leaves[i].own_name : StrCat("OUTPUT__", i);
    if (leaves[i].value.isNone()) continue;
    HEARTH_ASSIGN_OR_RETURN(Tensor tensor, UnwrapLeaf(std::move(leaves[i].value), name));
    outputs.push_back({std::move(name), std::move(tensor)});
  }
  return outputs;
}

}  // namespace hearth

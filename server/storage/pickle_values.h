// The values a pickle makes while it is walked. Behind pickle_walker.h; nobody else needs it.
//
// A value is sixteen bytes; strings stay in the pickle, and of lists and dictionaries only what the
// checks ask for is kept.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "server/storage/pickle_walker.h"

namespace hearth::pickle_internal {

// clang-format off
enum class Kind : std::uint8_t {
  // Data.
  kNone, kBool, kInt, kFloat, kString, kComplex, kDevice, kTuple, kList, kDict, kObject, kTensor,
  // Parts that only certain calls take.
  kStorage, kElementType, kQScheme,
  // What can be called.
  kFunction, kClass, kNewObject,
};
// clang-format on

using KindSet = std::uint32_t;
constexpr KindSet Bit(Kind kind) { return KindSet{1} << static_cast<unsigned>(kind); }
template <typename... Kinds>
constexpr KindSet AnyOf(Kinds... kinds) {
  return (Bit(kinds) | ...);
}
constexpr KindSet kData = Bit(Kind::kStorage) - 1;
constexpr KindSet kTupleItems = kData | AnyOf(Kind::kStorage, Kind::kElementType, Kind::kQScheme);
// torch.save has types among them, {"dtype": torch.float16}.
constexpr KindSet DictValues(PickleDialect dialect) {
  return dialect == PickleDialect::kTorchSave ? kData | Bit(Kind::kElementType) : kData;
}
// What LibTorch can hash.
constexpr KindSet kKeys = AnyOf(Kind::kBool, Kind::kInt, Kind::kFloat, Kind::kString,
                                Kind::kComplex, Kind::kDevice, Kind::kTensor);

enum class Function : std::uint8_t {
  kRebuildTensor,
  kRebuildTensorV3,
  kRebuildQTensor,
  kRebuildParameter,
  kBuildIntList,
  kBuildTensorList,
  kBuildDoubleList,
  kBuildBoolList,
  kRestoreTypeTag,
  kOrderedDict,
  kDevice,
  kComplex,
};

enum class QScheme : std::uint8_t { kPerTensor, kPerChannel, kPerChannelFloat };

struct Value {
  Kind kind = Kind::kNone;
  // kString: length. kTuple, kList, kDict, kStorage, kTensor: index into the heap. kObject: depth.
  // kFunction, kQScheme: the enumerator.
  std::uint32_t index = 0;
  union {
    // kInt, kBool; kString: where in the pickle it begins; kObject: 1 + the index of the dictionary of its
    // attributes, or 0.
    std::int64_t number = 0;
    const ElementType* element_type;  // kElementType
  };
};
static_assert(sizeof(Value) == 16);

struct Container {
  KindSet kinds = 0;        // of a list's or tuple's items, a dictionary's keys
  KindSet value_kinds = 0;  // of a dictionary's values
  std::uint32_t depth = 1;  // 1 + the deepest item
  bool used = false;        // is part of another value, so may no longer change
  // torch.save's, of a dictionary: what it says is True, which may be a tensor's flags.
  bool conjugated = false;
  bool negated = false;
  bool other_flags = false;
  std::uint32_t first = 0;  // of a tuple's items, in Heap::items
  std::uint32_t count = 0;  // a tuple's items
};

// An item of a dictionary, for torch.save's and for the names of TorchScript's tensors.
struct Entry {
  std::uint32_t dict = 0;  // index into Heap::containers
  Value key;
  Value value;
};

struct Heap {
  PickleDialect dialect = PickleDialect::kTorchScript;
  std::span<const std::byte> pickle;
  std::vector<Container> containers;
  std::vector<Value> items;
  std::vector<Entry> entries;
  PickleSummary summary;
  std::uint64_t dimensions = 0;  // of all tensors
  std::set<std::string, std::less<>> classes;
  std::unordered_map<std::string, std::uint32_t> storage_by_key;

  std::string_view Text(const Value& string) const {
    return {reinterpret_cast<const char*>(pickle.data()) + string.number, string.index};
  }
  std::span<const Value> Items(const Value& tuple) const {
    const Container& c = containers[tuple.index];
    return std::span(items).subspan(c.first, c.count);
  }
  bool IsContainer(const Value& v) const {
    return v.kind == Kind::kTuple || v.kind == Kind::kList || v.kind == Kind::kDict;
  }
  std::uint32_t Depth(const Value& v) const {
    if (IsContainer(v)) return containers[v.index].depth;
    return v.kind == Kind::kObject ? v.index : 0;
  }
  // Notes that `v` has become part of something.
  void Use(const Value& v) {
    if (IsContainer(v)) containers[v.index].used = true;
  }
};

}  // namespace hearth::pickle_internal

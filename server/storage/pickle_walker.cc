#include "server/storage/pickle_walker.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "server/storage/pickle_calls.h"
#include "server/storage/pickle_names.h"
#include "server/storage/pickle_values.h"

namespace hearth {
namespace {

using pickle_internal::Bit;
using pickle_internal::Container;
using pickle_internal::Heap;
using pickle_internal::Kind;
using pickle_internal::KindSet;
using pickle_internal::Value;

// The opcodes that LibTorch's reader knows.
// clang-format off
enum class Op : std::uint8_t {
  kMark = '(', kStop = '.', kBinInt = 'J', kBinInt1 = 'K', kBinInt2 = 'M', kNone = 'N',
  kBinPersId = 'Q', kReduce = 'R', kBinUnicode = 'X', kAppend = 'a', kBuild = 'b', kGlobal = 'c',
  kDict = 'd', kEmptyDict = '}', kAppends = 'e', kBinGet = 'h', kLongBinGet = 'j', kList = 'l',
  kEmptyList = ']', kBinPut = 'q', kLongBinPut = 'r', kSetItem = 's', kTuple = 't',
  kEmptyTuple = ')', kSetItems = 'u', kBinFloat = 'G', kProto = 0x80, kNewObj = 0x81,
  kTuple1 = 0x85, kTuple2 = 0x86, kTuple3 = 0x87, kTrue = 0x88, kFalse = 0x89, kLong1 = 0x8a,
};
// clang-format on

constexpr std::size_t kMaxGlobalLength = 4096;

absl::Status Bad(std::string_view what) { return absl::InvalidArgumentError(std::string(what)); }

// One walk over one pickle.
class Walker {
 public:
  Walker(std::span<const std::byte> pickle, const RecordSize& record_size,
         const PickleLimits& limits, PickleDialect dialect, TensorNames names)
      : record_size_(record_size),
        limits_(limits),
        keeps_entries_(dialect == PickleDialect::kTorchSave || names == TensorNames::kYes) {
    heap_.pickle = pickle;
    heap_.dialect = dialect;
  }

  absl::StatusOr<PickleSummary> Run() {
    while (!stopped_) {
      const std::size_t at = at_;
      const absl::Status step = Step();
      if (!step.ok()) return Annotate(step, StrCat("at byte ", at));
    }
    heap_.summary.classes.assign(heap_.classes.begin(), heap_.classes.end());
    if (torch_save()) {
      HEARTH_ASSIGN_OR_RETURN(heap_.summary.state_dict, pickle_internal::StateDict(heap_, stack_[0]));
    } else if (keeps_entries_) {
      pickle_internal::NameTensors(heap_, stack_[0]);
    }
    return std::move(heap_.summary);
  }

 private:
  absl::Status Step();
  absl::Status Structure(std::uint8_t op);
  absl::Status Start();
  absl::Status Stop();
  absl::Status ReadLong();
  absl::Status ReadShortLong(std::size_t length);
  absl::Status ReadString();
  absl::Status ReadGlobal();
  absl::Status Put(std::uint64_t memo);
  absl::Status Get(std::uint64_t memo);
  absl::Status MakeTuple(std::size_t first);
  absl::Status MarkedTuple();
  absl::Status MarkedList();
  absl::Status MarkedDict();
  absl::Status Append(std::size_t target, std::size_t first);
  absl::Status SetItems(std::size_t target, std::size_t first);
  void NoteFlag(const Value& key, Container& dict) const;
  absl::Status NewObject();
  absl::Status Invoke(bool build);
  absl::Status PersistentId();

  // Little-endian; checks that it is there.
  template <typename T>
  absl::Status Take(T& out) {
    if (heap_.pickle.size() - at_ < sizeof(T)) return Bad("the pickle is cut short");
    std::memcpy(&out, heap_.pickle.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return absl::OkStatus();
  }
  template <typename T, typename Then>
  absl::Status With(Then then) {
    T value{};
    HEARTH_RETURN_IF_ERROR(Take(value));
    return then(value);
  }
  absl::Status Push(const Value& value) {
    if (stack_.size() >= limits_.max_values) return Bad("there are too many values");
    stack_.push_back(value);
    return absl::OkStatus();
  }
  absl::Status PushNumber(Kind kind, std::int64_t number) {
    Value value;
    value.kind = kind;
    value.number = number;
    return Push(value);
  }
  absl::Status PushContainer(Kind kind, const Container& container) {
    if (heap_.containers.size() >= limits_.max_containers) return Bad("there are too many values");
    heap_.containers.push_back(container);
    Value value;
    value.kind = kind;
    value.index = static_cast<std::uint32_t>(heap_.containers.size() - 1);
    return Push(value);
  }
  bool torch_save() const { return heap_.dialect == PickleDialect::kTorchSave; }
  // Nothing below the last mark may be touched.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  absl::Status Need(std::size_t count) const {
    if (stack_.size() - floor() >= count) return absl::OkStatus();
    return Bad("the pickle takes values that it did not make");
  }
  absl::Status PopMark(std::size_t& first) {
    if (marks_.empty()) return Bad("the pickle ends a group that it did not begin");
    first = marks_.back();
    marks_.pop_back();
    return absl::OkStatus();
  }
  // Makes stack_[from..] part of a container: adds their kinds, deepens it.
  absl::Status Absorb(std::size_t from, std::size_t step, KindSet allowed, KindSet& kinds,
                      std::uint32_t& depth) {
    for (std::size_t i = from; i < stack_.size(); i += step) {
      if ((Bit(stack_[i].kind) & allowed) == 0)
        return Bad("a value is of a kind that cannot be there");
      kinds |= Bit(stack_[i].kind);
      depth = std::max(depth, heap_.Depth(stack_[i]) + 1);
      heap_.Use(stack_[i]);
    }
    if (depth > limits_.max_depth) return Bad("values are nested too deep");
    return absl::OkStatus();
  }

  const RecordSize& record_size_;
  const PickleLimits limits_;
  const bool keeps_entries_;
  Heap heap_;
  std::size_t at_ = 0;
  bool stopped_ = false;
  std::vector<Value> stack_;
  std::vector<std::size_t> marks_;
  std::vector<Value> memo_;
};

// Values and the memo.
absl::Status Walker::Step() {
  if (at_ == 0) return Start();
  std::uint8_t op = 0;
  HEARTH_RETURN_IF_ERROR(Take(op));
  switch (static_cast<Op>(op)) {
    case Op::kNone:
      return PushNumber(Kind::kNone, 0);
    case Op::kTrue:
      return PushNumber(Kind::kBool, 1);
    case Op::kFalse:
      return PushNumber(Kind::kBool, 0);
    case Op::kBinInt1:
      return With<std::uint8_t>([&](auto v) { return PushNumber(Kind::kInt, v); });
    case Op::kBinInt2:
      return With<std::uint16_t>([&](auto v) { return PushNumber(Kind::kInt, v); });
    case Op::kBinInt:
      return With<std::int32_t>([&](auto v) { return PushNumber(Kind::kInt, v); });
    case Op::kLong1:
      return ReadLong();
    case Op::kBinFloat:
      return With<std::uint64_t>([&](auto) { return PushNumber(Kind::kFloat, 0); });
    case Op::kBinUnicode:
      return ReadString();
    case Op::kGlobal:
      return ReadGlobal();
    case Op::kBinPut:
      return With<std::uint8_t>([&](auto v) { return Put(v); });
    case Op::kLongBinPut:
      return With<std::uint32_t>([&](auto v) { return Put(v); });
    case Op::kBinGet:
      return With<std::uint8_t>([&](auto v) { return Get(v); });
    case Op::kLongBinGet:
      return With<std::uint32_t>([&](auto v) { return Get(v); });
    case Op::kStop:
      return Stop();
    default:
      return Structure(op);
  }
}

// What groups, names and calls the values made so far.
absl::Status Walker::Structure(std::uint8_t op) {
  switch (static_cast<Op>(op)) {
    case Op::kMark:
      if (marks_.size() >= limits_.max_depth) return Bad("values are nested too deep");
      marks_.push_back(stack_.size());
      return absl::OkStatus();
    case Op::kEmptyList:
      return PushContainer(Kind::kList, {});
    case Op::kEmptyDict:
      return PushContainer(Kind::kDict, {});
    case Op::kEmptyTuple:
      return MakeTuple(stack_.size());
    case Op::kTuple1:
    case Op::kTuple2:
    case Op::kTuple3: {
      const std::size_t count = op - static_cast<std::uint8_t>(Op::kTuple1) + 1;
      HEARTH_RETURN_IF_ERROR(Need(count));
      return MakeTuple(stack_.size() - count);
    }
    case Op::kTuple:
      return MarkedTuple();
    case Op::kList:
      return MarkedList();
    case Op::kDict:
      return MarkedDict();
    case Op::kAppend:
      HEARTH_RETURN_IF_ERROR(Need(2));
      return Append(stack_.size() - 2, stack_.size() - 1);
    case Op::kSetItem:
      HEARTH_RETURN_IF_ERROR(Need(3));
      return SetItems(stack_.size() - 3, stack_.size() - 2);
    case Op::kAppends:
    case Op::kSetItems: {
      std::size_t first = 0;
      HEARTH_RETURN_IF_ERROR(PopMark(first));
      if (first <= floor()) return Bad("the pickle fills a container that it did not make");
      return static_cast<Op>(op) == Op::kAppends ? Append(first - 1, first)
                                                 : SetItems(first - 1, first);
    }
    case Op::kNewObj:
      return NewObject();
    case Op::kBuild:
    case Op::kReduce:
      return Invoke(static_cast<Op>(op) == Op::kBuild);
    case Op::kBinPersId:
      return PersistentId();
    default:
      break;
  }
  return Bad(absl::StrFormat("opcode 0x%02x is not one that PyTorch's files use", op));
}

absl::Status Walker::Start() {
  if (heap_.pickle.size() > limits_.max_bytes)
    return Bad("the pickle is larger than is allowed here");
  std::uint8_t proto = 0;
  std::uint8_t version = 0;
  HEARTH_RETURN_IF_ERROR(Take(proto));
  HEARTH_RETURN_IF_ERROR(Take(version));
  if (static_cast<Op>(proto) != Op::kProto || version != 2) {
    return Bad("this is not a pickle of protocol 2, as PyTorch's files have them");
  }
  return absl::OkStatus();
}

absl::Status Walker::Stop() {
  if (!marks_.empty() || stack_.size() != 1 ||
      (Bit(stack_[0].kind) & pickle_internal::kData) == 0) {
    return Bad("the pickle does not end with one value");
  }
  stopped_ = true;
  return absl::OkStatus();
}

absl::Status Walker::ReadLong() {
  std::uint8_t length = 0;
  std::int64_t value = 0;
  HEARTH_RETURN_IF_ERROR(Take(length));
  if (torch_save() && length < sizeof(value)) return ReadShortLong(length);
  if (length != sizeof(value)) return Bad("an integer does not have 8 bytes");
  HEARTH_RETURN_IF_ERROR(Take(value));
  return PushNumber(Kind::kInt, value);
}

// Python writes as few bytes as a number needs.
absl::Status Walker::ReadShortLong(std::size_t length) {
  std::uint64_t value = 0;
  unsigned shift = 0;
  for (std::size_t i = 0; i < length; ++i, shift += 8) {
    std::uint8_t byte = 0;
    HEARTH_RETURN_IF_ERROR(Take(byte));
    value |= std::uint64_t{byte} << shift;
  }
  const bool negative = shift > 0 && (value >> (shift - 1)) != 0;
  if (negative) value |= ~std::uint64_t{0} << shift;
  return PushNumber(Kind::kInt, static_cast<std::int64_t>(value));
}

absl::Status Walker::ReadString() {
  std::uint32_t length = 0;
  HEARTH_RETURN_IF_ERROR(Take(length));
  if (length > heap_.pickle.size() - at_) return Bad("a string is longer than the pickle");
  Value value;
  value.kind = Kind::kString;
  value.index = length;
  value.number = static_cast<std::int64_t>(at_);
  at_ += length;
  return Push(value);
}

absl::Status Walker::ReadGlobal() {
  const std::string_view rest(reinterpret_cast<const char*>(heap_.pickle.data()) + at_,
                              std::min(heap_.pickle.size() - at_, kMaxGlobalLength));
  const std::size_t first = rest.find('\n');
  const std::size_t second = first == rest.npos ? rest.npos : rest.find('\n', first + 1);
  if (second == rest.npos) return Bad("a name does not end");
  at_ += second + 1;
  HEARTH_ASSIGN_OR_RETURN(const Value value, pickle_internal::ResolveGlobal(
                                                 heap_, rest.substr(0, first),
                                                 rest.substr(first + 1, second - first - 1)));
  return Push(value);
}

// PyTorch numbers the memo without gaps; LibTorch would make room for any number.
absl::Status Walker::Put(std::uint64_t memo) {
  HEARTH_RETURN_IF_ERROR(Need(1));
  if (memo > memo_.size() || memo >= limits_.max_values)
    return Bad("the memo is not numbered in order");
  if (memo == memo_.size()) memo_.emplace_back();
  memo_[memo] = stack_.back();
  return absl::OkStatus();
}

absl::Status Walker::Get(std::uint64_t memo) {
  if (memo >= memo_.size()) return Bad("the pickle recalls a value that it did not keep");
  return Push(memo_[memo]);
}

// Of everything on the stack from `first` on.
absl::Status Walker::MakeTuple(std::size_t first) {
  Container tuple;
  HEARTH_RETURN_IF_ERROR(Absorb(first, 1, pickle_internal::kTupleItems, tuple.kinds, tuple.depth));
  const std::size_t count = stack_.size() - first;
  if (count > limits_.max_values - heap_.items.size()) return Bad("there are too many values");
  tuple.first = static_cast<std::uint32_t>(heap_.items.size());
  tuple.count = static_cast<std::uint32_t>(count);
  heap_.items.insert(heap_.items.end(), stack_.begin() + static_cast<std::ptrdiff_t>(first),
                     stack_.end());
  stack_.resize(first);
  return PushContainer(Kind::kTuple, tuple);
}

absl::Status Walker::MarkedTuple() {
  std::size_t first = 0;
  HEARTH_RETURN_IF_ERROR(PopMark(first));
  return MakeTuple(first);
}

absl::Status Walker::MarkedList() {
  std::size_t first = 0;
  HEARTH_RETURN_IF_ERROR(PopMark(first));
  Container list;
  HEARTH_RETURN_IF_ERROR(Absorb(first, 1, pickle_internal::kData, list.kinds, list.depth));
  stack_.resize(first);
  return PushContainer(Kind::kList, list);
}

absl::Status Walker::MarkedDict() {
  std::size_t first = 0;
  HEARTH_RETURN_IF_ERROR(PopMark(first));
  HEARTH_RETURN_IF_ERROR(PushContainer(Kind::kDict, {}));
  std::rotate(stack_.begin() + static_cast<std::ptrdiff_t>(first), stack_.end() - 1, stack_.end());
  return SetItems(first, first + 1);
}

// A container that is part of another value may not change: that keeps every depth right, and
// nothing can come to contain itself.
absl::Status Walker::Append(std::size_t target, std::size_t first) {
  if (stack_[target].kind != Kind::kList) return Bad("something is appended to what is no list");
  Container& list = heap_.containers[stack_[target].index];
  HEARTH_RETURN_IF_ERROR(Absorb(first, 1, pickle_internal::kData, list.kinds, list.depth));
  if (list.used) return Bad("a list changes after it was used");
  stack_.resize(first);
  return absl::OkStatus();
}

absl::Status Walker::SetItems(std::size_t target, std::size_t first) {
  if (stack_[target].kind != Kind::kDict) return Bad("an item is set in what is no dictionary");
  if ((stack_.size() - first) % 2 != 0) return Bad("a dictionary has a key without a value");
  Container& dict = heap_.containers[stack_[target].index];
  HEARTH_RETURN_IF_ERROR(Absorb(first, 2, pickle_internal::kKeys, dict.kinds, dict.depth));
  HEARTH_RETURN_IF_ERROR(
      Absorb(first + 1, 2, pickle_internal::DictValues(heap_.dialect), dict.value_kinds, dict.depth));
  if (dict.used) return Bad("a dictionary changes after it was used");
  if (keeps_entries_) {
    for (std::size_t i = first; i < stack_.size(); i += 2) {
      heap_.entries.push_back({stack_[target].index, stack_[i], stack_[i + 1]});
      if (torch_save() && stack_[i + 1].kind == Kind::kBool && stack_[i + 1].number != 0) NoteFlag(stack_[i], dict);
    }
  }
  stack_.resize(first);
  return absl::OkStatus();
}

void Walker::NoteFlag(const Value& key, Container& dict) const {
  const std::string_view name = key.kind == Kind::kString ? heap_.Text(key) : std::string_view();
  (name == "conj" ? dict.conjugated : name == "neg" ? dict.negated : dict.other_flags) = true;
}

absl::Status Walker::NewObject() {
  HEARTH_RETURN_IF_ERROR(Need(2));
  const Value arguments = stack_.back();
  Value& type = stack_[stack_.size() - 2];
  if (type.kind != Kind::kClass || arguments.kind != Kind::kTuple ||
      !heap_.Items(arguments).empty()) {
    return Bad("an object is made from what is no class");
  }
  stack_.pop_back();
  stack_.back().kind = Kind::kNewObject;
  return absl::OkStatus();
}

// BUILD gives a new object its state; REDUCE calls a function, or makes the value of an
// enumeration.
absl::Status Walker::Invoke(bool build) {
  HEARTH_RETURN_IF_ERROR(Need(2));
  const Value callee = stack_[stack_.size() - 2];
  const Value argument = stack_.back();
  Value result;
  if (torch_save() && build && callee.kind == Kind::kDict) {
    stack_.pop_back();  // attributes of an OrderedDict: the versions of its modules
    return absl::OkStatus();
  }
  if (torch_save() && pickle_internal::IsNewDict(heap_, callee, argument)) {
    stack_.resize(stack_.size() - 2);
    return PushContainer(Kind::kDict, {});
  }
  if (!build && callee.kind == Kind::kFunction) {
    HEARTH_ASSIGN_OR_RETURN(result, pickle_internal::Call(heap_, callee, argument));
    heap_.Use(argument);
  } else if (callee.kind == (build ? Kind::kNewObject : Kind::kClass)) {
    KindSet kinds = 0;
    result.kind = Kind::kObject;
    if (argument.kind == Kind::kDict) result.number = std::int64_t{argument.index} + 1;
    HEARTH_RETURN_IF_ERROR(
        Absorb(stack_.size() - 1, 1, pickle_internal::kData, kinds, result.index));
  } else {
    return Bad("something is called that cannot be called");
  }
  stack_.pop_back();
  stack_.back() = result;
  return absl::OkStatus();
}

absl::Status Walker::PersistentId() {
  HEARTH_RETURN_IF_ERROR(Need(1));
  HEARTH_ASSIGN_OR_RETURN(stack_.back(),
                          pickle_internal::LoadStorage(heap_, stack_.back(), record_size_));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PickleSummary> WalkPickle(std::span<const std::byte> pickle,
                                         const RecordSize& record_size,
                                         const PickleLimits& limits, PickleDialect dialect, TensorNames names) {
  return Walker(pickle, record_size, limits, dialect, names).Run();
}

}  // namespace hearth

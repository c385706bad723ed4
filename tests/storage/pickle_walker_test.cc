#include "server/storage/pickle_walker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "tests/storage/files.h"

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing_files::ToBytes;

// Pieces of pickles, put together by the tests.
const std::string kProto("\x80\x02", 2);

template <typename T>
std::string Raw(T value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}
std::string Int(std::int64_t v) { return "\x8a\x08" + Raw(v); }
std::string Str(const std::string& text) {
  return "X" + Raw(static_cast<std::uint32_t>(text.size())) + text;
}
std::string Global(const std::string& module, const std::string& name) {
  return "c" + module + "\n" + name + "\n";
}
std::string Tuple(const std::string& items) { return "(" + items + "t"; }
std::string List(const std::string& items) { return "](" + items + "e"; }
std::string Dict(const std::string& items) { return "}(" + items + "u"; }
std::string Float() { return "G" + std::string(8, '\0'); }
std::string Hooks() { return Global("collections", "OrderedDict") + ")R"; }
const std::string kTrue = "\x88";
const std::string kFalse = "\x89";
const std::string kNone = "N";

std::string Storage(const std::string& type, const std::string& key, std::int64_t numel,
                    const std::string& device = "cpu") {
  return Tuple(Str("storage") + Global("torch", type) + Str(key) + Str(device) + Int(numel)) + "Q";
}
std::string Ints(const std::vector<std::int64_t>& values) {
  std::string out;
  for (const std::int64_t v : values) out += Int(v);
  return Tuple(out);
}
std::string TensorOf(const std::string& storage, std::int64_t offset,
                     const std::vector<std::int64_t>& sizes,
                     const std::vector<std::int64_t>& strides) {
  return Global("torch._utils", "_rebuild_tensor_v2") +
         Tuple(storage + Int(offset) + Ints(sizes) + Ints(strides) + kFalse + Hooks()) + "R";
}
std::string Tensor12(std::int64_t offset, const std::vector<std::int64_t>& sizes,
                     const std::vector<std::int64_t>& strides) {
  return TensorOf(Storage("FloatStorage", "0", 12), offset, sizes, strides);
}
std::string QTensor(const std::string& parameters) {
  return Global("torch._utils", "_rebuild_qtensor") +
         Tuple(Storage("QInt8Storage", "0", 12) + Int(0) + Ints({3, 4}) + Ints({4, 1}) +
               parameters + kFalse + Hooks()) +
         "R";
}

// Every record has 48 bytes, except "none", which does not exist.
absl::StatusOr<PickleSummary> Walk(const std::string& body, const PickleLimits& limits = {},
                                   PickleDialect dialect = PickleDialect::kTorchScript) {
  return WalkPickle(
      ToBytes(kProto + body),
      [](std::string_view key) -> std::optional<std::uint64_t> {
        if (key == "none") return std::nullopt;
        return 48;
      },
      limits, dialect);
}

std::string Refusal(const std::string& body, const PickleLimits& limits = {}) {
  const auto summary = Walk(body, limits);
  if (summary.ok()) return "(accepted)";
  EXPECT_EQ(summary.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(summary.status().message());
}

TEST(PickleWalker, ReadsATensor) {
  const auto summary = Walk(Tensor12(1, {2, 3}, {5, 1}) + ".");
  ASSERT_TRUE(summary.ok()) << summary.status();
  ASSERT_EQ(summary->storages.size(), 1u);
  EXPECT_EQ(summary->storages[0].key, "0");
  EXPECT_EQ(summary->storages[0].type->name, "Float");
  EXPECT_EQ(summary->storages[0].type->dtype, DType::kFp32);
  EXPECT_EQ(summary->storages[0].bytes(), 48u);
  EXPECT_EQ(summary->storages[0].device, "cpu");
  ASSERT_EQ(summary->tensors.size(), 1u);
  EXPECT_EQ(summary->tensors[0].offset, 1);
  EXPECT_THAT(summary->tensors[0].sizes, ElementsAre(2, 3));
  EXPECT_THAT(summary->tensors[0].strides, ElementsAre(5, 1));
  EXPECT_FALSE(summary->tensors[0].quantized);
  EXPECT_EQ(summary->storage_bytes(), 48u);
}

TEST(PickleWalker, ReadsAnObjectAndItsClass) {
  const auto summary = Walk(Global("__torch__.net", "Net") + ")\x81" +
                            Dict(Str("w") + Tensor12(0, {12}, {1}) + Str("n") + Int(3)) + "b.");
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_THAT(summary->classes, ElementsAre("__torch__.net.Net"));
}

TEST(PickleWalker, CountsASharedStorageOnce) {
  const auto summary = Walk(Tuple(Tensor12(0, {6}, {1}) + Tensor12(6, {6}, {1})) + ".");
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->storages.size(), 1u);
  EXPECT_EQ(summary->tensors.size(), 2u);
  EXPECT_EQ(summary->storage_bytes(), 48u);
}

TEST(PickleWalker, ChecksEveryViewAgainstItsStorage) {
  struct Case {
    std::int64_t offset;
    std::vector<std::int64_t> sizes, strides;
    bool good;
  };
  const std::int64_t big = INT64_MAX;
  const Case cases[] = {
      {0, {12}, {1}, true},
      {0, {13}, {1}, false},
      {1, {12}, {1}, false},
      {11, {1}, {1}, true},
      {12, {1}, {1}, false},
      {12, {0}, {1}, true},
      {13, {0}, {1}, false},
      {0, {3, 4}, {4, 1}, true},
      {0, {3, 4}, {5, 1}, false},
      {0, {4, 3}, {1, 4}, true},
      {0, {100, 1}, {0, 1}, true},
      {0, {}, {}, true},
      {12, {}, {}, false},
      {-1, {1}, {1}, false},
      {0, {-1}, {1}, false},
      {5, {2}, {-1}, false},
      {0, {1, 2}, {1}, false},
      {0, {2}, {big}, false},
      {big, {2}, {big}, false},
      {0, {big, big}, {0, 0}, false},
      {0, {big, 2, 0}, {1, 1, 1}, false},
      {0, {1, 1}, {big, big}, true},      // strides of single elements do not matter
  };
  for (const Case& c : cases) {
    const std::string refusal = Refusal(Tensor12(c.offset, c.sizes, c.strides) + ".");
    EXPECT_EQ(refusal == "(accepted)", c.good)
        << c.offset << " " << ToString(c.sizes) << " " << ToString(c.strides) << ": " << refusal;
  }
}

TEST(PickleWalker, ChecksEveryStorageAgainstItsRecord) {
  EXPECT_THAT(Refusal(TensorOf(Storage("FloatStorage", "0", 13), 0, {1}, {1}) + "."),
              HasSubstr("claims 52 bytes, but its record has 48"));
  EXPECT_THAT(Refusal(TensorOf(Storage("DoubleStorage", "0", 12), 0, {1}, {1}) + "."),
              HasSubstr("claims 96"));
  EXPECT_THAT(Refusal(TensorOf(Storage("FloatStorage", "none", 1), 0, {1}, {1}) + "."),
              HasSubstr("no record"));
  EXPECT_THAT(Refusal(TensorOf(Storage("FloatStorage", "0", -1), 0, {1}, {1}) + "."),
              HasSubstr("impossible"));
  EXPECT_THAT(Refusal(TensorOf(Storage("FloatStorage", "0", INT64_MAX), 0, {1}, {1}) + "."),
              HasSubstr("impossible"));
  EXPECT_THAT(Refusal(TensorOf(Storage("FloatStorage", "0", 4, "meta"), 0, {1}, {1}) + "."),
              HasSubstr("meta device"));
  EXPECT_EQ(Refusal(TensorOf(Storage("FloatStorage", "none", 0), 0, {0}, {1}) + "."), "(accepted)");
}

TEST(PickleWalker, RefusesOneRecordAsTwoStorages) {
  const std::string two = TensorOf(Storage("FloatStorage", "0", 12), 0, {12}, {1}) +
                          TensorOf(Storage("IntStorage", "0", 12), 0, {12}, {1});
  EXPECT_THAT(Refusal(Tuple(two) + "."), HasSubstr("described in two ways"));
}

TEST(PickleWalker, KnowsTheElementTypes) {
  const std::pair<const char*, std::uint32_t> types[] = {
      {"Float", 4},      {"Double", 8},      {"Half", 2},         {"BFloat16", 2},
      {"Int", 4},        {"Long", 8},        {"Short", 2},        {"Char", 1},
      {"Byte", 1},       {"Bool", 1},        {"UInt16", 2},       {"UInt32", 4},
      {"UInt64", 8},     {"ComplexHalf", 4}, {"ComplexFloat", 8}, {"ComplexDouble", 16},
      {"Float8_e5m2", 1}};
  for (const auto& [name, size] : types) {
    const auto summary =
        Walk(TensorOf(Storage(std::string(name) + "Storage", "0", 3), 0, {3}, {1}) + ".");
    ASSERT_TRUE(summary.ok()) << name << ": " << summary.status();
    EXPECT_EQ(summary->storages[0].type->size, size) << name;
  }
  EXPECT_THAT(Refusal(TensorOf(Storage("WeirdStorage", "0", 3), 0, {3}, {1}) + "."),
              HasSubstr("'torch.WeirdStorage'"));
  EXPECT_THAT(Refusal(TensorOf(Storage("UntypedStorage", "0", 3), 0, {3}, {1}) + "."),
              HasSubstr("UntypedStorage"));
}

TEST(PickleWalker, ChecksQuantizers) {
  const std::string whole = Global("torch", "per_tensor_affine") + Float() + Int(3);
  const std::string channel = Global("torch", "per_channel_affine");
  const auto vec = [](std::int64_t n) {
    return TensorOf(Storage("DoubleStorage", "s", 4), 0, {n}, {1});
  };
  EXPECT_EQ(Refusal(QTensor(Tuple(whole)) + "."), "(accepted)");
  EXPECT_EQ(Refusal(QTensor(Tuple(channel + vec(3) + vec(3) + Int(0))) + "."), "(accepted)");
  EXPECT_EQ(Refusal(QTensor(Tuple(channel + vec(4) + vec(4) + Int(1))) + "."), "(accepted)");
  for (const std::string& bad :
       {Tuple(channel + vec(2) + vec(3) + Int(0)), Tuple(channel + vec(3) + vec(2) + Int(0)),
        Tuple(channel + vec(3) + vec(3) + Int(2)), Tuple(channel + vec(3) + vec(3) + Int(-1)),
        Tuple(channel + Float() + Int(3)), Tuple(""), Tuple(whole + Int(1)), kNone}) {
    EXPECT_NE(Refusal(QTensor(bad) + "."), "(accepted)");
  }
}

TEST(PickleWalker, RefusesTensorsThatAreQuantizedInHalf) {
  EXPECT_THAT(Refusal(TensorOf(Storage("QInt8Storage", "0", 3), 0, {3}, {1}) + "."),
              HasSubstr("plain tensor has elements of type QInt8"));
  const std::string q =
      Global("torch._utils", "_rebuild_qtensor") +
      Tuple(Storage("FloatStorage", "0", 3) + Int(0) + Ints({3}) + Ints({1}) +
            Tuple(Global("torch", "per_tensor_affine") + Float() + Int(0)) + kFalse + Hooks()) +
      "R";
  EXPECT_THAT(Refusal(q + "."), HasSubstr("quantized tensor has elements of type Float"));
}

TEST(PickleWalker, AcceptsConjugateFlags) {
  const auto with = [](const std::string& flags) {
    return Global("torch._utils", "_rebuild_tensor_v2") +
           Tuple(Storage("ComplexFloatStorage", "0", 3) + Int(0) + Ints({3}) + Ints({1}) + kTrue +
                 Hooks() + flags) +
           "R.";
  };
  const auto summary = Walk(with(Dict(Str("conj") + kTrue)));
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_TRUE(summary->tensors[0].requires_grad);
  EXPECT_NE(Refusal(with(Dict(Str("conj") + Int(1)))), "(accepted)");
  EXPECT_NE(Refusal(with(Dict(Int(1) + kTrue))), "(accepted)");
}

TEST(PickleWalker, TellsWhichTensorsOfTorchSaveAreConjugatedOrNegated) {
  const auto with = [](const std::string& flags, const std::string& type = "ComplexFloatStorage") {
    return Walk(Dict(Str("w") + Global("torch._utils", "_rebuild_tensor_v2") +
                     Tuple(Storage(type, "0", 3) + Int(0) + Ints({3}) + Ints({1}) + kFalse + Hooks() + flags) + "R") +
                    ".",
                {}, PickleDialect::kTorchSave);
  };
  const auto both = with(Dict(Str("conj") + kTrue + Str("neg") + kTrue));
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_TRUE(both->tensors[0].conjugated && both->tensors[0].negated);
  const auto neither = with(Dict(Str("conj") + kFalse + Str("other") + kFalse));
  ASSERT_TRUE(neither.ok()) << neither.status();
  EXPECT_FALSE(neither->tensors[0].conjugated || neither->tensors[0].negated);
  EXPECT_TRUE(with(Dict(Str("neg") + kTrue), "FloatStorage")->tensors[0].negated);
  EXPECT_THAT(with(Dict(Str("conj") + kTrue), "FloatStorage").status().message(), HasSubstr("elements of type Float"));
  EXPECT_THAT(with(Dict(Str("other") + kTrue)).status().message(), HasSubstr("'conj' and 'neg'"));
}

TEST(PickleWalker, AnEmptyDictionaryOfTorchSaveIsAModelWithoutWeights) {
  const auto walk = [](const std::string& body) { return Walk(body + ".", {}, PickleDialect::kTorchSave); };
  EXPECT_THAT(walk("}")->state_dict, IsEmpty());
  EXPECT_THAT(walk(Hooks())->state_dict, IsEmpty());  // an OrderedDict
  EXPECT_THAT(walk(Dict(Str("epoch") + Int(3))).status().message(), HasSubstr("no tensors by name"));
}

TEST(PickleWalker, ElementTypesBesideTensorsArePassedOverAndPackedParametersAreNot) {
  const auto walk = [](const std::string& more) {
    return Walk(Dict(Str("w") + Tensor12(0, {12}, {1}) + more) + ".", {}, PickleDialect::kTorchSave);
  };
  const auto typed = walk(Str("dtype") + Global("torch", "float16"));
  ASSERT_TRUE(typed.ok()) << typed.status();
  EXPECT_EQ(typed->state_dict.size(), 1u);
  EXPECT_THAT(walk(Str("a.b._packed_params") + Tuple(Tensor12(0, {12}, {1}) + kNone)).status().message(),
              HasSubstr("('a.b._packed_params'); quantized models are served as TorchScript"));
  EXPECT_NE(Refusal(Dict(Str("dtype") + Global("torch", "FloatStorage")) + "."), "(accepted)");
}

TEST(PickleWalker, ChecksTypedLists) {
  const auto typed = [](const char* name, const std::string& items) {
    return Refusal(Global("torch.jit._pickle", name) + Tuple(List(items)) + "R.");
  };
  EXPECT_EQ(typed("build_intlist", Int(1) + Int(2)), "(accepted)");
  EXPECT_EQ(typed("build_intlist", ""), "(accepted)");
  EXPECT_EQ(typed("build_doublelist", Float()), "(accepted)");
  EXPECT_EQ(typed("build_boollist", kTrue + kFalse), "(accepted)");
  EXPECT_EQ(typed("build_tensorlist", Tensor12(0, {1}, {1})), "(accepted)");
  EXPECT_NE(typed("build_intlist", Int(1) + Str("x")), "(accepted)");
  EXPECT_NE(typed("build_tensorlist", Int(1)), "(accepted)");
  EXPECT_NE(typed("build_doublelist", kTrue), "(accepted)");
  EXPECT_NE(typed("build_nonsense", ""), "(accepted)");
}

TEST(PickleWalker, ChecksTypeTags) {
  const auto tagged = [](const std::string& value, const std::string& type) {
    return Refusal(Global("torch.jit._pickle", "restore_type_tag") + Tuple(value + Str(type)) +
                   "R.");
  };
  EXPECT_EQ(tagged(Dict(Str("a") + Int(1)), "Dict[str, int]"), "(accepted)");
  EXPECT_NE(tagged(Int(1), "int"), "(accepted)");
  std::string deep;
  for (int i = 0; i < 10000; ++i) deep += "List[";
  EXPECT_THAT(tagged(List(""), deep), HasSubstr("nested too deep"));
  EXPECT_THAT(tagged(List(""), std::string(1 << 20, 'x')), HasSubstr("too long"));
}

TEST(PickleWalker, RefusesGlobalsThatRunThings) {
  for (const auto& [module, name] : {std::pair{"os", "system"},
                                     {"builtins", "eval"},
                                     {"torch", "load"},
                                     {"torch._utils", "_rebuild_sparse_tensor"},
                                     {"posix", "system"},
                                     {"torch.jit._pickle", "build_tensor_from_id"},
                                     {"__main__", "TensorID"},
                                     {"torch.distributed.rpc", "rref"},
                                     {"torch._tensor", "_rebuild_from_type_v2"}}) {
    const std::string refusal = Refusal(Global(module, name) + Tuple(Str("touch /tmp/x")) + "R.");
    EXPECT_NE(refusal, "(accepted)") << module << "." << name;
    EXPECT_THAT(refusal, HasSubstr("at byte 2:"));
  }
  EXPECT_THAT(Refusal(Global("os", "system") + ")R."), HasSubstr("'os.system'"));
}

TEST(PickleWalker, RefusesBadClassNames) {
  for (const char* name : {"", "a b", "..", "a.", ".a", "1a", "a\x01"}) {
    EXPECT_NE(Refusal(Global("__torch__", name) + ")\x81}b."), "(accepted)") << name;
  }
  EXPECT_EQ(Refusal(Global("__torch__.___torch_mangle_0", "A1_") + ")\x81}b."), "(accepted)");
}

TEST(PickleWalker, RefusesOpcodesThatTorchScriptDoesNotUse) {
  for (const int op :
       std::vector<int>{'0', '1', '2', 'F',  'I',  'L',  'P',  'S',  'T',  'U',  'V',  'g',
                        'i', 'o', 'p', 0x80, 0x82, 0x8b, 0x8c, 0x93, 0x94, 0x95, 0x00, 0xff}) {
    const std::string refusal =
        Refusal(Int(1) + static_cast<char>(op) + std::string(16, '\n') + ".");
    EXPECT_THAT(refusal, HasSubstr("opcode 0x")) << op;
  }
}

TEST(PickleWalker, RefusesOtherProtocols) {
  const auto none = [](std::string_view) { return std::nullopt; };
  for (const std::string& text :
       {std::string("\x80\x04N."), std::string("N."), std::string("\x80"), std::string()}) {
    EXPECT_FALSE(WalkPickle(ToBytes(text), none).ok());
  }
  EXPECT_TRUE(WalkPickle(ToBytes("\x80\x02N."), none).ok());
}

TEST(PickleWalker, NeverTouchesTheStackBelowAMark) {
  const std::string one = Int(1);
  const std::vector<std::string> bodies = {std::string("."),
                                           std::string("t."),
                                           std::string("e."),
                                           std::string("u."),
                                           std::string("l."),
                                           std::string("d."),
                                           std::string("\x85."),
                                           one + "\x86.",
                                           one + one + "\x87.",
                                           one + "(\x85t.",
                                           "](" + one + "(ee.",
                                           "}(" + one + "u.",
                                           "(" + one + "d.",
                                           std::string("q\x00.", 3),
                                           one + "(q" + std::string(1, '\0') + "t.",
                                           "]a.",
                                           one + one + "a.",
                                           "}" + one + "s.",
                                           one + one + one + "s.",
                                           one + one + ".",
                                           one + "(.",
                                           "(" + one + "e.",
                                           "R.",
                                           one + "R.",
                                           one + one + "R.",
                                           "b.",
                                           "\x81.",
                                           "Q.",
                                           one + "Q.",
                                           ")Q."};
  for (const std::string& body : bodies) {
    EXPECT_NE(Refusal(body), "(accepted)") << ::testing::PrintToString(body);
  }
}

TEST(PickleWalker, RefusesIntegersInPlaceOfFunctions) {
  // In LibTorch's reader a function is an index, and any integer will do for one.
  EXPECT_THAT(Refusal(Hooks() + "0" + Int(0) + ")R."), HasSubstr("at byte"));
  EXPECT_THAT(Refusal(Int(0) + ")R."), HasSubstr("cannot be called"));
  EXPECT_THAT(Refusal(Int(0) + "}b."), HasSubstr("cannot be called"));
  EXPECT_NE(Refusal(Tuple(Str("storage") + Int(6) + Str("0") + Str("cpu") + Int(3)) + "Q."),
            "(accepted)");
  EXPECT_NE(Refusal(Global("__torch__", "A") + "}b."), "(accepted)");     // no NEWOBJ
  EXPECT_NE(Refusal(Global("__torch__", "A") + ")\x81."), "(accepted)");  // no BUILD
  EXPECT_NE(Refusal(List(Global("torch", "FloatStorage")) + "."), "(accepted)");
  EXPECT_NE(Refusal(Global("collections", "OrderedDict") + "."), "(accepted)");
}

TEST(PickleWalker, AcceptsEnumerations) {
  EXPECT_EQ(Refusal(Global("__torch__", "Color") + Int(2) + "R."), "(accepted)");
}

TEST(PickleWalker, TheMemoHasNoGaps) {
  EXPECT_EQ(Refusal("Nq" + std::string(1, '\0') + "h" + std::string(1, '\0') + "\x86."),
            "(accepted)");
  EXPECT_THAT(Refusal("Nr" + Raw(0xffffffffU) + "."), HasSubstr("memo"));
  EXPECT_THAT(Refusal("Nq\x01."), HasSubstr("memo"));
  EXPECT_THAT(Refusal(std::string("h\x00.", 3)), HasSubstr("recalls"));
  EXPECT_THAT(Refusal("j" + Raw(0xffffffffU) + "."), HasSubstr("recalls"));
}

TEST(PickleWalker, NoValueCanContainItself) {
  const std::string put = "q" + std::string(1, '\0');
  const std::string get = "h" + std::string(1, '\0');
  EXPECT_THAT(Refusal("]" + put + get + "a."), HasSubstr("changes after it was used"));
  EXPECT_THAT(Refusal("]" + put + get + "\x85" + "a."), HasSubstr("changes after it was used"));
  EXPECT_THAT(Refusal("}" + put + Int(1) + get + "s."), HasSubstr("changes after it was used"));
}

TEST(PickleWalker, BoundsNesting) {
  std::string tuples = "N";
  for (int i = 0; i < 2000; ++i) tuples += '\x85';
  EXPECT_THAT(Refusal(tuples + "."), HasSubstr("nested too deep"));
  EXPECT_EQ(Refusal(tuples.substr(0, 900) + "."), "(accepted)");
  EXPECT_THAT(Refusal(std::string(2000, '(') + "."), HasSubstr("nested too deep"));
  std::string objects = "N";  // an object's state in an object's state
  std::string before;
  for (int i = 0; i < 2000; ++i) before += Global("__torch__", "A") + ")\x81";
  for (int i = 0; i < 2000; ++i) objects += 'b';
  EXPECT_THAT(Refusal(before + objects + "."), HasSubstr("nested too deep"));
}

TEST(PickleWalker, BoundsMemory) {
  EXPECT_THAT(Refusal("(" + std::string(100, 'N') + "t.", {.max_values = 50}),
              HasSubstr("too many values"));
  EXPECT_THAT(Refusal("(" + std::string(100, ']') + "t.", {.max_containers = 50}),
              HasSubstr("too many values"));
  EXPECT_THAT(Refusal("N.", {.max_bytes = 3}), HasSubstr("larger than is allowed"));
  // A memoized tuple makes a tensor of 64 dimensions from three bytes.
  const std::string tensor =
      Global("torch._utils", "_rebuild_tensor_v2") + "q" + std::string(1, '\0') +
      Tuple(Storage("FloatStorage", "0", 12) + Int(0) + Ints(std::vector<std::int64_t>(64, 1)) +
            Ints(std::vector<std::int64_t>(64, 1)) + kFalse + Hooks()) +
      "q\x01R";
  std::string many = "](" + tensor;
  for (int i = 0; i < 300000; ++i) many += std::string("h\x00h\x01R", 5);
  EXPECT_THAT(Refusal(many + "e."), HasSubstr("too many tensors"));
}

TEST(PickleWalker, RefusesStringsLongerThanThePickle) {
  EXPECT_THAT(Refusal("X" + Raw(0xffffffffU) + "abc."), HasSubstr("longer than the pickle"));
  EXPECT_THAT(Refusal("cos"), HasSubstr("does not end"));
  EXPECT_THAT(Refusal("c" + std::string(100000, 'a') + "\nb\n."), HasSubstr("does not end"));
  EXPECT_THAT(Refusal("\x8a\xff" + std::string(255, 'x') + "."), HasSubstr("8 bytes"));
}

}  // namespace
}  // namespace hearth

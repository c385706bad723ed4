#include "server/storage/element_type.h"

namespace hearth {
namespace {

constexpr ElementType kTypes[] = {
    {"Float", 4, "float32", "F32", DType::kFp32},
    {"Half", 2, "float16", "F16", DType::kFp16},
    {"BFloat16", 2, "bfloat16", "BF16", DType::kBf16},
    {"Double", 8, "float64", "F64", DType::kFp64},
    {"Long", 8, "int64", "I64", DType::kInt64},
    {"Int", 4, "int32", "I32", DType::kInt32},
    {"Short", 2, "int16", "I16", DType::kInt16},
    {"Char", 1, "int8", "I8", DType::kInt8},
    {"Byte", 1, "uint8", "U8", DType::kUInt8},
    {"Bool", 1, "bool", "BOOL", DType::kBool},
    {"UInt16", 2, "uint16", "U16", DType::kUInt16},
    {"UInt32", 4, "uint32", "U32", DType::kUInt32},
    {"UInt64", 8, "uint64", "U64", DType::kUInt64},
    {"Untyped", 1, "", ""},  // bytes of any type
    {"ComplexHalf", 4, "complex32", ""},
    {"ComplexFloat", 8, "complex64", "C64"},
    {"ComplexDouble", 16, "complex128", ""},
    {"Float8_e5m2", 1, "float8_e5m2", "F8_E5M2"},
    {"Float8_e4m3fn", 1, "float8_e4m3fn", "F8_E4M3"},
    {"Float8_e5m2fnuz", 1, "float8_e5m2fnuz", ""},
    {"Float8_e4m3fnuz", 1, "float8_e4m3fnuz", ""},
    {"Float8_e8m0fnu", 1, "float8_e8m0fnu", "F8_E8M0"},
    {"Float4_e2m1fn_x2", 1, "float4_e2m1fn_x2", ""},
    {"Bits1x8", 1, "bits1x8", ""},
    {"Bits2x4", 1, "bits2x4", ""},
    {"Bits4x2", 1, "bits4x2", ""},
    {"Bits8", 1, "bits8", ""},
    {"Bits16", 2, "bits16", ""},
    {"QInt8", 1, "qint8", "", DType::kUnknown, true},
    {"QUInt8", 1, "quint8", "", DType::kUnknown, true},
    {"QInt32", 4, "qint32", "", DType::kUnknown, true},
    {"QUInt4x2", 1, "quint4x2", "", DType::kUnknown, true},
    {"QUInt2x4", 1, "quint2x4", "", DType::kUnknown, true},
};

const ElementType* Find(std::string_view wanted, std::string_view ElementType::* by) {
  if (wanted.empty()) return nullptr;
  for (const ElementType& type : kTypes) {
    if (type.*by == wanted) return &type;
  }
  return nullptr;
}

}  // namespace

const ElementType* FindStorageType(std::string_view class_name) {
  constexpr std::string_view kSuffix = "Storage";
  if (!class_name.ends_with(kSuffix)) return nullptr;
  class_name.remove_suffix(kSuffix.size());
  return Find(class_name, &ElementType::name);
}

const ElementType* FindTorchType(std::string_view name) { return Find(name, &ElementType::torch); }

const ElementType* FindSafetensorsType(std::string_view name) {
  return Find(name, &ElementType::safetensors);
}

}  // namespace hearth

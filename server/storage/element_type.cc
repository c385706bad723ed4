#include "server/storage/element_type.h"

namespace hearth {
namespace {

constexpr ElementType kTypes[] = {
    {"Float", 4, DType::kFp32},
    {"Half", 2, DType::kFp16},
    {"BFloat16", 2, DType::kBf16},
    {"Double", 8, DType::kFp64},
    {"Long", 8, DType::kInt64},
    {"Int", 4, DType::kInt32},
    {"Short", 2, DType::kInt16},
    {"Char", 1, DType::kInt8},
    {"Byte", 1, DType::kUInt8},
    {"Bool", 1, DType::kBool},
    {"UInt16", 2, DType::kUInt16},
    {"UInt32", 4, DType::kUInt32},
    {"UInt64", 8, DType::kUInt64},
    {"ComplexHalf", 4},
    {"ComplexFloat", 8},
    {"ComplexDouble", 16},
    {"Float8_e5m2", 1},
    {"Float8_e4m3fn", 1},
    {"Float8_e5m2fnuz", 1},
    {"Float8_e4m3fnuz", 1},
    {"Float8_e8m0fnu", 1},
    {"Float4_e2m1fn_x2", 1},
    {"Bits1x8", 1},
    {"Bits2x4", 1},
    {"Bits4x2", 1},
    {"Bits8", 1},
    {"Bits16", 2},
    {"QInt8", 1, DType::kUnknown, true},
    {"QUInt8", 1, DType::kUnknown, true},
    {"QInt32", 4, DType::kUnknown, true},
    {"QUInt4x2", 1, DType::kUnknown, true},
    {"QUInt2x4", 1, DType::kUnknown, true},
};

}  // namespace

const ElementType* FindStorageType(std::string_view class_name) {
  constexpr std::string_view kSuffix = "Storage";
  if (!class_name.ends_with(kSuffix)) return nullptr;
  class_name.remove_suffix(kSuffix.size());
  for (const ElementType& type : kTypes) {
    if (type.name == class_name) return &type;
  }
  return nullptr;
}

}  // namespace hearth

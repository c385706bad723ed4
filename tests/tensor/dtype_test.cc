#include "server/tensor/dtype.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace hearth {
namespace {

TEST(DType, HasTheProtocolsNamesAndSizes) {
  const std::map<std::string, std::size_t> protocol = {
      {"BOOL", 1}, {"UINT8", 1}, {"UINT16", 2}, {"UINT32", 4}, {"UINT64", 8},
      {"INT8", 1}, {"INT16", 2}, {"INT32", 4},  {"INT64", 8},  {"FP16", 2},
      {"BF16", 2}, {"FP32", 4},  {"FP64", 8},   {"BYTES", 0}};
  EXPECT_EQ(protocol.size() + 1, kDTypeCount);
  for (const auto& [name, size] : protocol) {
    const auto dtype = ParseDType(name);
    ASSERT_TRUE(dtype.has_value()) << name;
    EXPECT_EQ(ToString(*dtype), name);
    EXPECT_EQ(SizeOf(*dtype), size) << name;
  }
}

TEST(DType, RefusesOtherNames) {
  for (const char* name : {"", "fp32", "FLOAT32", "FP32 ", "TYPE_FP32", "STRING"}) {
    EXPECT_EQ(ParseDType(name), std::nullopt) << name;
  }
  EXPECT_EQ(ToString(DType::kUnknown), "");
  EXPECT_EQ(SizeOf(DType::kUnknown), 0u);
}

}  // namespace
}  // namespace hearth

#include "server/torch_backend/declared_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hearth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<TensorInfo> Named(std::initializer_list<const char*> names) {
  std::vector<TensorInfo> infos;
  for (const char* name : names) infos.push_back({name, DType::kUnknown, std::nullopt, false});
  return infos;
}

std::vector<std::size_t> Places(std::initializer_list<const char*> declared, const std::vector<std::string>& names) {
  const auto places = PlacesOf(Named(declared), names, "config.pbtxt", "input");
  EXPECT_TRUE(places.ok()) << places.status();
  return places.value_or(std::vector<std::size_t>{});
}

std::string Refusal(std::initializer_list<const char*> declared, const std::vector<std::string>& names) {
  const auto places = PlacesOf(Named(declared), names, "config.pbtxt", "input");
  EXPECT_EQ(places.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(places.status().message());
}

TEST(DeclaredOrder, IsTheProgramsWhereAllNamesAreItsOwn) {
  EXPECT_THAT(Places({"b", "a"}, {"a", "b", "c"}), ElementsAre(1, 0));
  EXPECT_THAT(Places({"x__1", "x__0"}, {"x__1", "x__0"}), ElementsAre(0, 1)) << "names count before numbers";
}

TEST(DeclaredOrder, IsTheNumbersInTheNames) {
  EXPECT_THAT(Places({"INPUT__1", "INPUT__0"}, {"a", "b"}), ElementsAre(1, 0));
  EXPECT_THAT(Places({"mask__2", "image__0"}, {"a", "b", "c"}), ElementsAre(2, 0)) << "the others are left as they are";
  EXPECT_THAT(Places({"ARGS[1]", "ARGS[0]"}, {"a", "b"}), ElementsAre(1, 0));
}

TEST(DeclaredOrder, IsTheirOwnOtherwise) {
  EXPECT_THAT(Places({"second", "first"}, {"a", "b"}), ElementsAre(0, 1));
  EXPECT_THAT(Places({"INPUT__1", "first"}, {"a", "b"}), ElementsAre(0, 1));
  EXPECT_THAT(Places({"x__", "y__1z"}, {"a", "b"}), ElementsAre(0, 1));
}

TEST(DeclaredOrder, IsRefusedWhereItFitsNoTensor) {
  EXPECT_THAT(Refusal({"x"}, {"a", "b"}), HasSubstr("config.pbtxt declares 1 input, but the program has 2"));
  EXPECT_THAT(Refusal({"INPUT__2"}, {"a", "b"}), HasSubstr("'INPUT__2', but the program has 2 inputs, counted from 0"));
  EXPECT_THAT(Refusal({"a__0", "b__0"}, {"x", "y"}), HasSubstr("two inputs with the number 0; 'b__0' is one"));
}

}  // namespace
}  // namespace hearth

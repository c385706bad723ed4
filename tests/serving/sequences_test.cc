// Requests that share the state of a module.
#include "server/serving/sequences.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "tests/serving/serving_fixture.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using testing::HasSubstr;

class SumSession final : public Session {
 public:
  float sum = 0;
};

class SequencesTest : public ServingTest {
 protected:
  // Answers with the sum of all that its session has seen. A negative number is refused halfway.
  static fakes::FakeModel::Options Summer() {
    fakes::FakeModel::Options model = EchoModel();
    model.new_session = [] { return std::make_unique<SumSession>(); };
    model.run = [](const TensorList& inputs, Session* session) -> absl::StatusOr<TensorList> {
      float value = 0;
      std::memcpy(&value, inputs.at(0).tensor.data.data(), sizeof(value));
      if (value < 0) return absl::InvalidArgumentError("negative");
      SumSession fresh;
      auto& state = session == nullptr ? fresh : static_cast<SumSession&>(*session);
      state.sum += value;
      const auto owner = std::make_shared<float>(state.sum);
      return TensorList{{"x", {DType::kFp32, {1}, std::as_bytes(std::span<const float>(owner.get(), 1)), owner}}};
    };
    return model;
  }
  enum class Flag { kNone, kStart, kEnd };
  Answer Ask(const std::string& id, float value, Flag flag = Flag::kNone, std::stop_token cancelled = {}) {
    InferRequest request = Request("m", {value});
    request.sequence = SequenceControl{id, flag == Flag::kStart, flag == Flag::kEnd};
    return Infer(std::move(request), std::move(cancelled));
  }
  // Its answer; -1 for a refusal.
  float Sum(const std::string& id, float value, Flag flag = Flag::kNone) {
    const Answer answer = Ask(id, value, flag);
    RunAll();
    return Value(answer);
  }
  static float Value(const Answer& answer) {
    const auto& response = answer->value();
    if (!response.ok()) return -1;
    float value = 0;
    std::memcpy(&value, response->outputs.at(0).tensor.data.data(), sizeof(value));
    return value;
  }
  void Pass(Duration time) {
    clock_.Advance(time);
    timer_.RunDue();
    RunAll();
  }
};

TEST_F(SequencesTest, EachHasAStateOfItsOwn) {
  AddModel("m", Summer());
  EXPECT_EQ(Sum("a", 1, Flag::kStart), 1);
  EXPECT_EQ(Sum("b", 10, Flag::kStart), 10);
  EXPECT_EQ(Sum("a", 2), 3);
  EXPECT_EQ(Sum("b", 20), 30);
  EXPECT_EQ(Sum("a", 3, Flag::kEnd), 6);
}

TEST_F(SequencesTest, RequestsWithoutASequenceBeginAnew) {
  AddModel("m", Summer());
  Sum("a", 1, Flag::kStart);
  const Answer other = Infer(Request("m", {5}));
  RunAll();
  EXPECT_EQ(Value(other), 5);
  EXPECT_EQ(Sum("a", 1), 2);
}

TEST_F(SequencesTest, RequestsWithoutASequenceAreRefusedWhereOneIsRequired) {
  AddModel("m", Summer(), "sequences: {required: true}\n");
  const Answer refused = Infer(Request("m", {5}));
  RunAll();
  EXPECT_EQ(refused->value().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text(refused->value().status()), HasSubstr("must specify a non-zero or non-empty correlation ID"));
  EXPECT_EQ(Sum("a", 1, Flag::kStart), 1);
}

TEST_F(SequencesTest, HasToBeginWithAStart) {
  AddModel("m", Summer());
  MakeResident("m");
  const Answer refused = Ask("7", 1);
  RunAll();
  EXPECT_EQ(refused->value().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Text(refused->value().status()),
              HasSubstr("inference request for sequence 7 to model 'm' must specify the START flag on the first request of "
                        "the sequence"));
  Sum("7", 1, Flag::kStart);
  Sum("7", 1, Flag::kEnd);
  EXPECT_EQ(Sum("7", 1), -1);
}

TEST_F(SequencesTest, AnotherStartBeginsItAnew) {
  AddModel("m", Summer());
  Sum("a", 1, Flag::kStart);
  EXPECT_EQ(Sum("a", 5, Flag::kStart), 5);
  EXPECT_EQ(Sum("a", 1), 6);
}

TEST_F(SequencesTest, RequestsThatOvertakeTheLoadAndEachOtherKeepTheirOrder) {
  AddModel("m", Summer());
  std::vector<Answer> answers;
  answers.push_back(Ask("a", 1, Flag::kStart));
  for (float i = 2; i < 5; ++i) answers.push_back(Ask("a", i));
  answers.push_back(Ask("a", 5, Flag::kEnd));
  RunAll();
  std::vector<float> sums;
  for (const Answer& answer : answers) sums.push_back(Value(answer));
  EXPECT_EQ(sums, (std::vector<float>{1, 3, 6, 10, 15}));
  EXPECT_EQ(Row("m")->pins, 0u);
}

TEST_F(SequencesTest, AModelThatRemembersNothingTakesTheIdForWhatItIs) {
  AddModel("m");
  const Answer first = Ask("a", 1, Flag::kStart), second = Ask("a", 2), stray = Ask("b", 3);
  RunAll();
  EXPECT_EQ(Value(first), 1);
  EXPECT_EQ(Value(second), 2);
  EXPECT_EQ(Value(stray), 3);
  EXPECT_EQ(Row("m")->pins, 0u);
}

TEST_F(SequencesTest, KeepsItsLoadOfTheModelThroughAReload) {
  AddModel("m", Summer());
  Sum("a", 1, Flag::kStart);
  auto other = Summer();
  other.run = [](const TensorList&, Session*) -> absl::StatusOr<TensorList> { return absl::InternalError("new"); };
  SetModel("m", std::move(other));
  manager_->Load({"m", 1}, {.reload = true}, kNoDeadline, [](auto) {});
  RunAll();
  EXPECT_EQ(Sum("a", 2), 3);
  EXPECT_EQ(Sum("b", 2, Flag::kStart), -1);  // the new one
}

TEST_F(SequencesTest, ARunThatFailsEndsItForNobodyKnowsWhatItLeft) {
  AddModel("m", Summer());
  Sum("a", 1, Flag::kStart);
  const Answer fails = Ask("a", -1), next = Ask("a", 2);
  RunAll();
  EXPECT_THAT(Text(fails->value().status()), HasSubstr("negative"));
  EXPECT_THAT(Text(next->value().status()), HasSubstr("must specify the START flag"));
  EXPECT_EQ(Row("m")->pins, 0u);
}

TEST_F(SequencesTest, ARequestThatIsRefusedBeforeItRanLeavesTheStateAsItWas) {
  AddModel("m", Summer());
  Sum("a", 1, Flag::kStart);
  InferRequest bad = Request("m", {1});
  bad.inputs[0].name = "y";
  bad.sequence = SequenceControl{"a"};
  const Answer refused = Infer(std::move(bad));
  RunAll();
  EXPECT_FALSE(refused->value().ok());
  EXPECT_EQ(Sum("a", 2), 3);
}

TEST_F(SequencesTest, OneWhoseFirstRequestDidNotRunHasNotBegun) {
  AddModel("m", Summer());
  MakeResident("m");
  std::stop_source cancel;
  const Answer first = Ask("a", 1, Flag::kStart, cancel.get_token());
  cancel.request_stop();
  RunAll();
  EXPECT_TRUE(absl::IsCancelled(first->value().status()));
  EXPECT_EQ(Sum("a", 2), -1);
  EXPECT_EQ(Row("m")->pins, 0u);
}

TEST_F(SequencesTest, AnEndThatIsRefusedDoesNotEndIt) {
  AddModel("m", Summer());
  Sum("a", 1, Flag::kStart);
  InferRequest bad = Request("m", {1});
  bad.inputs[0].name = "y";
  bad.sequence = SequenceControl{"a", false, true};
  Infer(std::move(bad));
  RunAll();
  EXPECT_EQ(Sum("a", 2), 3);
}

TEST_F(SequencesTest, OneThatHasEndedHasNoModelLoaded) {
  AddModel("m", Summer());
  Sum("a", 1, Flag::kStart);
  Sum("a", 1, Flag::kEnd);
  manager_->Unload({"m", 1}, [] {});
  RunAll();
  EXPECT_EQ(Sum("a", 1), -1);
  EXPECT_EQ(loader_.loads("m"), 1);
}

TEST_F(SequencesTest, GoesOnWithTheVersionItBeganWith) {
  AddModel("m", Summer(), "", 1);
  AddModel("m", Summer(), "", 2);
  InferRequest start = Request("m", {1});
  start.version = "1";
  start.sequence = SequenceControl{"a", true, false};
  Infer(std::move(start));
  RunAll();
  EXPECT_EQ(Sum("a", 2), 3);  // says no version
  InferRequest other = Request("m", {4});
  other.version = "2";
  other.sequence = SequenceControl{"a"};
  const Answer refused = Infer(std::move(other));
  RunAll();
  EXPECT_THAT(Text(refused->value().status()), HasSubstr("goes on with version 1"));
  EXPECT_EQ(Sum("a", 2), 5);
}

TEST_F(SequencesTest, OneThatIsCancelledWhileItWaitsForItsTurnIsAnsweredSoon) {
  AddModel("m", Summer());
  Sum("a", 1, Flag::kStart);
  std::stop_source cancel;
  const Answer runs = Ask("a", 1), waits = Ask("a", 100, Flag::kNone, cancel.get_token()), last = Ask("a", 1);
  cancel.request_stop();
  clock_.Advance(milliseconds(500));
  timer_.RunDue();
  EXPECT_TRUE(absl::IsCancelled(waits->value().status()));
  RunAll();
  EXPECT_EQ(Value(last), 3);
}

TEST_F(SequencesTest, EndsWhenNobodyAsksForIt) {
  AddModel("m", Summer(), "sequences: {idle_timeout: 10s}\n");
  Sum("a", 1, Flag::kStart);
  Pass(std::chrono::seconds(9));
  EXPECT_EQ(Sum("a", 1), 2);
  Pass(std::chrono::seconds(9));
  EXPECT_EQ(Row("m")->pins, 1u);
  Pass(std::chrono::seconds(2));
  EXPECT_EQ(Row("m")->pins, 0u);
  EXPECT_EQ(Sum("a", 1), -1);
}

TEST_F(SequencesTest, HoldsItsModelAgainstEvictionUnlessItIsToGiveWay) {
  for (const bool gives_way : {false, true}) {
    auto big = Summer();
    big.footprint.host_bytes = 700;
    AddModel("m", std::move(big), gives_way ? "sequences: {on_pressure: end}\n" : "");
    auto other = EchoModel();
    other.footprint.host_bytes = 700;
    AddModel("other", std::move(other));
    ASSERT_EQ(Sum("a", 1, Flag::kStart), 1);
    const Answer needs_room = Infer(Request("other"));
    RunAll();
    EXPECT_FALSE(needs_room->has_value());
    Pass(milliseconds(500));
    EXPECT_EQ(needs_room->has_value(), gives_way);
    if (!gives_way) {
      EXPECT_EQ(Sum("a", 2, Flag::kEnd), 3);
      RunAll();
      EXPECT_TRUE(needs_room->has_value());
    }
    manager_->Unload({"other", 1}, [] {});
    manager_->Unload({"m", 1}, [] {});
    RunAll();
  }
}

TEST_F(SequencesTest, EndsWithAnUnloadOfItsModel) {
  AddModel("m", Summer());
  Sum("a", 1, Flag::kStart);
  bool unloaded = false;
  repository_->Unload("m", [&](absl::Status) { unloaded = true; });
  RunAll();
  EXPECT_FALSE(unloaded);
  Pass(milliseconds(500));
  EXPECT_TRUE(unloaded);
}

TEST_F(SequencesTest, MoreThanMayBeAreRefused) {
  AddModel("m", Summer(), "sequences: {max: 1}\n");
  Sum("a", 1, Flag::kStart);
  const Answer refused = Ask("b", 1, Flag::kStart);
  EXPECT_EQ(refused->value().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Text(refused->value().status()), HasSubstr("sequences.max"));
  Sum("a", 1, Flag::kEnd);
  EXPECT_EQ(Sum("b", 1, Flag::kStart), 1);
}

TEST_F(SequencesTest, AStopEndsThemSoThatModelsCanLeave) {
  AddModel("m", Summer());
  Sum("a", 1, Flag::kStart);
  const Answer last = Ask("a", 2);
  infer_->StopAccepting();
  RunAll();
  EXPECT_EQ(Value(last), 3);
  EXPECT_EQ(Row("m")->pins, 0u);
}

TEST_F(SequencesTest, WhatADyingExecutorDropsIsAnsweredHoweverManyWait) {
  AddModel("m", Summer());
  Sum("a", 1, Flag::kStart);
  std::vector<Answer> answers;
  for (int i = 0; i < 10'000; ++i) answers.push_back(Ask("a", 1));
  compute_.ShutDown();
  for (const Answer& answer : answers) ASSERT_TRUE(answer->has_value());
  EXPECT_EQ(infer_->in_flight(), 0);
}

}  // namespace
}  // namespace hearth

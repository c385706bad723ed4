// integrity: background, alone and behind the loader of TorchScript. Every format runs in
// tests/integration/test_integrity.py.
#include "server/torch_backend/background_verifier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <vector>

#include "server/torch_backend/tensor_bridge.h"
#include "server/torch_backend/torchscript_loader.h"
#include "tests/torch_backend/script_models.h"

namespace hearth {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing_models::Linear;
using testing_models::TempDir;

using Parts = std::vector<Checksummed<MappedFile>>;

const ModelId kModel{"m", 1};

std::string Text(const absl::Status& status) { return std::string(status.message()); }

class BackgroundVerifierTest : public testing::Test {
 protected:
  std::shared_ptr<const MappedFile> File(const std::string& name) {
    std::ofstream(dir_ / name) << name;
    return *MappedFile::Open(dir_ / name);
  }
  Parts Part(const std::string& name, VerifyChecksum verify) { return {{File(name), std::move(verify)}}; }
  static std::vector<SourceFile> Files(const Parts& parts) {
    std::vector<SourceFile> files;
    for (const auto& part : parts) files.push_back({part.file});
    return files;
  }

  TempDir dir_;
  BackgroundVerifier verifier_;
};

VerifyChecksum Whole() {
  return [](const ByteSource&) { return absl::OkStatus(); };
}
VerifyChecksum Damaged() {
  return [](const ByteSource&) { return absl::DataLossError("is not what it was"); };
}

TEST_F(BackgroundVerifierTest, WhatIsWholeStaysInServiceAndIsNoSuspect) {
  const Parts parts = Part("w", Whole());
  const auto check = verifier_.Prepare(kModel, parts);
  verifier_.Begin(*check);
  verifier_.WaitUntilIdle();
  EXPECT_EQ(check->status(), absl::OkStatus());
  EXPECT_EQ(verifier_.verified(), 1u);
  EXPECT_FALSE(verifier_.OnLoad(Integrity::kBackground, Files(parts)));
  EXPECT_TRUE(verifier_.OnLoad(Integrity::kOnLoad, Files(parts)));
}

TEST_F(BackgroundVerifierTest, WhatIsDamagedIsASuspectUntilALoadFindsItWhole) {
  const Parts parts = Part("w", Damaged());
  const auto check = verifier_.Prepare(kModel, parts);
  verifier_.Begin(*check);
  verifier_.WaitUntilIdle();
  EXPECT_EQ(check->status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Text(check->status()), AllOf(HasSubstr("w' is not what it was")));
  EXPECT_EQ(verifier_.damaged(), 1u);
  const auto others = Files(Part("other", Whole()));
  EXPECT_TRUE(verifier_.OnLoad(Integrity::kBackground, Files(parts)));
  EXPECT_FALSE(verifier_.OnLoad(Integrity::kBackground, others));
  EXPECT_FALSE(verifier_.OnLoad(Integrity::kOff, Files(parts)));
  verifier_.Acquit(others);
  EXPECT_TRUE(verifier_.OnLoad(Integrity::kBackground, Files(parts)));
  verifier_.Acquit(Files(parts));
  EXPECT_FALSE(verifier_.OnLoad(Integrity::kBackground, Files(parts)));
}

TEST_F(BackgroundVerifierTest, AFileWrittenToMeanwhileIsLeftToTheModelToNotice) {
  const Parts parts = Part("w", [this](const ByteSource&) {
    std::ofstream(dir_ / "w", std::ios::app) << "more";
    return absl::DataLossError("is not what it was");
  });
  const auto check = verifier_.Prepare(kModel, parts);
  verifier_.Begin(*check);
  verifier_.WaitUntilIdle();
  EXPECT_EQ(check->status(), absl::OkStatus());
  EXPECT_EQ(verifier_.damaged() + verifier_.verified(), 0u);
  EXPECT_FALSE(verifier_.OnLoad(Integrity::kBackground, Files(parts)));
}

TEST_F(BackgroundVerifierTest, RunsOneAfterTheOtherAndOnlyWhenNobodyElseDoes) {
  std::vector<int> order, policies;
  std::vector<std::unique_ptr<BackgroundVerifier::Check>> checks;
  for (int i = 0; i < 3; ++i) {
    checks.push_back(verifier_.Prepare(kModel, Part(StrCat("w", i), [&, i](const ByteSource&) {
                                         order.push_back(i);  // on one thread
                                         policies.push_back(::sched_getscheduler(0));
                                         return absl::OkStatus();
                                       })));
    verifier_.Begin(*checks.back());
  }
  verifier_.WaitUntilIdle();
  EXPECT_THAT(order, ElementsAre(0, 1, 2));
  EXPECT_THAT(policies, ElementsAre(SCHED_IDLE, SCHED_IDLE, SCHED_IDLE));
}

// Keeps the verifier's thread busy until it is told to go on.
struct Gate {
  std::promise<void> entered, open;
  VerifyChecksum Verify() {
    return [this](const ByteSource& file) -> absl::Status {
      entered.set_value();
      open.get_future().wait();
      return file.read(0, 1).status();
    };
  }
};

TEST_F(BackgroundVerifierTest, AModelLeavesWithoutWaitingAndItsVerificationEndsWithTheNextRead) {
  Gate gate;
  auto check = verifier_.Prepare(kModel, Part("w", gate.Verify()));
  verifier_.Begin(*check);
  gate.entered.get_future().wait();
  check.reset();  // would hang here
  gate.open.set_value();
  verifier_.WaitUntilIdle();
  EXPECT_EQ(verifier_.verified() + verifier_.damaged(), 0u);
}

TEST_F(BackgroundVerifierTest, AModelThatLeavesBeforeItsTurnLeavesNothingBehind) {
  Gate gate;
  const auto first = verifier_.Prepare(kModel, Part("first", gate.Verify()));
  verifier_.Begin(*first);
  gate.entered.get_future().wait();
  const auto counted = std::make_shared<int>(0);
  auto second = verifier_.Prepare(kModel, Part("second", [counted](const ByteSource&) {
                                    ++*counted;
                                    return absl::OkStatus();
                                  }));
  verifier_.Begin(*second);
  second.reset();
  EXPECT_EQ(counted.use_count(), 1) << "what it would have read is let go of at once";
  gate.open.set_value();
  verifier_.WaitUntilIdle();
  EXPECT_EQ(*counted, 0);
  EXPECT_EQ(verifier_.verified(), 1u);
}

TEST_F(BackgroundVerifierTest, NoMappingIsKept) {
  Gate gate;
  Parts parts = Part("w", gate.Verify());
  const std::weak_ptr<const MappedFile> mapping = parts[0].file;
  const auto check = verifier_.Prepare(kModel, parts);
  parts.clear();
  verifier_.Begin(*check);
  gate.entered.get_future().wait();
  EXPECT_TRUE(mapping.expired());
  gate.open.set_value();
  verifier_.WaitUntilIdle();
  EXPECT_EQ(verifier_.verified(), 1u);
}

class BackgroundIntegrityTest : public testing::Test {
 protected:
  void SetUp() override {
    Linear(256, 256, 1).save(file_.string());
    const c10::InferenceMode guard;
    expected_ = torch::jit::load(file_.string()).forward({x_}).toTensor().clone();
    spec_.options.integrity = Integrity::kBackground;
  }

  // Changes one bit in the middle of the file, where a weight is. Returns the byte before.
  void FlipABit() const {
    std::fstream file(file_, std::ios::binary | std::ios::in | std::ios::out);
    const auto middle = static_cast<std::streamoff>(fs::file_size(file_) / 2);
    file.seekg(middle);
    const int byte = file.get();
    file.seekp(middle);
    file.put(static_cast<char>(byte ^ 1));
  }

  absl::StatusOr<TensorList> Run(const Model& model) const {
    return model.Run({{"x", *UnwrapTensor(x_.clone(), "x")}}, nullptr);
  }
  void ExpectRightAnswer(const Model& model) const {
    const auto outputs = Run(model);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_TRUE(at::equal(WrapTensor(outputs->front().tensor), expected_));
  }

  TempDir dir_;
  const fs::path file_ = dir_ / "model.pt";
  ModelSpec spec_{{"m", 1}, "torchscript", file_, {}};
  const at::Tensor x_ = at::randn({3, 256});
  at::Tensor expected_;
  const std::shared_ptr<BackgroundVerifier> verifier_ = std::make_shared<BackgroundVerifier>();
  const std::unique_ptr<Loader> loader_ = MakeTorchScriptLoader({.verifier = verifier_});
};

TEST_F(BackgroundIntegrityTest, AWholeModelIsVerifiedWhileItServes) {
  const auto model = loader_->Load(spec_, {});
  ASSERT_TRUE(model.ok()) << model.status();
  ExpectRightAnswer(**model);
  verifier_->WaitUntilIdle();
  EXPECT_EQ(verifier_->verified(), 1u);
  ExpectRightAnswer(**model);
}

TEST_F(BackgroundIntegrityTest, ADamagedModelSaysSoFromTheNextRunOnAndIsNotLoadedAgainUntilItIsReplaced) {
  const std::string good = [this] {
    std::ifstream in(file_, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  }();
  FlipABit();
  for (const auto residency : {std::optional<Residency>(), {Residency::kSealed}}) {
    spec_.options.residency = residency;
    {
      const auto model = loader_->Load(spec_, {});
      ASSERT_TRUE(model.ok()) << model.status();
      verifier_->WaitUntilIdle();
      for (int i = 0; i < 2; ++i) {
        const absl::Status refused = Run(**model).status();
        EXPECT_EQ(refused.code(), absl::StatusCode::kDataLoss) << refused;
        EXPECT_THAT(Text(refused), AllOf(HasSubstr("model.pt"), HasSubstr("'data/")));
      }
    }
    for (int i = 0; i < 2; ++i) {
      const auto again = loader_->Load(spec_, {});
      EXPECT_EQ(again.status().code(), absl::StatusCode::kDataLoss) << again.status();
      EXPECT_THAT(Text(again.status()), AllOf(HasSubstr("model.pt"), HasSubstr("'data/")));
    }
    std::ofstream(dir_ / "new", std::ios::binary) << good;
    fs::rename(dir_ / "new", file_);
    {
      const auto whole = loader_->Load(spec_, {});
      ASSERT_TRUE(whole.ok()) << whole.status();
      ExpectRightAnswer(**whole);
      EXPECT_FALSE(verifier_->OnLoad(Integrity::kBackground, {{*MappedFile::Open(file_)}}));
    }
    verifier_->WaitUntilIdle();
    FlipABit();
  }
}

}  // namespace
}  // namespace hearth

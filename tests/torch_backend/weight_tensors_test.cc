#include "server/torch_backend/weight_tensors.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <stop_token>
#include <thread>

#include "tests/torch_backend/script_models.h"

namespace hearth {
namespace {

constexpr std::size_t kParts = 1000;

// One tensor of a float a part. `unpack`: before a part is written.
Weights Packed(std::function<void(std::size_t part)> unpack) {
  Weights weights;
  weights.storages.push_back({.file = nullptr,
                              .size = kParts * sizeof(float),
                              .unpack = [unpack = std::move(unpack)](std::span<std::byte> out, std::size_t part) {
                                unpack(part);
                                const auto value = static_cast<float>(part);
                                std::memcpy(out.data() + part * sizeof value, &value, sizeof value);
                                return absl::OkStatus();
                              },
                              .parts = kParts});
  weights.tensors.push_back({"w", 0, FindSafetensorsType("F32"), {kParts}, {1}, 0});
  return weights;
}

absl::StatusOr<std::vector<at::Tensor>> Make(const Weights& weights, const std::stop_token& stop) {
  LoadReport report;
  PhaseTimer timer(report, LoadPhase::kBind);
  return MakeTensors(weights, testing_models::Host(), stop, report, timer);
}

TEST(WeightTensors, EachPartOfAPackedTensorIsReadOnce) {
  std::array<std::atomic<int>, kParts> read{};
  const auto made = Make(Packed([&read](std::size_t part) { ++read[part]; }), {});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_TRUE(at::equal(made->at(0), at::arange(static_cast<std::int64_t>(kParts), at::kFloat)));
  for (const auto& count : read) ASSERT_EQ(count, 1);
}

TEST(WeightTensors, NoPartIsBegunAfterAStop) {
  std::stop_source stop;
  std::atomic<std::size_t> begun{0};
  const auto made = Make(Packed([&](std::size_t) {
                           if (++begun == 3) stop.request_stop();
                         }),
                         stop.get_token());
  EXPECT_EQ(made.status().code(), absl::StatusCode::kCancelled);
  EXPECT_LE(begun, 3 + std::thread::hardware_concurrency());
}

}  // namespace
}  // namespace hearth

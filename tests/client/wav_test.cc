#include "client/wav.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "client/npy.h"
#include "client/resample.h"
#include "client/tensor.h"
#include "tests/client/fixtures.h"

namespace hearth::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<float> Samples(const std::string& npy) { return *Values<float>(*ParseNpy(Fixture(npy))); }

TEST(Wav, ReadsEveryEncodingToTheSameSamples) {
  const std::pair<const char*, int> files[] = {
      {"pcm8.wav", 8000},      {"pcm16.wav", 16000},        {"pcm24.wav", 44100},
      {"pcm32.wav", 48000},    {"float32.wav", 48000},      {"extensible24.wav", 48000},
      {"extensible_float.wav", 48000}};
  for (const auto& [name, rate] : files) {
    SCOPED_TRACE(name);
    const auto recording = ParseWav(Fixture(name));
    ASSERT_TRUE(recording.ok()) << recording.status();
    EXPECT_EQ(recording->sample_rate, rate);
    EXPECT_THAT(recording->samples, ElementsAre(-1, -0.5F, 0, 0.25F, 0.5F));
  }
}

TEST(Wav, MixesChannelsDownByTheirMean) {
  EXPECT_THAT(ParseWav(Fixture("stereo16.wav"))->samples, ElementsAre(-0.5F, -0.25F, 0, 0.125F, 0.25F));
}

TEST(Wav, RefusesEveryTruncationThatLosesSamples) {
  const std::string file = Fixture("pcm16.wav");
  for (std::size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(ParseWav(std::string_view(file).substr(0, size)).ok()) << size;
  }
}

TEST(Wav, SurvivesEveryFlippedBit) {
  const std::string file = Fixture("extensible24.wav");
  for (std::size_t bit = 0; bit < file.size() * 8; ++bit) {
    std::string changed = file;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << (bit % 8)));
    const auto recording = ParseWav(changed);
    if (recording.ok()) {
      EXPECT_LE(recording->samples.size(), file.size()) << bit;
    }
  }
}

TEST(Wav, ReadsAnUnfinishedStreamToTheEndOfTheFile) {
  std::string file = Fixture("pcm16.wav");
  file.replace(40, 4, "\xFF\xFF\xFF\xFF");
  EXPECT_EQ(ParseWav(file)->samples.size(), 5U);
  file.replace(40, 4, "\xFE\xFF\xFF\xFF");
  EXPECT_THAT(Message(ParseWav(file).status()), HasSubstr("claims 4294967294 bytes where 10 are left"));
}

TEST(Wav, SaysWhyItRefusesAFormat) {
  const std::string file = Fixture("pcm16.wav");
  const auto with = [&](std::size_t at, const std::string& bytes) {
    std::string changed = file;
    changed.replace(at, bytes.size(), bytes);
    return Message(ParseWav(changed).status());
  };
  EXPECT_THAT(with(20, {"\x55\x00", 2}), HasSubstr("encoding 85 is compressed"));
  EXPECT_THAT(with(22, {"\x00\x00", 2}), HasSubstr("contradict"));
  EXPECT_THAT(with(24, {"\x01\x00\x00\x00", 4}), HasSubstr("sample rate of 1 "));
  EXPECT_THAT(with(32, {"\x03\x00", 2}), HasSubstr("contradict"));
  EXPECT_THAT(with(34, {"\x0C\x00", 2}), HasSubstr("12-bit PCM"));
  EXPECT_THAT(with(36, "DATA"), HasSubstr("no data chunk"));
  EXPECT_THAT(with(8, "AVI "), HasSubstr("RIFF and WAVE"));
}

TEST(Wav, RefusesSamplesThatAreNotNumbers) {
  std::string file = Fixture("float32.wav");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  file.replace(48, 4, std::string(reinterpret_cast<const char*>(&nan), 4));
  EXPECT_THAT(Message(ParseWav(file).status()), HasSubstr("sample 1 is not a finite number"));
}

TEST(Resample, ComputesTheDocumentedFormula) {
  const std::vector<float> noise = Samples("noise.npy");
  const std::pair<int, int> rates[] = {{48000, 16000}, {44100, 16000}, {8000, 16000}, {16000, 44100}};
  for (const auto& [from, to] : rates) {
    SCOPED_TRACE(testing::Message() << from << " to " << to);
    const std::vector<float> expected =
        Samples("noise_" + std::to_string(from) + "_" + std::to_string(to) + ".npy");
    EXPECT_EQ(ResampledLength(noise.size(), from, to), expected.size());
    EXPECT_THAT(Resample(noise, from, to), testing::Pointwise(testing::FloatNear(1e-5F), expected));
  }
}

std::vector<float> Tone(double frequency, int rate, std::size_t count) {
  std::vector<float> tone(count);
  for (std::size_t i = 0; i < count; ++i) {
    tone[i] = static_cast<float>(std::sin(2 * std::numbers::pi * frequency * static_cast<double>(i) / rate));
  }
  return tone;
}

TEST(Resample, KeepsATonesLevelAndPhase) {
  for (const double frequency : {100.0, 1000.0, 6200.0}) {
    const std::vector<float> out = Resample(Tone(frequency, 48000, 9600), 48000, 16000);
    const std::vector<float> expected = Tone(frequency, 16000, out.size());
    for (std::size_t i = 100; i + 100 < out.size(); ++i) {
      ASSERT_NEAR(out[i], expected[i], 5e-5) << frequency << " Hz, sample " << i;
    }
  }
}

TEST(Resample, SilencesWhatTheLowerRateCannotHold) {
  for (const double frequency : {8000.0, 9000.0, 15000.0, 23000.0}) {
    const std::vector<float> out = Resample(Tone(frequency, 48000, 9600), 48000, 16000);
    for (std::size_t i = 100; i + 100 < out.size(); ++i) {
      ASSERT_LT(std::abs(out[i]), 1e-5) << frequency << " Hz, sample " << i;
    }
  }
}

TEST(Resample, ReturnsTheInputWhenNothingChanges) {
  const std::vector<float> input = {0.1F, 0.2F, 0.3F};
  EXPECT_EQ(Resample(input, 16000, 16000), input);
  EXPECT_TRUE(Resample({}, 48000, 16000).empty());
}

TEST(Resample, TakesRatesWithNoCommonDivisor) {
  const std::vector<float> out = Resample(Tone(440, 47999, 4800), 47999, 16001);
  EXPECT_EQ(out.size(), ResampledLength(4800, 47999, 16001));
  const std::vector<float> expected = Tone(440, 16001, out.size());
  for (std::size_t i = 100; i + 100 < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], 5e-5);
}

}  // namespace
}  // namespace hearth::client

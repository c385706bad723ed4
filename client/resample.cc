#include "client/resample.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <numeric>

namespace hearth::client {
namespace {

constexpr int kZeroCrossings = 32;
constexpr int kStepsPerCrossing = 1024;  // of the table; linear interpolation errs below -110 dB
constexpr double kKaiserBeta = 12.0;
constexpr double kCutoff = 0.895;         // of the lower Nyquist frequency

// One side of the windowed sinc, sampled at x = i / kStepsPerCrossing, with a zero at the end and one
// entry behind it for the interpolation.
std::vector<double> KernelTable() {
  std::vector<double> table(kZeroCrossings * kStepsPerCrossing + 2, 0.0);
  const double scale = std::cyl_bessel_i(0.0, kKaiserBeta);
  for (int i = 0; i < kZeroCrossings * kStepsPerCrossing; ++i) {
    const double x = static_cast<double>(i) / kStepsPerCrossing;
    const double t = x / kZeroCrossings;
    const double window = std::cyl_bessel_i(0.0, kKaiserBeta * std::sqrt(1 - t * t)) / scale;
    const double phase = std::numbers::pi * x;
    table[static_cast<std::size_t>(i)] = window * (i == 0 ? 1.0 : std::sin(phase) / phase);
  }
  return table;
}

}  // namespace

std::size_t ResampledLength(std::size_t samples, int from_rate, int to_rate) {
  const auto from = static_cast<std::uint64_t>(from_rate / std::gcd(from_rate, to_rate));
  const auto to = static_cast<std::uint64_t>(to_rate / std::gcd(from_rate, to_rate));
  return static_cast<std::size_t>((samples * to + from - 1) / from);
}

std::vector<float> Resample(std::span<const float> input, int from_rate, int to_rate) {
  if (from_rate == to_rate || input.empty()) return {input.begin(), input.end()};
  const std::vector<double> table = KernelTable();
  const std::int64_t divisor = std::gcd(from_rate, to_rate);
  const std::int64_t from = from_rate / divisor, to = to_rate / divisor;
  // Input samples per zero crossing is 1 / bandwidth; the same factor keeps the gain at one.
  const double bandwidth = kCutoff * std::min(1.0, static_cast<double>(to) / static_cast<double>(from));
  const double reach = kZeroCrossings / bandwidth;
  const auto last = static_cast<std::int64_t>(input.size()) - 1;

  std::vector<float> output(ResampledLength(input.size(), from_rate, to_rate));
  for (std::size_t n = 0; n < output.size(); ++n) {
    // The output's place on the input's time axis: a whole number and a fraction, both exact.
    const std::int64_t place = static_cast<std::int64_t>(n) * from;
    const std::int64_t whole = place / to;
    const double fraction = static_cast<double>(place % to) / static_cast<double>(to);
    const std::int64_t begin =
        std::max<std::int64_t>(0, whole + static_cast<std::int64_t>(std::ceil(fraction - reach)));
    const std::int64_t end =
        std::min(last, whole + static_cast<std::int64_t>(std::floor(fraction + reach)));
    double sum = 0;
    for (std::int64_t k = begin; k <= end; ++k) {
      const double distance = std::abs(static_cast<double>(k - whole) - fraction);
      const double x = distance * bandwidth * kStepsPerCrossing;
      const auto i = std::min(static_cast<std::size_t>(x), table.size() - 2);
      const double weight = table[i] + (x - static_cast<double>(i)) * (table[i + 1] - table[i]);
      sum += weight * input[static_cast<std::size_t>(k)];
    }
    output[n] = static_cast<float>(sum * bandwidth);
  }
  return output;
}

}  // namespace hearth::client

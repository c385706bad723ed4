// What is left of a model without files.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <stop_token>
#include <utility>

#include "server/model/rest.h"

namespace hearth::fakes {

// Thread-safe if `on_hold` is.
class FakeRest final : public Rest {
 public:
  struct Options {
    Footprint footprint;                           // of its pages
    absl::Status hold_error;
    std::function<void(std::stop_token)> on_hold;  // before Hold() decides
    bool heeds_stop = true;                        // false: it had all pages by then
  };
  using Count = std::shared_ptr<std::atomic<int>>;

  FakeRest(Options options, Count alive, Count held)
      : options_(std::move(options)), alive_(std::move(alive)), held_(std::move(held)) {
    ++*alive_;
  }
  ~FakeRest() override { --*alive_; }

  const Footprint& footprint() const override { return options_.footprint; }
  absl::StatusOr<std::unique_ptr<const Pages>> Hold(std::stop_token stop) const override {
    if (options_.on_hold) options_.on_hold(stop);
    HEARTH_RETURN_IF_ERROR(options_.hold_error);
    if (options_.heeds_stop && stop.stop_requested()) return absl::CancelledError("stopped");
    return std::make_unique<const HeldPages>(held_);
  }

 private:
  class HeldPages final : public Pages {
   public:
    explicit HeldPages(Count held) : held_(std::move(held)) { ++*held_; }
    ~HeldPages() override { --*held_; }

   private:
    const Count held_;
  };

  const Options options_;
  const Count alive_, held_;
};

}  // namespace hearth::fakes

// The interface of a format: files in, models out.
#pragma once

#include <memory>
#include <optional>
#include <stop_token>

#include "server/base/status.h"
#include "server/model/model.h"
#include "server/model/model_spec.h"
#include "server/model/rest.h"

namespace hearth {

// What a load will need, read from headers alone. Both are upper bounds, for as long as `opened` is kept:
// they count on bytes that other models have mapped.
struct LoadEstimate {
  Footprint peak;    // while loading
  Footprint steady;  // once ready
  std::shared_ptr<const OpenedFiles> opened = nullptr;
};

// Turns files into models. One Loader per format; stateless and thread-safe.
class Loader {
 public:
  virtual ~Loader() = default;

  // Opens and checks the file without reading weights: everything that can be known to be wrong with
  // it is found here, before any other model is evicted for it.
  // NOT_FOUND, PERMISSION_DENIED: the file. INVALID_ARGUMENT: its content. The text says what to do.
  virtual absl::StatusOr<LoadEstimate> Estimate(const ModelSpec& spec) const = 0;

  // The same for a model of which `rest` is left, opening nothing: by looking only whether its files are as they were.
  // None: they are not, or a loader of another format has left it.
  virtual std::optional<LoadEstimate> EstimateRest(const ModelSpec&, const Rest&) const { return std::nullopt; }

  // All or nothing: on error nothing stays behind. Returns CANCELLED soon after `stop` is requested.
  // The model it returns has its pages populated and its warm-up done.
  //
  // `opened`: of this loader's estimate of the same spec, made anew or of a rest: not opened again unless the files
  // changed since; what it cost is in the model's report. Null: none was made.
  virtual absl::StatusOr<std::unique_ptr<Model>> Load(const ModelSpec& spec, const OpenedFiles* opened,
                                                      std::stop_token stop) const = 0;
  absl::StatusOr<std::unique_ptr<Model>> Load(const ModelSpec& spec, std::stop_token stop) const {
    return Load(spec, nullptr, std::move(stop));
  }
};

}  // namespace hearth

// Which version answers a request.
#pragma once

#include <memory>
#include <string>

#include "server/base/status.h"
#include "server/residency/model_manager.h"
#include "server/storage/catalog.h"

namespace hearth {

// The catalog knows what the files say: the highest version, and which version a label means. When that changes while
// the version before is resident, requests go on with that one until the other is ready, which is loaded in the
// background for it: nobody waits for a new version, and a label moves only onto one that works. Then the one before
// leaves, if model.yaml's `versions` does not list it any more.
//
// Once the version before has left the cache, for whatever reason, there is nothing to go on with, and the next request
// loads the other. A number always means that version. A version that was taken away is not gone on with, unless a
// label moves from it. With `resource_preserving`, where both do not fit, the version before leaves first, unless a label
// names it: by then the files of the other one have been looked at.
//
// Thread-safe. Outlived by what Deps refers to.
class VersionRoutes {
 public:
  struct Deps {
    Catalog& catalog;
    ModelManager& manager;
  };
  explicit VersionRoutes(Deps deps);

  // `version`: a number, a label, or empty. Where nothing is on the move this is the catalog's answer and takes no lock
  // of ours. Refusals: the catalog's, and INVALID_ARGUMENT, with Triton's text, for what is neither a number nor a
  // label of the model.
  absl::StatusOr<ModelId> Resolve(const std::string& model, const std::string& version) const;

  // The catalog has read files again: begins to load what is to take over, also what failed before. To be called after
  // every scan, so that this does not wait for the next request.
  void Rescanned();

  // It answers only until another version is ready: it may have left the repository, but must not leave the cache.
  bool GoesOn(const ModelId& id) const;

  // It was unloaded: nothing is left to go on with.
  void Forget(const std::string& model);

 private:
  struct State;
  const std::shared_ptr<State> state_;  // shared with loads under way, which may outlive us
};

}  // namespace hearth

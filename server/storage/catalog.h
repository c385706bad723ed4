// What exists: the model repository, scanned into an immutable snapshot.
//
//   <root>/<model>/<version>/model.pt     a model with versions; optional <root>/<model>/model.yaml, and Triton's
//                                         config.pbtxt, of which model.yaml's keys take the place
//   <root>/<model>/<version>/program.pt   a program whose weights lie beside it (weights_file.h)
//   <root>/<model>/<version>/model.pt2    an AOTInductor package, or one unpacked into a folder of that
//                                         name; its weights may lie beside it
//   <root>/<model>.pt                     a bare file is a model too, version 1
//
// `.jit` does for `.pt`, and a bare file may be a `.pt2`. Versions are decimal directory names without leading zeros; others are
// ignored, as in Triton. A name that is not ^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$ is ignored with a
// warning, a hidden one without. Symbolic links are followed. Of a model that is in two roots the
// first root's counts, of a folder and a bare file the folder, with a warning. Names off the
// network are looked up here and never become paths.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/model/model_spec.h"
#include "server/storage/triton_config.h"

namespace hearth {

// Thread-safe. Lookups read a snapshot; a scan builds a new one beside it and swaps. Only Scan, Rescan and Spec look at
// the disk, and a disk that does not answer holds up nobody else but other scans.
class Catalog {
 public:
  // Without `read_triton`, config.pbtxt is not looked at.
  explicit Catalog(std::vector<std::filesystem::path> roots, TritonConfigReader read_triton = nullptr);

  // How to look at it while it may be changing.
  struct ScanOptions {
    // A version that was not there before, and in which something was written later than this, is left out: it may be
    // incomplete. None: all of them count.
    std::optional<WallTime> settled_before = std::nullopt;
    // Of names that are ignored, and the like. That a model cannot be served is a warning, once.
    log::Level oddities = log::Level::kWarning;
  };
  // Reads every root again. A root that cannot be read is an error and leaves the old snapshot as
  // it was; a model that cannot be understood (a bad model.yaml or config.pbtxt) stays listed with its error. If it
  // was understood before, it goes on as it was: a slip of the pen takes no model down.
  absl::Status Scan(const ScanOptions& options);
  absl::Status Scan() { return Scan(ScanOptions()); }
  // The last Scan left something out that may be incomplete: look again.
  bool has_unsettled() const { return has_unsettled_.load(std::memory_order_relaxed); }
  // Reads one model again. NOT_FOUND when it is in no root (and is forgotten).
  absl::Status Rescan(std::string_view model);
  // The same, and `config` is in force instead of its config.pbtxt and over its model.yaml from now on; null: those in the
  // repository are. INVALID_ARGUMENT: the model cannot be understood with it; then all is as it was before. UNIMPLEMENTED:
  // nothing reads it.
  absl::Status RescanWith(std::string_view model, std::shared_ptr<const TritonConfig> config);
  // What the last RescanWith put in force; null: nothing. An unload lifts it.
  std::shared_ptr<const TritonConfig> Override(std::string_view model) const;

  // `version`: none means the highest that model.yaml serves (`versions`). Refusals, with Triton's texts:
  //   NOT_FOUND    "Request for unknown model: 'm' is not found", "... version 9 is not found",
  //                which also tells when model.yaml leaves it out
  //   UNAVAILABLE  "Request for unknown model: 'm' version 1 is not at ready state", after Unload; without a version
  //                NOT_FOUND, "Request for unknown model: 'm' has no available versions"
  //   otherwise    why the model cannot be understood
  absl::StatusOr<ModelId> Resolve(std::string_view model,
                                  std::optional<std::int64_t> version) const;
  // The version that model.yaml gives this name. Refusals as above; NOT_FOUND also when there is no such label.
  absl::StatusOr<ModelId> ResolveLabel(std::string_view model, std::string_view label) const;
  std::map<std::string, std::int64_t> Labels(std::string_view model) const;  // empty: none, or unknown
  // model.yaml's resource_preserving.
  bool IsResourcePreserving(std::string_view model) const;
  // With its files' revision as of now: a look at each file, though not into it.
  absl::StatusOr<ModelSpec> Spec(const ModelId& id) const;
  // The same as it was when it was last read, without a revision: no look at any file.
  absl::StatusOr<ModelSpec> Listed(const ModelId& id) const;
  // What model.yaml and the like said of it when it was last read: no look at any file. Null: nothing, or it is unknown.
  std::shared_ptr<const ModelOptions> Options(std::string_view model) const;

  // Why the model cannot be understood as it is on disk now, also where it goes on as it was.
  absl::Status Fault(std::string_view model) const;

  // An explicit Unload stays in force until Load (eviction does not come here): Resolve() refuses.
  // Ignored for a model that is not listed; forgotten with it.
  void SetUnloaded(std::string_view model, bool unloaded);
  bool IsUnloaded(std::string_view model) const;

  // Something means another version since a scan: requests without a version (`label` is empty) a higher one, or a
  // label any other.
  struct Move {
    std::string model;
    std::string label;
    std::int64_t from = 0;
    std::int64_t to = 0;
  };
  // Those of all scans since the last call, oldest first. There are some (has_moves) before anybody can resolve what
  // moved to something else.
  std::vector<Move> TakeMoves();
  bool has_moves() const { return has_moves_.load(std::memory_order_acquire); }

  struct Row {
    std::string model;
    std::vector<std::int64_t> versions;  // that are served, ascending; empty: it cannot be served
    absl::Status error;                  // why not, or why the versions are those of before
    bool unloaded = false;
  };
  std::vector<Row> List() const;                                     // by name
  std::vector<std::int64_t> Versions(std::string_view model) const;  // empty: unknown

 private:
  // A hundred thousand of these are to fit beside the models: a path object takes four times what its text does, and
  // all versions of a model have the same options.
  struct Version {
    std::string file;
    std::vector<std::string> weights = {};
  };
  struct Entry {
    std::map<std::int64_t, Version> versions;
    std::vector<std::int64_t> left_out;  // there, but not by model.yaml's choice
    std::shared_ptr<const ModelOptions> options;  // none: nothing was said
    absl::Status error;  // with versions: they are those of the last good reading
    std::vector<std::string> remarks;     // what of its config.pbtxt has no effect
    std::uint64_t override_stamp = 0;     // part of the revision
  };
  using Snapshot = std::map<std::string, std::shared_ptr<const Entry>, std::less<>>;
  using Overrides = std::map<std::string, std::shared_ptr<const TritonConfig>, std::less<>>;

  std::shared_ptr<const Snapshot> snapshot() const ABSL_LOCKS_EXCLUDED(mu_);
  Overrides overrides() const ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status RescanLocked(const std::string& model, const Overrides& overrides)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(scan_mu_) ABSL_LOCKS_EXCLUDED(mu_);
  void Publish(Snapshot snapshot) ABSL_LOCKS_EXCLUDED(mu_);

  static void AddMoves(const std::string& model, const Entry& before, const Entry& after, std::vector<Move>& moves);
  // UNAVAILABLE after SetUnloaded.
  absl::StatusOr<ModelId> CheckLoaded(std::string_view model, std::int64_t version) const;
  // Whether its versions are in `folder`, and not of the same name elsewhere.
  static bool IsFrom(const std::filesystem::path& folder, const Entry& entry);
  // What a scan knows of before it reads a model.
  struct Reading {
    const Snapshot& before;
    const ScanOptions& options;
    const TritonConfigReader& read_triton;
    const Overrides& overrides;
    bool* unsettled = nullptr;  // set if something was
    // Whether it is new and may be incomplete.
    bool IsUnsettled(const std::string& model, std::int64_t version, const std::filesystem::path& path) const;
    // That `error` is what was wrong with the model before, too.
    bool IsKnown(const std::string& model, const absl::Status& error) const;
    const TritonConfig* Override(const std::string& model) const;  // null: there is none
  };
  static absl::Status ScanRoot(const std::filesystem::path& root, const Reading& reading, Snapshot& found);
  // Null: nothing of it is settled.
  static std::shared_ptr<const Entry> ReadFolder(const std::string& model,
                                                 const std::filesystem::path& folder,
                                                 const Reading& reading);
  // What is said of a model: its override's, model.yaml's or config.pbtxt's; leaves entry.options null if nothing is.
  // No folder: a bare file.
  static absl::Status ReadOptions(const std::string& model, const std::filesystem::path* folder, const Reading& reading,
                                  Entry& entry);
  // True: it left out one that is not settled.
  static absl::StatusOr<bool> ReadVersions(const std::string& model, const std::filesystem::path& folder,
                                           const ModelOptions& options, const Reading& reading, Entry& entry);
  static std::shared_ptr<const Entry> BareFile(const std::string& model, const std::filesystem::path& file,
                                               const Reading& reading);

  const std::vector<std::filesystem::path> roots_;
  const TritonConfigReader read_triton_;

  // Held while the disk is read, so that an older reading never replaces a newer one. Only ever
  // taken before mu_, and by nothing that a request waits for.
  Mutex scan_mu_ ABSL_ACQUIRED_BEFORE(mu_);

  mutable Mutex mu_;
  std::shared_ptr<const Snapshot> snapshot_ ABSL_GUARDED_BY(mu_);
  std::vector<Move> moves_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> has_moves_{false};  // written under mu_
  std::atomic<bool> has_unsettled_{false};  // written under scan_mu_
  std::set<std::string, std::less<>> unloaded_ ABSL_GUARDED_BY(mu_);
  Overrides overrides_ ABSL_GUARDED_BY(mu_);  // written under scan_mu_, too, but by SetUnloaded
};

// "3", not "03", "+3" or "0": the number of a version's folder.
std::optional<std::int64_t> ParseVersionFolder(std::string_view name);

inline constexpr std::string_view kProgramFile = "program.pt";  // a program whose weights lie beside it

// The files of weights beside a program: those that model.yaml names, else an index of shards, else
// all that look like weights, which may be none.
absl::StatusOr<std::vector<std::filesystem::path>> WeightsBeside(const std::filesystem::path& folder,
                                                                 const std::vector<std::string>& named);

// "torchscript" or "aoti": the format of a program, by its name.
std::string FormatOf(const std::filesystem::path& program);

// The name rule above; also for model names in the configuration.
bool IsModelName(std::string_view name);

}  // namespace hearth

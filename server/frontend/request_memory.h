// The memory that all requests share: their tensors while they wait and run, and their answers until they have been sent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/tensor/byte_allowance.h"
#include "server/tensor/tensor.h"

namespace hearth {

// Why there was no memory for `what`, and what to do. RESOURCE_EXHAUSTED.
absl::Status NoMemoryFor(std::string_view what, const std::bad_alloc& why);

// Something that is to be kept until an answer has been sent.
using UntilSent = std::shared_ptr<const void>;

// Counts `bytes` against `whole` for as long as the result is there. RESOURCE_EXHAUSTED: they are too many. Null: so few
// that nobody counts them.
absl::StatusOr<std::shared_ptr<ByteCharge>> ChargeAnswer(const std::shared_ptr<ByteAllowance>& whole, std::uint64_t bytes);

// Likewise, of a request what is not its tensors: names, shapes, its id.
absl::StatusOr<std::shared_ptr<ByteCharge>> ChargeNames(const std::shared_ptr<ByteAllowance>& whole, std::uint64_t bytes);

// Of that memory, half at most is for answers to any one connection: a client that does not read takes it from nobody else.
//
// Thread-safe.
class AnswerShares {
 public:
  // Null: nobody counts.
  explicit AnswerShares(std::shared_ptr<ByteAllowance> whole) : whole_(std::move(whole)) {}

  // That of a connection, for as long as somebody holds it.
  std::shared_ptr<ByteAllowance> Of(const std::string& connection) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const std::shared_ptr<ByteAllowance> whole_;
  Mutex mu_;
  std::map<std::string, std::weak_ptr<ByteAllowance>> shares_ ABSL_GUARDED_BY(mu_);  // some are over
  std::size_t sweep_at_ ABSL_GUARDED_BY(mu_) = 64;
};

// Such outputs are copied rather than held, and nobody counts them.
bool AreSmall(const TensorList& outputs);

// Makes one owner of all that `outputs` refer to, and counts their bytes against both for as long as it is there; `share`
// null: against the whole. RESOURCE_EXHAUSTED: they are too many.
absl::Status ChargeOutputs(const std::shared_ptr<ByteAllowance>& whole,
                           const std::shared_ptr<ByteAllowance>& share, TensorList& outputs);

}  // namespace hearth
